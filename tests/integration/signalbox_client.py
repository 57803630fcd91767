"""A Signalbox client that shares nothing with the server: written from docs/PROTOCOL.md and proto/client.proto, with the
protobuf runtime and the WebSocket library that anybody would take. The section numbers below are PROTOCOL.md's.

One Client is one session. It may have several connections one after another: connect() opens the first and joins,
resume() opens the next. What tests look at: roster, position, history (joined and left, as an application would see
them), delivered (messages from one), chat (messages to the room), signals, leave, close_code, received (everything).
"""
import asyncio
import ssl
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import websockets
from google.protobuf import json_format

from wire import pb

SUBPROTOCOLS = {"protobuf": "signalbox.v1.protobuf", "json": "signalbox.v1.json"}
NOT_NOW = {pb.THROTTLED, pb.RETRY, pb.UNAVAILABLE, pb.WOULD_BLOCK, pb.NO_CAPACITY, pb.INTERNAL}
PAIR_ENDED = {pb.NOT_FOUND, pb.UNDELIVERABLE}
DIRECTED = ("offer", "answer", "candidate", "candidates_done", "message")
SYNC_AGAIN_S = 5


def encode(message, encoding):
    if encoding == "protobuf":
        return message.SerializeToString()
    return json_format.MessageToJson(message, indent=None)


def decode(frame, encoding):
    assert isinstance(frame, bytes) == (encoding == "protobuf"), "the server sent a frame of the wrong type"
    if encoding == "protobuf":
        return pb.ServerMessage.FromString(frame)
    return json_format.Parse(frame, pb.ServerMessage(), ignore_unknown_fields=True)


def roster_digest(participants):
    """Section 4: the sum of the hash of `<sid>:<version>`."""
    total = 0
    for participant in participants:
        if participant.kind == pb.Participant.VIEWER:
            continue
        value = 0xCBF29CE484222325
        for byte in f"{participant.sid}:{participant.version}".encode():
            value = (value ^ byte) * 0x100000001B3 % 2**64
        for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
            value = (value ^ value >> 33) * factor % 2**64
        total = (total + (value ^ value >> 33)) % 2**64
    return f"{total:016x}"


@dataclass
class Outgoing:
    """Section 5, sending: what one receiver (or the room) has not acknowledged."""

    next_seq: int = 1
    window: dict = field(default_factory=dict)  # seq -> ClientMessage
    timer: asyncio.TimerHandle = None
    doublings: int = 0
    paused_until: float = 0
    ended: bool = False


@dataclass
class Incoming:
    """Section 5, receiving: what one sender has sent."""

    expected: int = 1
    waiting: dict = field(default_factory=dict)  # seq -> ServerMessage
    ack_timer: asyncio.TimerHandle = None


class Client:
    def __init__(self, encoding="protobuf", tls: ssl.SSLContext = None):
        self.encoding = encoding
        self.tls = tls
        self.socket = None
        self.reader = None
        self.hello_ok = None
        self.leave = None
        self.close_code = None
        self.close_reason = ""
        self.sid = ""
        self.resume_token = ""
        self.attempt = 0  # section 10
        self.position = pb.Position()
        self.room = pb.RoomInfo()
        self.roster = {}
        self.synced = False
        self.settling = False
        self.degraded = False
        self.history = []
        self.delivered = []
        self.chat = []
        self.signals = []
        self.undeliverable = []
        self.received = []
        self.counts = Counter()
        self.syncs_asked = []  # and why
        self.pong_behind_s = 2
        self.results = {}
        self._pages = None
        self._sync_asked = 0
        self._outgoing = defaultdict(Outgoing)
        self._incoming = defaultdict(Incoming)
        self._chat_seen = {}
        self._gone = set()
        self._pending = {}
        self._request_id = 0
        self._queue = None
        self._writer = None
        self._changed = asyncio.Event()
        self._ping_timer = None

    # --- Connections ------------------------------------------------------------------------------------------------

    async def open(self, url, *, token="", query="", protocols=None, headers=None):
        """The upgrade alone. `token`: in the Authorization header."""
        await self._close_socket()
        headers = dict(headers or {})
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self.socket = await websockets.connect(
            f"{url}/v1/connect{query}", ssl=self.tls, compression=None, max_size=None, ping_interval=None,
            subprotocols=protocols or [SUBPROTOCOLS[self.encoding]], extra_headers=headers, open_timeout=20)
        assert self.socket.subprotocol == SUBPROTOCOLS[self.encoding], self.socket.subprotocol
        self.hello_ok = self.leave = self.close_code = None
        self._queue = asyncio.Queue()
        self._writer = asyncio.create_task(self._write(self.socket, self._queue))
        self.reader = asyncio.create_task(self._read(self.socket))

    async def connect(self, url, token, *, room="", timeout=20, **join):
        """Opens a session: hello with the token, then the whole roster."""
        await self.open(url)
        self.send(pb.ClientMessage(hello=pb.Hello(token=token, join=pb.Join(room=room, **join))))
        await self.joined(timeout)

    async def resume(self, url, timeout=20):
        """Section 10. The caller decides when; what was not acknowledged goes out again."""
        last = self.position if self.position.epoch else None
        await self.open(url)
        self.attempt += 1
        self.send(pb.ClientMessage(hello=pb.Hello(resume_token=self.resume_token, last=last, attempt=self.attempt)))
        await self.joined(timeout)

    async def move(self, url, timeout=20):
        """Section 9, `reconnect`: a second connection, and the first stays until the second has its hello_ok."""
        first, writer, reader = self.socket, self._writer, self.reader
        self._cancel(self._ping_timer)
        self.socket = None
        await self.resume(url, timeout)
        await first.close(1001)
        writer.cancel()
        await asyncio.gather(reader, writer, return_exceptions=True)

    async def joined(self, timeout=20):
        await self.until(lambda: (self.hello_ok is not None and self.synced) or self.close_code is not None, timeout)
        if self.hello_ok is None or self.close_code is not None:
            raise ConnectionError(f"not joined: closed {self.close_code} {self.close_reason!r}, leave {self.leave}")

    async def depart(self):
        self.send(pb.ClientMessage(leave=pb.Leave(reason=pb.CLIENT_LEFT)))
        await self.until(lambda: self.close_code is not None)
        await self._close_socket()

    async def drop(self):
        """The network goes away: the TCP connection ends without a WebSocket close."""
        if self.socket is not None and self.socket.transport is not None:
            self.socket.transport.abort()
        await self._close_socket()

    async def close(self):
        for pair in self._outgoing.values():
            self._cancel(pair.timer)
        for pair in self._incoming.values():
            self._cancel(pair.ack_timer)
        await self._close_socket()

    async def _close_socket(self):
        self._cancel(self._ping_timer)
        if self.socket is None:
            return
        self._writer.cancel()
        await self.socket.close()
        await asyncio.gather(self.reader, self._writer, return_exceptions=True)
        self.socket = None

    @staticmethod
    def _cancel(timer):
        if timer is not None:
            timer.cancel()

    async def _write(self, socket, queue):
        try:
            while True:
                await socket.send(await queue.get())
        except websockets.ConnectionClosed:
            pass

    async def _read(self, socket):
        try:
            async for frame in socket:
                if socket is not self.socket:
                    continue  # the new connection asks for what has happened since it was opened
                message = decode(frame, self.encoding)
                self.received.append(message)
                self._restart_ping()
                self._handle(message)
                self._wake()
        except websockets.ConnectionClosed:
            pass
        finally:
            if socket is self.socket:
                self.close_code = socket.close_code
                self.close_reason = socket.close_reason or ""
                self.synced = False
                self._wake()

    def _wake(self):
        self._changed.set()

    async def until(self, condition, timeout=20, what=""):
        """Waits for a condition on this client; wakes up with every message."""
        deadline = asyncio.get_running_loop().time() + timeout
        while not condition():
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                raise TimeoutError((what() if callable(what) else what) or f"waited {timeout} s in vain; position {self.position}, closed {self.close_code}")
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except asyncio.TimeoutError:
                pass

    # --- Sending ----------------------------------------------------------------------------------------------------

    def send(self, message):
        if self._queue is not None and self.close_code is None:
            self._queue.put_nowait(encode(message, self.encoding))

    def send_raw(self, frame):
        self._queue.put_nowait(frame)

    async def request(self, message, timeout=20):
        """Section 8: sends with a request_id and waits for the one result."""
        self._request_id += 1
        message.request_id = self._request_id
        self.send(message)
        await self.until(lambda: message.request_id in self.results or self.close_code is not None, timeout)
        return self.results.pop(message.request_id)

    def tell(self, peer, message):
        """Section 5: an offer, answer, candidate, candidates_done or reliable `send` to one participant; peer "" with a
        reliable `send` is section 6. Returns its number, or 0 for WOULD_BLOCK."""
        pair = self._outgoing[peer]
        limits = self.hello_ok.limits if self.hello_ok else pb.Limits()
        size = sum(m.ByteSize() for m in pair.window.values()) + message.ByteSize()
        if pair.ended or len(pair.window) >= (limits.directed_window_messages or 64) or \
                size > (limits.directed_window_bytes or 262144):
            return 0
        seq = pair.next_seq
        pair.next_seq += 1
        self._put(peer, pair, seq, message)
        self._arm(peer, pair)
        return seq

    def _put(self, peer, pair, seq, message):
        self._request_id += 1
        message.request_id = self._request_id
        self._pending[message.request_id] = (peer, seq)
        message.route.peer = peer
        message.route.seq = seq
        pair.window[seq] = message
        self._transmit(peer, pair, message)

    def _transmit(self, peer, pair, message):
        if asyncio.get_running_loop().time() < pair.paused_until:
            return
        if peer:
            message.route.ack = self._incoming[peer].expected - 1
            self._cancel(self._incoming[peer].ack_timer)
            self._incoming[peer].ack_timer = None
        self.send(message)

    def _arm(self, peer, pair):
        self._cancel(pair.timer)
        pair.timer = None
        if pair.window and not pair.ended:
            base = (self.hello_ok.limits.retransmit_ms if self.hello_ok else 0) or 1000
            pair.timer = asyncio.get_running_loop().call_later(base * 2**pair.doublings / 1000, self._overdue, peer, pair)

    def _overdue(self, peer, pair):
        pair.doublings = min(pair.doublings + 1, 3)
        self.counts["retransmissions"] += 1
        self._go_back(peer, pair)

    def _go_back(self, peer, pair):
        for message in pair.window.values():
            self._transmit(peer, pair, message)
        self._arm(peer, pair)

    def _send_all_again(self):
        for peer, pair in self._outgoing.items():
            self._go_back(peer, pair)

    def _acknowledged(self, peer, ack):
        pair = self._outgoing[peer]
        done = [seq for seq in pair.window if seq <= ack]
        for seq in done:
            self._pending.pop(pair.window.pop(seq).request_id, None)
        if done:
            pair.doublings = 0
            self._arm(peer, pair)

    def _end_pair(self, peer):
        pair = self._outgoing[peer]
        if pair.window:
            self.undeliverable.append((peer, sorted(pair.window)))
        pair.window.clear()
        pair.ended = True
        self._arm(peer, pair)

    def _refused(self, result, peer, seq):
        """Section 5, "When the server refuses one"; section 6 for the room."""
        pair = self._outgoing[peer]
        if result.code in NOT_NOW:
            pair.paused_until = asyncio.get_running_loop().time() + result.retry_after_ms / 1000
        elif peer and result.code in PAIR_ENDED:
            self._end_pair(peer)
        elif peer and seq in pair.window:
            self._put(peer, pair, seq, pb.ClientMessage(candidates_done=pb.CandidatesDone()))
        elif not peer:
            behind = [pair.window[at] for at in sorted(pair.window) if at > seq]
            pair.window = {at: m for at, m in pair.window.items() if at < seq}
            pair.next_seq = seq
            for message in behind:
                self._put(peer, pair, pair.next_seq, message)
                pair.next_seq += 1

    # --- Receiving --------------------------------------------------------------------------------------------------

    def _handle(self, message):
        kind = message.WhichOneof("body")
        self.counts[kind] += 1
        if message.route.ack:
            self._acknowledged(message.route.peer, message.route.ack)
        if kind in DIRECTED:
            self._directed(message)
        elif kind is not None:
            handler = getattr(self, "_on_" + kind, None)
            if handler is not None:
                handler(getattr(message, kind), message.route)

    def _on_hello_ok(self, ok, route):
        assert not self.sid or self.sid == ok.sid, "a resume gave another sid"
        self.hello_ok = ok
        self.sid = ok.sid
        self.resume_token = ok.resume_token
        self.degraded = False
        self._sync_asked = 0
        self._pages = None
        self.synced = ok.recovered
        if ok.recovered:
            self.position.epoch = ok.position.epoch
        self.send(pb.ClientMessage(ping=pb.Ping(nonce=1)))
        self._send_all_again()

    def _on_leave(self, leave, route):
        self.leave = leave

    def _on_token_refresh(self, refresh, route):
        self.resume_token = refresh.resume_token
        self.send(pb.ClientMessage(ping=pb.Ping(nonce=2)))

    def _on_degraded(self, degraded, route):
        self.degraded = degraded.degraded
        if not degraded.degraded:
            self._send_all_again()

    def _on_result(self, result, route):
        peer_seq = self._pending.pop(result.request_id, None)
        if peer_seq is None:
            self.results[result.request_id] = result
        elif result.code != pb.OK:
            self._refused(result, *peer_seq)

    def _on_undeliverable(self, undeliverable, route):
        self._end_pair(route.peer)

    def _on_signals(self, signals, route):
        self.signals.extend(signals.signals)

    # Section 4: the roster

    def _on_snapshot(self, snapshot, route):
        if self._pages and self._pages[0].position != snapshot.position:
            self._pages = None
        self._pages = (self._pages or []) + [snapshot]
        if snapshot.next_cursor:
            self.send(pb.ClientMessage(sync_state=pb.SyncState(cursor=snapshot.next_cursor)))
            return
        participants = {p.sid: p for page in self._pages for p in page.participants}
        epoch_changed = self.position.epoch not in ("", snapshot.position.epoch)
        self.settling = snapshot.settling
        for sid in list(self.roster):
            if sid not in participants and not snapshot.settling:
                self._left(sid)
        for participant in participants.values():
            self._seen(participant)
        self.position.CopyFrom(snapshot.position)
        self.room.CopyFrom(self._pages[0].room)
        self._pages = None
        self._sync_asked = 0
        self.synced = True
        if epoch_changed:
            self._send_all_again()
        self._roster_moved()

    def _on_room_events(self, events, route):
        if self._pages is not None:
            return
        position = self.position
        if events.epoch != position.epoch or events.first_seq > position.seq + 1:
            self._ask_sync(f"had {position}, then came {events.epoch}:{events.first_seq}")
            return
        if events.last_seq <= position.seq:
            return
        for event in events.events:
            self._apply(event)
        position.seq = events.last_seq
        if not position.epoch:
            self._ask_sync()
            return
        self._sync_asked = 0
        self._roster_moved()

    def _apply(self, event):
        kind = event.WhichOneof("event")
        if kind == "joined":
            self._seen(event.joined)
        elif kind == "left":
            self._left(event.left.sid)
        elif kind == "updated":
            known = self.roster.get(event.updated.sid)
            if known is None or event.updated.version < known.version:
                return
            known.version = event.updated.version
            if event.updated.HasField("profile"):
                known.name = event.updated.profile.name
                known.metadata = event.updated.profile.metadata
                known.attributes.clear()
                known.attributes.update(event.updated.profile.attributes)
            if event.updated.HasField("tracks"):
                del known.tracks[:]
                known.tracks.extend(event.updated.tracks.tracks)
            if event.updated.HasField("permissions"):
                known.permissions.CopyFrom(event.updated.permissions)
        elif kind == "settled":
            self._on_settled(event.settled)
        elif kind == "room":
            self.room.CopyFrom(event.room)
        elif kind == "message":
            message = event.message
            if message.sender_seq:
                if message.sender_seq <= self._chat_seen.get(getattr(message, "from"), 0):
                    return
                self._chat_seen[getattr(message, "from")] = message.sender_seq
            self.chat.append(message)

    def _seen(self, participant):
        known = self.roster.get(participant.sid)
        if participant.sid in self._gone or (known is not None and known.version > participant.version):
            return
        if known is None:
            self.history.append(("joined", participant.sid))
            self.roster[participant.sid] = pb.Participant()
        self.roster[participant.sid].CopyFrom(participant)

    def _left(self, sid):
        self._gone.add(sid)
        if self.roster.pop(sid, None) is not None:
            self.history.append(("left", sid))
            self._end_pair(sid)

    def _ask_sync(self, reason):
        now = asyncio.get_running_loop().time()
        if now - self._sync_asked < SYNC_AGAIN_S:
            return
        self._sync_asked = now
        self.syncs_asked.append(" ".join(reason.split()))
        last = self.position if self.position.epoch else None
        self.send(pb.ClientMessage(sync_state=pb.SyncState(position=last)))

    def _on_moved(self, moved, route):
        self.position.epoch = moved.epoch
        self._send_all_again()

    def _on_settled(self, settled):
        self.settling = False
        if roster_digest(self.roster.values()) != settled.digest:
            self.position.epoch = ""  # until a snapshot has come

    def _on_pong(self, pong, route):
        if self._behind(pong.position):
            asyncio.get_running_loop().call_later(
                self.pong_behind_s, lambda: self._ask_sync(f"had {self.position}, the pong said {pong.position}")
                if self._behind(pong.position) else None)

    def _behind(self, position):
        return bool(position.epoch) and self.synced and (
            position.seq > self.position.seq or position.epoch != self.position.epoch)

    def _restart_ping(self):
        self._cancel(self._ping_timer)
        interval_ms = (self.hello_ok.limits.ping_interval_ms if self.hello_ok else 0) or 20000
        self._ping_timer = asyncio.get_running_loop().call_later(
            interval_ms / 1000, lambda: self.send(pb.ClientMessage(ping=pb.Ping(nonce=3))))

    # Section 5: directed messages

    def _directed(self, message):
        seq, sender = message.route.seq, message.route.peer
        pair = self._incoming[sender]
        if seq == 0:
            return
        if seq < pair.expected:
            self.counts["duplicates"] += 1
            self._send_ack(sender, pair)
        elif seq < pair.expected + 64:
            pair.waiting.setdefault(seq, message)
            self._deliver(sender, pair)

    def _deliver(self, sender, pair):
        while pair.expected in pair.waiting:
            message = pair.waiting[pair.expected]
            if sender not in self.roster and self.position.seq < message.route.sender_join.seq:
                return
            del pair.waiting[pair.expected]
            pair.expected += 1
            self.delivered.append((sender, message))
            if pair.ack_timer is None:
                delay_ms = self.hello_ok.limits.ack_delay_ms or 50
                pair.ack_timer = asyncio.get_running_loop().call_later(delay_ms / 1000, self._send_ack, sender, pair)

    def _send_ack(self, sender, pair):
        self._cancel(pair.ack_timer)
        pair.ack_timer = None
        self.send(pb.ClientMessage(route=pb.Route(peer=sender, ack=pair.expected - 1), ack=pb.Ack()))

    def _roster_moved(self):
        for sender, pair in list(self._incoming.items()):
            self._deliver(sender, pair)

    # --- What tests say often ---------------------------------------------------------------------------------------

    def identities(self):
        return sorted(p.identity for p in self.roster.values())

    def unacknowledged(self):
        return sum(len(pair.window) for pair in self._outgoing.values())

    def texts_from(self, sid):
        return [m.message.text for sender, m in self.delivered if sender == sid]
