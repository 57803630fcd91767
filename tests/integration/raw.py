"""Bytes on a socket: for everything that no honest client sends."""
import asyncio
import base64
import json
import os
import struct

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
ANSWER_TIMEOUT_S = 20


def frame(opcode, payload=b"", *, fin=True, rsv=0, mask=b"\x11\x22\x33\x44", size=None, length_bytes=None):
    """A client's frame; `size` is what the header claims, `length_bytes` 2 or 8 forces a longer form of it."""
    size = len(payload) if size is None else size
    head = bytes([fin << 7 | rsv << 4 | opcode])
    masked = 0x80 if mask else 0
    if length_bytes == 8 or (length_bytes is None and size > 0xFFFF):
        head += bytes([masked | 127]) + struct.pack("!Q", size)
    elif length_bytes == 2 or (length_bytes is None and size > 125):
        head += bytes([masked | 126]) + struct.pack("!H", size)
    else:
        head += bytes([masked | size])
    if mask:
        payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    return head + (mask or b"") + payload


def upgrade_request(*, path="/v1/connect", method="GET", version="1.1", without=(), extra=(), **changed):
    """An upgrade that is right but for what is `changed` (underscores for hyphens), left out or added."""
    headers = {"host": "127.0.0.1", "upgrade": "websocket", "connection": "Upgrade", "sec-websocket-version": "13",
               "sec-websocket-key": base64.b64encode(os.urandom(16)).decode(),
               "sec-websocket-protocol": "signalbox.v1.json"}
    headers.update({name.replace("_", "-"): value for name, value in changed.items()})
    lines = [f"{method} {path} HTTP/{version}"]
    lines += [f"{name}: {value}" for name, value in headers.items() if name not in without]
    lines += [f"{name}: {value}" for name, value in extra]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


class HttpAnswer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def problem(self):
        """The RFC 9457 body, checked against the headers."""
        assert self.headers.get("content-type") == "application/problem+json", (self.status, self.headers, self.body)
        problem = json.loads(self.body)
        assert problem["status"] == self.status and problem["title"] and problem["detail"] and problem["code"], problem
        if self.status in (429, 503):
            assert int(self.headers["retry-after"]) > 0
        return problem


class Raw:
    """One connection; read_* return None when the other side has ended it."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, cluster, number=1, tls=True):
        context = cluster.client_tls if tls else None
        return cls(*await asyncio.open_connection("127.0.0.1", cluster.port(number), ssl=context))

    @classmethod
    async def websocket(cls, cluster, number=1, **request):
        raw = await cls.open(cluster, number, tls=cluster.tls)
        answer = await raw.http(upgrade_request(**request))
        assert answer is not None and answer.status == 101, answer and (answer.status, answer.body)
        return raw

    async def send(self, data):
        try:
            self.writer.write(data)
            await self.writer.drain()
        except ConnectionError:
            pass

    async def http(self, request):
        await self.send(request)
        return await self.read_http()

    async def read_http(self):
        try:
            head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), ANSWER_TIMEOUT_S)
            lines = head.decode("latin-1").split("\r\n")
            headers = dict((name.strip().lower(), value.strip()) for name, _, value in
                           (line.partition(":") for line in lines[1:] if line))
            status = int(lines[0].split(" ")[1])
            size = int(headers.get("content-length", 0))
            body = await asyncio.wait_for(self.reader.readexactly(size), ANSWER_TIMEOUT_S)
            return HttpAnswer(status, headers, body.decode())
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def read_frame(self):
        try:
            head = await asyncio.wait_for(self.reader.readexactly(2), ANSWER_TIMEOUT_S)
            assert not head[1] & 0x80, "the server masked a frame"
            assert not head[0] & 0x70, "the server set a reserved bit"
            size = head[1]
            if size == 126:
                size, = struct.unpack("!H", await self.reader.readexactly(2))
            elif size == 127:
                size, = struct.unpack("!Q", await self.reader.readexactly(8))
            return head[0] & 15, await asyncio.wait_for(self.reader.readexactly(size), ANSWER_TIMEOUT_S)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def next_of(self, opcode):
        """The next frame of this kind; None if the connection ends first."""
        while (got := await self.read_frame()) is not None:
            if got[0] == opcode:
                return got[1]
        return None

    async def read_messages(self, encoding="json"):
        """What comes until the close frame: [messages], code, reason."""
        messages = []
        while (got := await self.read_frame()) is not None:
            if got[0] == CLOSE:
                code = struct.unpack("!H", got[1][:2])[0] if got[1] else 1005
                return messages, code, got[1][2:].decode()
            if got[0] in (TEXT, BINARY):
                messages.append(json.loads(got[1]) if encoding == "json" else got[1])
        return messages, None, ""

    async def ended(self):
        """Waits until the other side has ended the connection; what it sent before."""
        try:
            return await asyncio.wait_for(self.reader.read(), ANSWER_TIMEOUT_S)
        except ConnectionError:
            return b""

    async def close(self):
        """At once, without a TLS farewell."""
        self.writer.transport.abort()
        await asyncio.sleep(0)
