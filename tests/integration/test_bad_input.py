"""Whatever a peer may send that it should not: each has its documented answer and a counter, and leaves another live
connection of the same gateway untouched, which is checked each time."""
import asyncio
import json
import os

from cluster import mint
from cluster_case import ClusterCase
from raw import BINARY, TEXT, Raw, frame, upgrade_request
from wire import pb

PEER = "A" * 22
TRACK = {"id": "t", "kind": "AUDIO"}


def text_frame(value):
    return frame(TEXT, value if isinstance(value, bytes) else json.dumps(value).encode())


def hello(identity, room="bad", **join):
    return {"hello": {"token": mint(identity, room), "join": {"room": room, **join}}}


class BadInputTest(ClusterCase):
    # Short times, so that a test that waits for one to run out does not take long; and long ones for witnesses, so that
    # they ask or send again only for what is lost, however late the machine is.
    cluster_options = {"gateways": 1, "shards": 1, "gateway": {
        "limits": {"hello_timeout_ms": 2500, "retransmit_ms": 15000}, "client": {"ping_interval_ms": 1500, "ping_timeout_ms": 4000}}}

    async def asyncSetUp(self):
        self.ann = await self.join("witness-ann", "witness")
        self.bob = await self.join("witness-bob", "witness", encoding="json")
        await self.all_see([self.ann, self.bob], ["witness-ann", "witness-bob"])
        self.ann.pong_behind_s = self.bob.pong_behind_s = 15
        self.said = 0
        self.names = 0

    async def untouched(self):
        """The witnesses' connections carry on as if nothing had been."""
        self.said += 1
        words = f"still here {self.said}"
        self.ann.tell(self.bob.sid, pb.ClientMessage(send=pb.Send(delivery=pb.RELIABLE, text=words)))
        await self.bob.until(lambda: words in self.bob.texts_from(self.ann.sid))
        for witness in (self.ann, self.bob):
            self.assertIsNone(witness.close_code)
            self.assertEqual(len(witness.roster), 2)
            self.assertEqual((witness.counts["retransmissions"], witness.syncs_asked), (0, []))

    async def check(self, name, metric, action):
        with self.subTest(name):
            before = self.cluster.gateway().metric(metric)
            await action()
            deadline = asyncio.get_running_loop().time() + 10
            while self.cluster.gateway().metric(metric) <= before:
                self.assertLess(asyncio.get_running_loop().time(), deadline, f"{metric} did not grow")
                await asyncio.sleep(0.02)
            await self.untouched()

    def identity(self):
        self.names += 1
        return f"p{self.names}"

    async def joined_raw(self):
        raw = await Raw.websocket(self.cluster)
        await raw.send(text_frame(hello(self.identity())))
        while b'"snapshot"' not in await raw.next_of(TEXT):
            pass
        return raw

    # --- Below WebSocket --------------------------------------------------------------------------------------------

    async def test_bytes_that_are_no_tls(self):
        async def sends(data):
            raw = await Raw.open(self.cluster, tls=False)
            await raw.send(data)
            await raw.ended()
            await raw.close()

        client_hello_start = bytes.fromhex("1603010200010001fc0303")
        for name, data in {"noise": os.urandom(600), "plain HTTP": b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
                           "a record of a wrong version": bytes.fromhex("16090102000100") + b"x" * 600,
                           "a record that is too long": bytes.fromhex("160301ffff01") + b"\0" * 70000,
                           "an alert at once": bytes.fromhex("15030100020228"),
                           "a hello full of noise": client_hello_start + os.urandom(506)}.items():
            await self.check(name, 'signalbox_tls_handshakes_total{outcome="failed"}', lambda: sends(data))

        async def goes_away():
            raw = await Raw.open(self.cluster, tls=False)
            await raw.send(client_hello_start)
            await raw.close()
        await self.check("half a hello, then the end", 'signalbox_tls_handshakes_total{outcome="failed"}', goes_away)

    async def test_old_tls(self):
        async def offers_tls_1_1():
            raw = await Raw.open(self.cluster, tls=False)
            body = bytes.fromhex("0302") + b"r" * 32 + b"\0" + bytes.fromhex("0004c013c009") + b"\x01\0"
            await raw.send(b"\x16\x03\x01" + (len(body) + 4).to_bytes(2, "big") + b"\x01" + len(body).to_bytes(3, "big") + body)
            self.assertNotEqual((await raw.ended())[:1], b"\x16")
            await raw.close()
        await self.check("TLS 1.1", 'signalbox_tls_handshakes_total{outcome="failed"}', offers_tls_1_1)

    async def test_bad_http(self):
        async def refused(data, status):
            raw = await Raw.open(self.cluster)
            answer = await raw.http(data)
            # A request that does not end is given up, with or without a word.
            if answer is not None or status is not None:
                self.assertEqual(answer and answer.status, status or 400)
            await raw.close()

        for name, data, status in (
                ("noise", b"\0\1\2 noise \xff\r\n\r\n", 400),
                ("no version", b"GET /\r\n\r\n", 400),
                ("a header without a colon", b"GET / HTTP/1.1\r\nhost\r\n\r\n", 400),
                ("a header without end", b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 13000, None),
                ("a bad content length", b"POST /v1/leave HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n", 400),
                ("a body of 1 GB", b"POST /v1/leave HTTP/1.1\r\nhost: x\r\ncontent-length: 1073741824\r\n\r\n", 413)):
            await self.check(name, 'signalbox_http_requests_total{route="malformed"}', lambda: refused(data, status))

        async def not_found(path):
            raw = await Raw.open(self.cluster)
            answer = await raw.http(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            self.assertEqual((answer.status, answer.problem()["code"]), (404, "NOT_FOUND"))
            await raw.close()
        for path in ("/v1/nothing", "/v2/connect", "/sdk/../../deploy/nats/local.conf", "/sdk/%2e%2e/%2e%2e/etc/passwd"):
            await self.check(path, "signalbox_http_requests_total", lambda: not_found(path))

    async def test_bad_upgrades(self):
        async def refused(request, status):
            raw = await Raw.open(self.cluster)
            answer = await raw.http(request)
            self.assertIsNotNone(answer, "closed without an answer")
            self.assertEqual(answer.status, status, answer.body)
            answer.problem()
            await raw.close()

        cases = [
            ("POST", upgrade_request(method="POST", extra=[("content-length", "0")]), 405, "method_not_get"),
            ("HTTP/1.0", upgrade_request(version="1.0"), 400, "http_version"),
            ("no Upgrade", upgrade_request(without=("upgrade",)), 426, "not_an_upgrade"),
            ("no Connection", upgrade_request(without=("connection",)), 426, "not_an_upgrade"),
            ("another protocol", upgrade_request(upgrade="h2c"), 426, "not_an_upgrade"),
            ("version 8", upgrade_request(sec_websocket_version="8"), 426, "websocket_version"),
            ("no version", upgrade_request(without=("sec-websocket-version",)), 426, "websocket_version"),
            ("no key", upgrade_request(without=("sec-websocket-key",)), 400, "websocket_key"),
            ("a short key", upgrade_request(sec_websocket_key="AAAA"), 400, "websocket_key"),
            ("two keys", upgrade_request(extra=[("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==")]), 400, "websocket_key"),
            ("a stranger's origin", upgrade_request(origin="https://evil.example"), 403, "origin_not_allowed"),
            ("the origin null", upgrade_request(origin="null"), 403, "origin_not_allowed"),
            ("a longer origin", upgrade_request(origin="https://app.example.com.evil.example"), 403, "origin_not_allowed"),
            ("no subprotocol", upgrade_request(without=("sec-websocket-protocol",)), 400, "no_subprotocol"),
            ("a foreign subprotocol", upgrade_request(sec_websocket_protocol="chat, mqtt"), 400, "no_subprotocol"),
            ("a broken list of subprotocols", upgrade_request(sec_websocket_protocol="signalbox.v1.json,, a b"), 400,
             "malformed_subprotocols"),
        ]
        for name, request, status, outcome in cases:
            await self.check(name, f'signalbox_upgrades_total{{outcome="{outcome}"}}', lambda: refused(request, status))

    async def test_good_upgrades_beside_the_bad(self):
        for request in ({"origin": "https://app.example.com"}, {"path": "/v1/connect?x=%zz&&=&room="},
                        {"sec_websocket_protocol": "chat, signalbox.v1.json", "sec_websocket_extensions": "permessage-deflate"},
                        {"connection": "keep-alive, UPGRADE", "upgrade": "WebSocket"}):
            raw = await Raw.websocket(self.cluster, **request)
            await raw.send(text_frame(hello(self.identity())))
            self.assertIn(b"helloOk", await raw.next_of(TEXT))
            await raw.close()

    # --- Frames and messages ----------------------------------------------------------------------------------------

    async def closes(self, raw, data, code, reason=None):
        await raw.send(data)
        messages, got, text = await raw.read_messages()
        self.assertEqual(got, code, text)
        self.assertTrue(text, "a close without a reason")
        if 4000 <= code:
            leave = [m["leave"] for m in messages if "leave" in m]
            self.assertEqual(len(leave), 1, messages)
            self.assertEqual(leave[0].get("reason"), reason)
            self.assertTrue(leave[0]["message"])
        await raw.close()

    async def test_bad_frames(self):
        for name, data, code in (("unmasked", frame(TEXT, b"{}", mask=None), 1002), ("reserved bit", frame(TEXT, b"{}", rsv=4), 1002),
                                 ("opcode 3", frame(3), 1002), ("wrong type", frame(BINARY, b"{}"), 1003),
                                 ("not UTF-8", frame(TEXT, b'{"x": "\xff"}'), 1007), ("too big", frame(TEXT, b" " * 65537), 1009)):
            for joined in (False, True):
                async def act():
                    raw = await (self.joined_raw() if joined else Raw.websocket(self.cluster))
                    await self.closes(raw, data, code)
                await self.check(f"{name}, {'joined' if joined else 'before hello'}",
                                 f'signalbox_websocket_errors_total{{code="{code}"}}', act)

    async def test_text_on_the_protobuf_subprotocol(self):
        async def act():
            raw = await Raw.websocket(self.cluster, sec_websocket_protocol="signalbox.v1.protobuf")
            await raw.send(frame(TEXT, b"{}"))
            _, code, _ = await raw.read_messages("protobuf")
            self.assertEqual(code, 1003)
            await raw.close()
        await self.check("text", 'signalbox_websocket_errors_total{code="1003"}', act)

    async def test_undecodable_json(self):
        """Before hello the end; afterwards an answer, and the end for a client that does not stop."""
        deep = b'{"x":' * 200 + b"1" + b"}" * 200
        raw = await self.joined_raw()
        for name, data in {"noise": b"noise", "empty": b"", "an array": b"[]", "cut": b'{"ping": {', "trailing": b'{} {}',
                           "a wrong type": b'{"ping": []}', "a number too big": b'{"requestId": 4294967296}',
                           "a duplicate name": b'{"requestId": 1, "requestId": 2}', "two bodies": b'{"ping": {}, "leave": {}}',
                           "bad base64": b'{"send": {"payload": "$"}}', "nested too deep": deep}.items():
            metric = 'signalbox_websocket_messages_undecodable_total{encoding="json"}'

            async def early():
                await self.closes(await Raw.websocket(self.cluster), text_frame(data), 4306, "PROTOCOL_ERROR")
            await self.check(f"{name}, before hello", metric, early)

            async def joined():
                await raw.send(text_frame(data))
                while b'"INVALID"' not in (answer := await raw.next_of(TEXT)):
                    pass
                self.assertTrue(json.loads(answer)["result"]["message"])
            await self.check(f"{name}, joined", metric, joined)
        await self.closes(raw, text_frame(b"noise") * 40, 4306, "PROTOCOL_ERROR")
        await self.untouched()

    async def test_undecodable_protobuf(self):
        client = await self.join(self.identity(), "bad")
        for name, data in {"noise": b"\xff" * 40, "a cut field": b"\x52\x7f\x0a", "a length beyond the end": b"\x52\x80\x80\x80\x80\x08",
                           "field 0": b"\x02\x01", "a group": b"\x53", "not UTF-8 in a string": b"\x1a\x01\xff",
                           "a varint without end": b"\x08" + b"\xff" * 11}.items():
            metric = 'signalbox_websocket_messages_undecodable_total{encoding="protobuf"}'

            async def early():
                other = self.client()
                await other.open(self.cluster.url())
                other.send_raw(data)
                await other.until(lambda: other.close_code is not None)
                self.assertEqual((other.close_code, other.leave.reason, other.leave.action),
                                 (4306, pb.PROTOCOL_ERROR, pb.STOP))
                await other.close()
            await self.check(f"{name}, before hello", metric, early)

            async def joined():
                client.results.pop(0, None)
                client.send_raw(data)
                await client.until(lambda: 0 in client.results)
                self.assertEqual(client.results[0].code, pb.INVALID)
            await self.check(f"{name}, joined", metric, joined)
        for _ in range(40):
            client.send_raw(b"\xff")
        await client.until(lambda: client.close_code is not None)
        self.assertEqual((client.close_code, client.leave.reason), (4306, pb.PROTOCOL_ERROR))

    async def test_messages_before_hello(self):
        metric = 'signalbox_clients_ended_total{reason="protocol_error"}'
        for message in ({"ping": {}}, {"leave": {}}, {}, {"unheardOf": {}}, {"offer": {"sdp": "v=0"}, "route": {"peer": PEER}}):
            async def act():
                await self.closes(await Raw.websocket(self.cluster), text_frame(message), 4310, "PROTOCOL_ERROR")
            await self.check(json.dumps(message), metric, act)

        async def silence():
            await self.closes(await Raw.websocket(self.cluster), b"", 4310, "PROTOCOL_ERROR")
        await self.check("silence", metric, silence)

    async def test_bad_hellos(self):
        many = {f"k{i}": "v" for i in range(33)}
        for name, join, code in (("name", {"name": "n" * 129}, 4306), ("metadata", {"metadata": "m" * 4097}, 4306),
                                 ("attributes", {"attributes": many}, 4306), ("attribute key", {"attributes": {"k" * 65: ""}}, 4306),
                                 ("attribute value", {"attributes": {"k": "v" * 513}}, 4306),
                                 ("track id", {"tracks": [{"id": ""}]}, 4306), ("two tracks of one id", {"tracks": [TRACK, TRACK]}, 4306),
                                 ("tracks", {"tracks": [{"id": f"t{i}"} for i in range(100)]}, 4306),
                                 ("room too long", {"room": "r" * 129}, 4306), ("room with a control character", {"room": "a\nb"}, 4306),
                                 ("an agent connection", None, 4309)):
            message = {"requestId": 3, **hello(self.identity())}
            if join is None:
                message["hello"]["agent"] = True
            else:
                message["hello"]["join"].update(join)

            async def act():
                raw = await Raw.websocket(self.cluster)
                await raw.send(text_frame(message))
                messages, got, text = await raw.read_messages()
                self.assertEqual(got, code, text)
                self.assertEqual([m["result"]["requestId"] for m in messages if "result" in m], [3])
                self.assertEqual([m["leave"]["action"] for m in messages if "leave" in m], ["STOP"])
                await raw.close()
            await self.check(name, 'signalbox_joins_total{outcome="refused"}', act)

    async def test_requests_over_a_limit_or_against_the_rules(self):
        ann = await self.join("ann", "limits")
        bob = await self.join("bob", "limits")
        await self.all_see([ann, bob], ["ann", "bob"])
        limits = ann.hello_ok.limits
        many = {f"k{i}": "v" for i in range(limits.attributes + 1)}
        full = [pb.Track(id=f"t{i}", kind=pb.Track.AUDIO) for i in range(limits.tracks)]
        for track in full:
            self.assertEqual((await ann.request(pb.ClientMessage(publish_track=pb.PublishTrack(track=track)))).code, pb.OK)

        def publish(**track):
            return {"publish_track": pb.PublishTrack(track=pb.Track(kind=pb.Track.AUDIO, **track))}

        def send(**values):
            return {"send": pb.Send(**{"delivery": pb.RELIABLE, **values}), "route": pb.Route(seq=1)}

        def route(**values):
            return {"route": pb.Route(**{"peer": bob.sid, "seq": 1, **values}), "candidates_done": pb.CandidatesDone()}

        cases = [
            ("too many tracks", publish(id="one-more"), pb.LIMIT_REACHED),
            ("a track without id", publish(), pb.INVALID), ("a track id too long", publish(id="t" * 65), pb.INVALID),
            ("a track id with a control character", publish(id="t\x07"), pb.INVALID),
            ("a track name too long", publish(id="t0", name="n" * 129), pb.INVALID),
            ("a mime type too long", publish(id="t0", mime_type="m" * 65), pb.INVALID),
            ("no track", {"publish_track": pb.PublishTrack()}, pb.INVALID),
            ("an unknown track unpublished", {"unpublish_track": pb.UnpublishTrack(track_id="nope")}, pb.NOT_FOUND),
            ("an unknown track muted", {"mute": pb.Mute(track_id="nope", muted=True)}, pb.NOT_FOUND),
            ("a name too long", {"set_metadata": pb.SetMetadata(name="n" * 129)}, pb.TOO_LARGE),
            ("metadata too long", {"set_metadata": pb.SetMetadata(metadata="m" * (limits.metadata_bytes + 1), set_metadata=True)},
             pb.TOO_LARGE),
            ("too many attributes", {"set_metadata": pb.SetMetadata(attributes=many)}, pb.TOO_LARGE),
            ("an attribute's key too long", {"set_metadata": pb.SetMetadata(attributes={"k" * 65: "v"})}, pb.TOO_LARGE),
            ("an attribute's value too long", {"set_metadata": pb.SetMetadata(attributes={"k": "v" * 513})}, pb.TOO_LARGE),
            ("data too long", send(payload=b"x" * (limits.send_bytes + 1)), pb.TOO_LARGE),
            ("text too long", send(text="x" * (limits.send_bytes + 1)), pb.TOO_LARGE),
            ("a topic too long", send(topic="t" * 129), pb.TOO_LARGE),
            ("a key too long", send(key="k" * 65, delivery=pb.EPHEMERAL), pb.TOO_LARGE),
            ("no class of delivery", send(delivery=0), pb.INVALID), ("an unknown class of delivery", send(delivery=77), pb.INVALID),
            ("reliable speaking", send(speaking=pb.Speaking(active=True)), pb.INVALID),
            ("no number", {"send": pb.Send(delivery=pb.RELIABLE, text="x")}, pb.INVALID),
            ("no route", {"candidates_done": pb.CandidatesDone()}, pb.INVALID),
            ("no receiver", route(peer=""), pb.INVALID), ("a receiver that is no sid", route(peer="bob"), pb.INVALID),
            ("a directed message without number", route(seq=0), pb.INVALID), ("to oneself", route(peer=ann.sid), pb.INVALID),
            ("an offer too long", {"route": pb.Route(peer=bob.sid, seq=1), "offer": pb.Offer(sdp="x" * (48 * 1024 + 1))}, pb.TOO_LARGE),
            ("an answer too long", {"route": pb.Route(peer=bob.sid, seq=1), "answer": pb.Answer(sdp="x" * (48 * 1024 + 1))}, pb.TOO_LARGE),
            ("a candidate too long", {"route": pb.Route(peer=bob.sid, seq=1), "candidate": pb.Candidate(candidate="x" * 1025)}, pb.TOO_LARGE),
            ("a mid too long", {"route": pb.Route(peer=bob.sid, seq=1), "offer": pb.Offer(tracks=[pb.TrackMapping(mid="m" * 33)])},
             pb.TOO_LARGE),
            ("too many mappings", {"route": pb.Route(peer=bob.sid, seq=1),
                                   "answer": pb.Answer(tracks=[pb.TrackMapping()] * (limits.tracks + 1))}, pb.TOO_LARGE),
            ("an unknown cursor", {"sync_state": pb.SyncState(cursor="nope")}, pb.INVALID),
            ("a cursor too long", {"sync_state": pb.SyncState(cursor="c" * 5000)}, pb.INVALID),
            ("muted keys beyond the limit", {"set_interest": pb.SetInterest(interest=pb.Interest(mute_keys=["k"] * 17))}, pb.INVALID),
            ("signal sids beyond the limit", {"set_interest": pb.SetInterest(interest=pb.Interest(signal_sids=[PEER] * 65))},
             pb.INVALID),
            ("a token too large", {"refresh_token": pb.RefreshToken(token="t" * 8193)}, pb.UNAUTHENTICATED),
            ("a second hello", {"hello": pb.Hello(token="x")}, pb.INVALID),
            ("no body", {}, pb.UNKNOWN_MESSAGE),
            ("agent_join elsewhere", {"agent_join": pb.AgentJoin()}, pb.UNKNOWN_MESSAGE),
        ]
        await bob.until(lambda: len(bob.roster[ann.sid].tracks) == len(full))
        roster = pb.Participant()
        roster.CopyFrom(bob.roster[ann.sid])
        for name, body, code in cases:
            async def act():
                result = await ann.request(pb.ClientMessage(**body))
                self.assertEqual((result.code, bool(result.message)), (code, True), result)
            label = pb.Code.Name(code).lower()
            await self.check(name, f'signalbox_client_refusals_total{{code="{label}"}}', act)
        self.assertEqual(bob.roster[ann.sid], roster)
        self.assertEqual((bob.delivered, bob.chat), ([], []))

    async def test_unknown_fields_are_ignored_and_unknown_messages_answered(self):
        raw = await self.joined_raw()

        async def unknown_field():
            await raw.send(text_frame({"ping": {"nonce": "5", "future": [1, {"x": None}]}, "alsoNew": "x"}))
            while b'"5"' not in await raw.next_of(TEXT):
                pass
        await self.check("unknown fields in JSON", "signalbox_client_messages_total", unknown_field)

        async def unknown_message():
            await raw.send(text_frame({"requestId": 71, "danceTogether": {"style": "tango"}}))
            while b'UNKNOWN_MESSAGE' not in (message := await raw.next_of(TEXT)):
                pass
            self.assertEqual(json.loads(message)["result"]["requestId"], 71)
        await self.check("an unknown message in JSON", 'signalbox_client_refusals_total{code="unknown_message"}', unknown_message)
        await raw.close()

        client = await self.join(self.identity(), "bad")

        async def unknown_fields():
            client.send_raw(pb.ClientMessage(ping=pb.Ping(nonce=6)).SerializeToString() + b"\xfa\x3e\x03abc\xc0\x3f\x07")
            await client.until(lambda: any(m.pong.nonce == 6 for m in client.received))
        await self.check("unknown fields in protobuf", "signalbox_client_messages_total", unknown_fields)

        async def unknown_body():
            client.send_raw(b"\x08\x48" + b"\xfa\x3e\x03abc")
            await client.until(lambda: 72 in client.results)
            self.assertEqual(client.results[72].code, pb.UNKNOWN_MESSAGE)
        await self.check("an unknown message in protobuf", 'signalbox_client_refusals_total{code="unknown_message"}', unknown_body)

    async def test_messages_to_nobody(self):
        ann = await self.join("ann", "nobody")
        for name, peer in (("never was", PEER), ("in another room", self.bob.sid)):
            async def act():
                number = ann.tell(peer, pb.ClientMessage(offer=pb.Offer(sdp="v=0", negotiation=1)))
                await ann.until(lambda: (peer, [number]) in ann.undeliverable, what=lambda: f"{ann.received[-3:]}")
            # The counter is the shard's, which alone knows who is in a room.
            before = self.cluster["shard-1"].metric("signalbox_relays_refused_total")
            await self.check(name, "signalbox_client_messages_total", act)
            self.assertGreater(self.cluster["shard-1"].metric("signalbox_relays_refused_total"), before)
        self.assertEqual(self.bob.counts["offer"], 0)

    # --- Too much, too slow -----------------------------------------------------------------------------------------

    async def test_a_flood_is_throttled_and_then_closed(self):
        async def act():
            raw = await self.joined_raw()
            ping = text_frame({"ping": {}})
            sending = asyncio.create_task(raw.send(ping * 4000))
            messages, code, _ = await raw.read_messages()
            await sending
            self.assertEqual(code, 4307)
            self.assertTrue(any(m.get("throttled", {}).get("retryAfterMs") for m in messages))
            self.assertEqual([m["leave"]["reason"] for m in messages if "leave" in m], ["ABUSE"])
            await raw.close()
        await self.check("messages", 'signalbox_client_throttled_total{budget="messages"}', act)

    async def test_a_flood_of_websocket_pings_is_closed(self):
        async def act():
            raw = await self.joined_raw()
            sending = asyncio.create_task(raw.send(frame(9, b"x") * 3000))
            _, code, _ = await raw.read_messages()
            await sending
            self.assertEqual(code, 4307)
            await raw.close()
        await self.check("pings", 'signalbox_websocket_closed_total{cause="abuse"}', act)

    async def test_clients_that_trickle(self):
        """A byte now and then keeps none of the gateway's doors open for ever."""
        async def trickle(raw, data):
            for byte in data:
                if raw.writer.is_closing() or raw.reader.at_eof():
                    return
                await raw.send(bytes([byte]))
                await asyncio.sleep(0.25)

        async def tls():
            raw = await Raw.open(self.cluster, tls=False)
            task = asyncio.create_task(trickle(raw, bytes.fromhex("16030102000100") + b"\x01" * 500))
            await raw.ended()
            task.cancel()
            await raw.close()

        async def http():
            raw = await Raw.open(self.cluster)
            task = asyncio.create_task(trickle(raw, upgrade_request(x="y" * 500)))
            await raw.ended()
            task.cancel()
            await raw.close()

        async def websocket():
            """Bytes show that somebody is there; the message counts when it is whole."""
            raw = await self.joined_raw()
            await trickle(raw, text_frame({"ping": {"nonce": "99"}}))
            while b'"99"' not in await raw.next_of(TEXT):
                pass
            await raw.close()

        async def silent():
            raw = await self.joined_raw()
            _, code, _ = await raw.read_messages()
            self.assertEqual(code, 4003)
            await raw.close()

        before = self.cluster.gateway().metrics()
        await asyncio.wait_for(asyncio.gather(tls(), http(), websocket(), silent()), 40)
        after = self.cluster.gateway().metrics()
        for metric in ('signalbox_tls_handshakes_total{outcome="timeout"}', 'signalbox_websocket_closed_total{cause="ping_timeout"}'):
            self.assertGreater(after[metric], before[metric], metric)
        await self.untouched()

    async def test_a_client_that_does_not_read_is_closed_as_slow(self):
        slow = await self.join("slow", "slow")
        senders = [await self.join(f"sender{i}", "slow") for i in range(4)]
        await self.all_see(senders, ["slow", *(f"sender{i}" for i in range(4))])

        async def act():
            await self.flood_unread(slow, senders, 0.05)
        await self.check("a client that does not read", 'signalbox_websocket_closed_total{cause="slow"}', act)
