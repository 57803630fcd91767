"""RFC 6455 from the client's side: the essential cases of the Autobahn test suite's sections 1 to 7, by number, over raw
sockets. Where Autobahn's server echoes, ours carries on with the session: what it answers to is a ping of its own
protocol behind the case, or the close code."""
import asyncio
import struct

from cluster import mint
from cluster_case import ClusterCase
from raw import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Raw, frame

REQUEST = b'{"ping": {"nonce": "77"}}'
NOT_UTF8 = bytes.fromhex("cebae1bdb9cf83cebcceb5eda080656469746564")


def text_request(value):
    """A valid request of exactly this many bytes, with text beyond ASCII in it."""
    pad = "é" * ((value - len(REQUEST) - 12) // 2)
    body = f'{{"ping": {{"nonce": "77"}}, "pad": "{pad}"}}'.encode()
    return body + b" " * (value - len(body))


def closing(code, reason=b""):
    return frame(CLOSE, struct.pack("!H", code) + reason)


class WebSocketTest(ClusterCase):
    cluster_options = {"gateways": 1, "shards": 1}

    async def session(self):
        raw = await Raw.websocket(self.cluster)
        self.addAsyncCleanup(raw.close)
        self.number = getattr(self, "number", 0) + 1
        await raw.send(frame(TEXT, b'{"hello": {"token": "%s"}}' % mint(f"p{self.number}", "autobahn").encode()))
        while b'"snapshot"' not in (await raw.next_of(TEXT) or b'"snapshot"'):
            pass
        return raw

    async def lives(self, raw):
        await raw.send(frame(TEXT, REQUEST))
        await self.answered(raw)

    async def answered(self, raw):
        while True:
            message = await raw.next_of(TEXT)
            self.assertIsNotNone(message, "the connection has ended")
            if b'"pong"' in message:
                self.assertIn(b'"77"', message)
                return

    async def fails(self, raw, data, *codes, chopped=False):
        if chopped:
            for byte in data:
                await raw.send(bytes([byte]))
        else:
            await raw.send(data)
        _, code, reason = await raw.read_messages()
        self.assertIn(code, codes, reason)
        self.assertTrue(reason)
        await raw.close()

    async def test_1_text_messages_of_all_lengths(self):
        raw = await self.session()
        for size in (50, 125, 126, 127, 128, 65535, 65536):
            await raw.send(frame(TEXT, text_request(size)))
            await self.answered(raw)
        data = frame(TEXT, text_request(2048))
        for at in range(0, len(data), 997):
            await raw.send(data[at:at + 997])
        await self.answered(raw)

    async def test_1_1_9_longer_than_the_limit_is_too_big(self):
        for data in (frame(TEXT, b" " * 65537), frame(TEXT, b"", size=2**31), frame(TEXT, b"", size=2**62),
                     frame(TEXT, b" " * 40000, fin=False) + frame(CONTINUATION, b" " * 40000)):
            await self.fails(await self.session(), data, 1009)
        await self.fails(await self.session(), frame(TEXT, b"", size=2**63), 1002, 1009)

    async def test_1_2_binary_on_a_text_subprotocol_is_unsupported(self):
        for size in (0, 125, 70):
            await self.fails(await self.session(), frame(BINARY, b"x" * size), 1003)

    async def test_1_lengths_must_be_in_their_shortest_form(self):
        await self.fails(await self.session(), frame(TEXT, REQUEST, length_bytes=2), 1002)
        await self.fails(await self.session(), frame(TEXT, REQUEST, length_bytes=8), 1002)

    async def test_2_pings_are_answered_with_their_payload(self):
        raw = await self.session()
        for payload in (b"", b"Hello", bytes(range(125)), b"\x00\xff\xfe\xfd"):
            await raw.send(frame(PING, payload))
            self.assertEqual(await raw.next_of(PONG), payload)
        data = frame(PING, b"x" * 125)
        for byte in data:
            await raw.send(bytes([byte]))
        self.assertEqual(await raw.next_of(PONG), b"x" * 125)
        await self.lives(raw)

    async def test_2_5_a_ping_of_more_than_125_bytes_is_an_error(self):
        await self.fails(await self.session(), frame(PING, b"x" * 126), 1002)

    async def test_2_7_unsolicited_pongs_are_ignored(self):
        raw = await self.session()
        await raw.send(frame(PONG) + frame(PONG, b"unasked"))
        await self.lives(raw)

    async def test_2_10_of_ten_pings_at_least_the_last_is_answered(self):
        raw = await self.session()
        await raw.send(b"".join(frame(PING, b"%d" % i) for i in range(10)))
        while await raw.next_of(PONG) != b"9":
            pass
        await self.lives(raw)

    async def test_3_reserved_bits_must_be_clear(self):
        for rsv in (1, 2, 3, 4, 5, 6, 7):
            for opcode in (TEXT, PING, CLOSE):
                await self.fails(await self.session(), frame(opcode, b"", rsv=rsv), 1002)

    async def test_4_reserved_opcodes_are_errors(self):
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
            await self.fails(await self.session(), frame(opcode, b"x"), 1002)

    async def test_5_fragments_are_put_together(self):
        raw = await self.session()
        half = len(REQUEST) // 2
        await raw.send(frame(TEXT, REQUEST[:half], fin=False) + frame(CONTINUATION, REQUEST[half:]))
        await self.answered(raw)
        # 5.6, 5.19: control frames between fragments are answered at once; empty fragments count for nothing.
        await raw.send(frame(TEXT, REQUEST[:half], fin=False) + frame(CONTINUATION, fin=False) + frame(PING, b"between"))
        self.assertEqual(await raw.next_of(PONG), b"between")
        await raw.send(frame(CONTINUATION, REQUEST[half:], fin=False) + frame(CONTINUATION))
        await self.answered(raw)
        await raw.send(b"".join(frame(TEXT if i == 0 else CONTINUATION, bytes([byte]), fin=i == len(REQUEST) - 1)
                                for i, byte in enumerate(REQUEST)))
        await self.answered(raw)

    async def test_5_fragmented_control_frames_are_errors(self):
        for opcode in (PING, PONG, CLOSE):
            await self.fails(await self.session(), frame(opcode, b"x", fin=False), 1002)

    async def test_5_9_continuations_of_nothing_are_errors(self):
        await self.fails(await self.session(), frame(CONTINUATION, REQUEST), 1002)
        await self.fails(await self.session(), frame(CONTINUATION, REQUEST, fin=False), 1002)
        await self.fails(await self.session(), frame(TEXT, REQUEST) + frame(CONTINUATION, b"x"), 1002)

    async def test_5_18_a_new_message_within_one_is_an_error(self):
        await self.fails(await self.session(), frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), 1002)
        await self.fails(await self.session(), frame(TEXT, b"a", fin=False) + frame(BINARY, b"b"), 1002)

    async def test_6_text_must_be_utf8(self):
        for bad in (NOT_UTF8, b"\xff", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"\xed\xa0\x80", b"\xe2\x82", b"\xf8\x88\x80\x80\x80"):
            await self.fails(await self.session(), frame(TEXT, bad), 1007)
            await self.fails(await self.session(), frame(TEXT, bad), 1007, chopped=True)

    async def test_6_4_a_bad_text_fails_before_it_ends(self):
        await self.fails(await self.session(), frame(TEXT, NOT_UTF8[:13], fin=False), 1007)
        await self.fails(await self.session(), frame(TEXT, NOT_UTF8, size=60000), 1007)

    async def test_6_2_characters_may_be_cut_by_fragments(self):
        raw = await self.session()
        body = '{"ping": {"nonce": "77"}, "pad": "κόσμε 𝄞"}'.encode()
        for cut in range(1, len(body)):
            await raw.send(frame(TEXT, body[:cut], fin=False) + frame(CONTINUATION, body[cut:]))
            await self.answered(raw)

    async def test_7_1_the_close_handshake(self):
        raw = await self.session()
        await raw.send(closing(1000, b"bye") + frame(TEXT, REQUEST) + frame(PING, b"late"))
        messages, code, _ = await raw.read_messages()
        self.assertEqual((messages, code), ([], 1000))
        self.assertEqual(await raw.ended(), b"")

    async def test_7_3_close_payloads(self):
        raw = await self.session()
        await raw.send(frame(CLOSE))
        self.assertEqual(await raw.next_of(CLOSE), b"")
        await self.fails(await self.session(), frame(CLOSE, b"\x03"), 1002)
        await self.fails(await self.session(), closing(1000, b"x" * 124), 1002)
        raw = await self.session()
        await raw.send(closing(1000, b"x" * 123))
        self.assertEqual((await raw.next_of(CLOSE))[:2], struct.pack("!H", 1000))

    async def test_7_5_a_close_reason_must_be_utf8(self):
        await self.fails(await self.session(), closing(1000, NOT_UTF8), 1007)

    async def test_7_7_valid_close_codes_are_returned(self):
        for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999):
            raw = await self.session()
            await raw.send(closing(code))
            self.assertEqual(await raw.next_of(CLOSE), struct.pack("!H", code))

    async def test_7_9_invalid_close_codes_are_errors(self):
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535):
            await self.fails(await self.session(), closing(code), 1002)

    async def test_unmasked_frames_are_errors(self):
        for opcode in (TEXT, PING, CLOSE):
            await self.fails(await self.session(), frame(opcode, b"", mask=None), 1002)

    async def test_frames_may_come_with_the_upgrade_and_in_any_pieces(self):
        raw = await self.session()
        data = (frame(TEXT, REQUEST) + frame(PING, b"x")) * 3
        for byte in data:
            await raw.send(bytes([byte]))
            await asyncio.sleep(0)
        for _ in range(3):
            await self.answered(raw)
