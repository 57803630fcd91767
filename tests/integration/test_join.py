"""The main road, through real processes: rooms of clients in both encodings on both gateways."""
import asyncio
import json
import time
import unittest

import websockets

from cluster import mint
from cluster_case import ENCODINGS, ClusterCase
from signalbox_client import SUBPROTOCOLS, roster_digest
from wire import pb


def text(value):
    return pb.ClientMessage(send=pb.Send(delivery=pb.RELIABLE, topic="chat", text=value))


class DigestVectors(unittest.TestCase):
    def test_the_digest_is_that_of_the_protocol(self):
        self.assertEqual(roster_digest([]), "0000000000000000")
        one = pb.Participant(sid="A" * 22, version=1)
        self.assertEqual(roster_digest([one]), "a2cf229d17ca78d5")
        self.assertEqual(roster_digest([one, pb.Participant(sid="u9Zr1Yw0Tq2b7cXk3LmN4A", version=42)]),
                         "68ac6487c60c3c40")


class JoinTest(ClusterCase):
    async def room_of_four(self, room):
        """Both encodings on both gateways."""
        clients = []
        for number, (gateway, encoding) in enumerate((g, e) for g in (1, 2) for e in ENCODINGS):
            clients.append(await self.join(f"p{number}", room, gateway, encoding))
        await self.all_see(clients, ["p0", "p1", "p2", "p3"])
        return clients

    async def test_hello_ok_says_all_that_the_protocol_promises(self):
        for encoding in ENCODINGS:
            with self.subTest(encoding):
                client = await self.join("ann", f"hello-{encoding}", 1, encoding, name="Ann")
                ok = client.hello_ok
                self.assertRegex(ok.sid, r"^[A-Za-z0-9_-]{22}$")
                self.assertTrue(ok.resume_token)
                self.assertFalse(ok.recovered)
                self.assertEqual((ok.room, ok.project), (f"hello-{encoding}", "default"))
                self.assertEqual((ok.gateway, ok.shard in ("shard-1", "shard-2", "shard-3")), ("gateway-1", True))
                self.assertEqual((ok.self.identity, ok.self.name, ok.self.kind), ("ann", "Ann", pb.Participant.STANDARD))
                self.assertTrue(ok.self.permissions.can_publish and ok.self.permissions.can_subscribe)
                self.assertEqual(ok.bind_generation, 1)
                self.assertEqual(ok.topology, pb.MESH)
                self.assertLess(abs(ok.server_time_ms / 1000 - time.time()), 60)
                self.assertEqual((ok.limits.message_bytes, ok.limits.resume_window_ms), (65536, 30000))
                self.assertTrue(ok.retry_policy.base_ms and ok.retry_policy.max_ms)
                self.assertEqual(client.roster[ok.sid].join, ok.join)
                await client.until(lambda: client.counts["pong"] > 0)

    async def test_json_needs_no_protobuf_library(self):
        """The session of PROTOCOL.md section 15, by hand."""
        async with websockets.connect(f"{self.cluster.url()}/v1/connect", ssl=self.cluster.client_tls,
                                      subprotocols=[SUBPROTOCOLS["json"]], compression=None) as socket:
            await socket.send(json.dumps({"hello": {"token": mint("ann", "by-hand"), "join": {
                "room": "by-hand", "name": "Ann", "tracks": [{"id": "mic", "kind": "AUDIO", "source": "MICROPHONE"}]}}}))
            ok = json.loads(await socket.recv())["helloOk"]
            self.assertNotIn("recovered", ok)
            self.assertEqual(ok["self"]["tracks"], [{"id": "mic", "kind": "AUDIO", "source": "MICROPHONE"}])
            await socket.send('{"ping": {"nonce": "18446744073709551615"}}')
            answers = [json.loads(await socket.recv()) for _ in range(2)]
            snapshot = next(a["snapshot"] for a in answers if "snapshot" in a)
            self.assertEqual([p["identity"] for p in snapshot["participants"]], ["ann"])
            self.assertIsInstance(snapshot["position"]["seq"], str)
            self.assertEqual(next(a["pong"] for a in answers if "pong" in a)["nonce"], "18446744073709551615")
            await socket.send('{"requestId": 4, "route": {"seq": "1"}, "send": {"delivery": "RELIABLE", "text": "h\\u00e9"}}')
            seen = {}
            while not {"result", "ack", "roomEvents"} <= seen.keys():
                message = json.loads(await socket.recv())
                seen[next(k for k in message if k != "route")] = message
            self.assertEqual(seen["result"]["result"], {"requestId": 4, "code": "OK"})
            self.assertEqual((seen["ack"]["ack"], seen["ack"]["route"]), ({}, {"ack": "1"}))
            self.assertEqual(seen["roomEvents"]["roomEvents"]["events"][0]["message"]["text"], "hé")

    async def test_both_encodings_on_both_gateways_end_with_one_roster(self):
        clients = await self.room_of_four("mixed")
        self.assertEqual(len({c.hello_ok.shard for c in clients}), 1)
        self.assertEqual({c.hello_ok.gateway for c in clients}, {"gateway-1", "gateway-2"})
        for client in clients:
            self.assertEqual(sorted(sid for what, sid in client.history if what == "joined"),
                             sorted(c.sid for c in clients))
        await clients[1].depart()
        await self.all_see([clients[0], *clients[2:]], ["p0", "p2", "p3"])
        self.assertEqual(clients[1].close_code, 1000)
        for client in (clients[0], *clients[2:]):
            self.assertEqual(client.history.count(("left", clients[1].sid)), 1)

    async def test_rooms_with_names_of_all_kinds_do_not_meet(self):
        names = ["Straße 7", "部屋/会議", "a" * 128, "eu/standup", "../..", "%2e \"quoted\"", "sbx.*.>"]
        clients = [await self.join("ann", name, 1 + i % 2, ENCODINGS[i % 2]) for i, name in enumerate(names)]
        for client, name in zip(clients, names):
            self.assertEqual((client.hello_ok.room, client.identities()), (name, ["ann"]))

    async def test_tracks_mute_and_metadata_reach_everybody(self):
        clients = await self.room_of_four("state")
        ann = clients[3]
        track = pb.Track(id="cam", kind=pb.Track.VIDEO, source=pb.CAMERA, width=1280, height=720, mime_type="video/VP8")
        requests = [
            (pb.ClientMessage(publish_track=pb.PublishTrack(track=track)), lambda p: list(p.tracks) == [track]),
            (pb.ClientMessage(mute=pb.Mute(track_id="cam", muted=True)), lambda p: p.tracks[0].muted),
            (pb.ClientMessage(mute=pb.Mute(track_id="cam", muted=False)), lambda p: not p.tracks[0].muted),
            (pb.ClientMessage(unpublish_track=pb.UnpublishTrack(track_id="cam")), lambda p: not p.tracks),
            (pb.ClientMessage(set_metadata=pb.SetMetadata(name="Änn", metadata='{"x": 1}', set_metadata=True,
                                                          attributes={"hand": "up", "gone": ""})),
             lambda p: (p.name, p.metadata, dict(p.attributes)) == ("Änn", '{"x": 1}', {"hand": "up"})),
            (pb.ClientMessage(set_metadata=pb.SetMetadata(attributes={"hand": ""})),
             lambda p: not p.attributes and p.metadata == '{"x": 1}'),
        ]
        for request, visible in requests:
            with self.subTest(request.WhichOneof("body")):
                self.assertEqual((await ann.request(request)).code, pb.OK)
                for client in clients:
                    await client.until(lambda: visible(client.roster[ann.sid]),
                                       what=lambda: f"sees {client.roster[ann.sid]}")
        await self.equal_rosters(clients)

    async def test_directed_messages_arrive_exactly_once_and_in_order(self):
        clients = await self.room_of_four("directed")
        for sender in clients:
            for receiver in clients:
                if sender is not receiver:
                    for number in range(10):
                        sender.tell(receiver.sid, text(f"{sender.sid} {number}"))
        for receiver in clients:
            for sender in clients:
                if sender is not receiver:
                    wanted = [f"{sender.sid} {number}" for number in range(10)]
                    await receiver.until(lambda: receiver.texts_from(sender.sid) == wanted,
                                         what=lambda: f"{receiver.texts_from(sender.sid)}")
        for client in clients:
            await client.until(lambda: client.unacknowledged() == 0)

    async def test_a_negotiation_arrives_as_it_was_sent(self):
        ann = await self.join("ann", "negotiation", 1, "json")
        bob = await self.join("bob", "negotiation", 2, "protobuf")
        await self.all_see([ann, bob], ["ann", "bob"])
        sdp = "v=0\r\n" + "a=x\r\n" * 2000
        offer = pb.Offer(sdp=sdp, negotiation=2, ice_generation=1, tracks=[pb.TrackMapping(mid="0", track_id="mic")])
        candidate = pb.Candidate(candidate="candidate:1 1 udp 1 ::1 9 typ host", sdp_mid="0", negotiation=2, ice_generation=1)
        ann.tell(bob.sid, pb.ClientMessage(offer=offer))
        ann.tell(bob.sid, pb.ClientMessage(candidate=candidate))
        ann.tell(bob.sid, pb.ClientMessage(candidates_done=pb.CandidatesDone(negotiation=2, ice_generation=1)))
        await bob.until(lambda: len(bob.delivered) == 3)
        self.assertEqual([m.WhichOneof("body") for _, m in bob.delivered], ["offer", "candidate", "candidates_done"])
        self.assertEqual((bob.delivered[0][1].offer, bob.delivered[1][1].candidate), (offer, candidate))
        self.assertEqual(bob.delivered[0][1].route.sender_join, ann.hello_ok.join)
        bob.tell(ann.sid, pb.ClientMessage(answer=pb.Answer(sdp=sdp, negotiation=2, ice_generation=1)))
        await ann.until(lambda: len(ann.delivered) == 1)
        self.assertEqual(ann.delivered[0][1].answer.sdp, sdp)

    async def test_reliable_messages_to_the_room_come_once_and_in_one_order(self):
        clients = await self.room_of_four("chat")
        for number in range(10):
            for client in clients:
                client.tell("", text(f"{client.sid} {number}"))
        for client in clients:
            await client.until(lambda: len(client.chat) >= 40 and client.unacknowledged() == 0,
                               what=lambda: f"{len(client.chat)} messages, {client.unacknowledged()} unacknowledged")
        orders = [[m.text for m in client.chat] for client in clients]
        self.assertTrue(all(order == orders[0] for order in orders))
        self.assertEqual(len(set(orders[0])), 40)

    async def test_signals_reach_the_others_with_the_latest_value(self):
        clients = await self.room_of_four("signals")
        for level in range(1, 51):
            clients[0].send(pb.ClientMessage(send=pb.Send(delivery=pb.EPHEMERAL, key="speaking",
                                                          speaking=pb.Speaking(active=True, level=level))))
        for client in clients[1:]:
            await client.until(lambda: any(s.speaking.level == 50 for s in client.signals))
            self.assertEqual({getattr(s, "from") for s in client.signals}, {clients[0].sid})
        self.assertEqual(clients[0].signals, [])

    async def test_resume_on_the_other_gateway_keeps_sid_and_roster(self):
        for encoding in ENCODINGS:
            with self.subTest(encoding):
                room = f"resume-{encoding}"
                ann, bob = await self.join("ann", room, 1, encoding), await self.join("bob", room, 2)
                await self.all_see([ann, bob], ["ann", "bob"])
                sid, token = ann.sid, ann.resume_token
                await ann.drop()
                bob.tell(ann.sid, text("while you were away"))
                self.assertEqual((await bob.request(pb.ClientMessage(set_metadata=pb.SetMetadata(name="Bob")))).code, pb.OK)
                await ann.resume(self.cluster.url(2))
                ok = ann.hello_ok
                self.assertEqual((ok.sid, ok.recovered, ok.gateway, ok.bind_generation), (sid, True, "gateway-2", 2))
                self.assertNotEqual(ann.resume_token, token)
                await ann.until(lambda: ann.roster[bob.sid].name == "Bob")
                await ann.until(lambda: ann.texts_from(bob.sid) == ["while you were away"])
                await bob.until(lambda: bob.unacknowledged() == 0)
                await self.equal_rosters([ann, bob])
                self.assertNotIn(("left", sid), bob.history)
                self.assertEqual(bob.history.count(("joined", sid)), 1)

    async def test_a_newer_connection_replaces_the_older(self):
        ann = await self.join("ann", "replace", 1)
        for gateway in (1, 2):
            older = ann.socket
            newer = self.client()
            newer.sid, newer.resume_token = ann.sid, ann.resume_token
            newer.position.CopyFrom(ann.position)
            await newer.resume(self.cluster.url(gateway))
            await ann.until(lambda: ann.close_code is not None)
            self.assertEqual((ann.close_code, ann.leave.reason, ann.leave.action), (4301, pb.REPLACED, pb.STOP))
            self.assertTrue(older.closed)
            ann = newer

    async def test_the_same_identity_joining_anew_ends_the_older_session(self):
        ann, bob = await self.join("ann", "again", 1), await self.join("bob", "again", 1)
        newer = await self.join("ann", "again", 2)
        await ann.until(lambda: ann.close_code is not None)
        self.assertEqual((ann.close_code, ann.leave.reason, ann.leave.action), (4302, pb.DUPLICATE_IDENTITY, pb.STOP))
        await bob.until(lambda: bob.history[-2:] == [("left", ann.sid), ("joined", newer.sid)] or
                        bob.history[-2:] == [("joined", newer.sid), ("left", ann.sid)], what=lambda: f"{bob.history}")
        await self.all_see([bob, newer], ["ann", "bob"])
        with self.assertRaises(ConnectionError):
            await ann.resume(self.cluster.url(1))
        self.assertEqual(ann.leave.action, pb.STOP)

    async def test_a_departed_session_cannot_be_resumed(self):
        ann = await self.join("ann", "departed", 1)
        await ann.depart()
        for gateway in (1, 2):
            with self.assertRaises(ConnectionError):
                await ann.resume(self.cluster.url(gateway))
            self.assertEqual((ann.close_code, ann.leave.reason, ann.leave.action), (4200, pb.SESSION_GONE, pb.REJOIN))

    async def test_an_older_resume_token_is_void_once_a_newer_one_is_confirmed(self):
        ann, bob = await self.join("ann", "rotation", 1), await self.join("bob", "rotation", 2)
        first = ann.resume_token
        await ann.drop()
        await ann.resume(self.cluster.url(2))
        # The pong shows that the gateway has seen a frame after hello_ok; the owner learns of it within a second or two.
        await ann.until(lambda: ann.counts["pong"] >= 2)
        newest, ann.resume_token = ann.resume_token, first
        deadline = time.monotonic() + 10
        while True:
            await ann.drop()
            try:
                await ann.resume(self.cluster.url(1))
            except ConnectionError:
                break
            self.assertLess(time.monotonic(), deadline, "the first token still works")
            newest, ann.resume_token = ann.resume_token, first
            await asyncio.sleep(0.5)
        self.assertIn(ann.close_code, (4200, 4301))
        ann.resume_token = newest
        await ann.resume(self.cluster.url(1))
        await self.all_see([ann, bob], ["ann", "bob"])

    async def test_viewers_are_counted_and_listed_only_on_request(self):
        ann = await self.join("ann", "viewers", 1)
        viewer = await self.join("vic", "viewers", 2, token=mint("vic", "viewers", grants={"canPublish": False}))
        curious = await self.join("cat", "viewers", 2, interest=pb.Interest(viewers=True))
        self.assertEqual(viewer.hello_ok.self.kind, pb.Participant.VIEWER)
        await curious.until(lambda: curious.identities() == ["ann", "cat", "vic"], what=lambda: f"{curious.identities()}")
        await ann.until(lambda: ann.identities() == ["ann", "cat"], what=lambda: f"{ann.identities()}")
        late = await self.join("val", "viewers", 1, token=mint("val", "viewers", grants={"canPublish": False}))
        await curious.until(lambda: curious.identities() == ["ann", "cat", "val", "vic"], what=lambda: f"{curious.identities()}")
        await late.depart()
        await curious.until(lambda: curious.identities() == ["ann", "cat", "vic"], what=lambda: f"{curious.identities()}")
        self.assertEqual(ann.identities(), ["ann", "cat"])
        viewer.tell(ann.sid, text("may I?"))
        await ann.until(lambda: ann.texts_from(viewer.sid) == ["may I?"])

    async def test_hidden_participants_are_in_nobodys_roster(self):
        ann = await self.join("ann", "hidden", 1)
        spy = await self.join("spy", "hidden", 2, token=mint("spy", "hidden", grants={"hidden": True}))
        bob = await self.join("bob", "hidden", 2)
        await self.all_see([ann, bob], ["ann", "bob"])
        await spy.until(lambda: {"ann", "bob"} <= set(spy.identities()))

    async def test_a_roster_of_many_pages_is_pulled(self):
        many = [await self.join(f"p{i:03}", "pages", 1 + i % 2, ENCODINGS[i % 2], metadata="m" * 3000) for i in range(60)]
        names = [f"p{i:03}" for i in range(60)]
        for encoding in ENCODINGS:
            late = await self.join("late", "pages", 2, encoding, token=mint("late", "pages", grants={"hidden": True}))
            self.assertGreater(late.counts["snapshot"], 1)
            await late.until(lambda: set(names) <= set(late.identities()))
            await late.depart()
        await self.all_see(many, names)

    async def test_a_closed_socket_with_1000_departs_and_any_other_detaches(self):
        bob = await self.join("bob", "closing", 2)
        ann, cat = await self.join("ann", "closing", 1), await self.join("cat", "closing", 1)
        await self.all_see([bob], ["ann", "bob", "cat"])
        await cat.socket.close(1001)
        await ann.socket.close(1000)
        await bob.until(lambda: bob.identities() == ["bob", "cat"], what=lambda: f"{bob.identities()}")
        await cat.resume(self.cluster.url(2))
        self.assertTrue(cat.hello_ok.recovered)
        await self.all_see([bob, cat], ["bob", "cat"])

    async def test_messages_to_nobody_are_declared_undeliverable(self):
        ann, bob = await self.join("ann", "nobody", 1), await self.join("bob", "nobody", 2, "json")
        await self.all_see([ann, bob], ["ann", "bob"])
        await bob.depart()
        for receiver in (bob.sid, "A" * 22):
            seq = ann.tell(receiver, text("anybody there?"))
            await ann.until(lambda: (receiver, [seq]) in ann.undeliverable or seq == 0,
                            what=lambda: f"{ann.undeliverable} {ann.received[-3:]}")

    async def test_refreshed_tokens_and_ice_servers(self):
        ann = await self.join("ann", "upkeep", 1)
        before = ann.resume_token
        answer = await ann.request(pb.ClientMessage(refresh_token=pb.RefreshToken(token=mint("ann", "upkeep"))))
        self.assertEqual(answer.code, pb.OK)
        await ann.until(lambda: ann.resume_token != before)
        for wrong, code in ((mint("bob", "upkeep"), pb.FORBIDDEN), (mint("ann", "other"), pb.FORBIDDEN),
                            ("x.y.z", pb.UNAUTHENTICATED)):
            answer = await ann.request(pb.ClientMessage(refresh_token=pb.RefreshToken(token=wrong)))
            self.assertEqual(answer.code, code)
        self.assertEqual((await ann.request(pb.ClientMessage(refresh_ice=pb.RefreshIce()))).code, pb.OK)
        self.assertEqual(ann.counts["ice_refresh"], 1)
        await ann.drop()
        await ann.resume(self.cluster.url(2))

    async def test_a_session_ends_with_its_access_token(self):
        now = int(time.time())
        # The clocks of minters may be off by tokens.leeway_s, 10 s: so long a token counts beyond its exp.
        ann = await self.join("ann", "expiry", 1, token=mint("ann", "expiry", exp=now - 7))
        await ann.until(lambda: ann.close_code is not None, 30)
        self.assertEqual((ann.close_code, ann.leave.reason, ann.leave.action), (4304, pb.TOKEN_EXPIRED, pb.STOP))
