"""Sessions under tokens, keys and secrets that change while they last."""
import asyncio
import socket

from cluster import API_KEY, API_SECRET, mint, wait_for
from cluster_case import ClusterCase
from wire import pb

NEW_SECRET = "another-secret-of-the-cluster-for-the-rotation-test"


def track(name, source):
    return pb.Track(id=name, kind=pb.Track.VIDEO if source == pb.CAMERA else pb.Track.AUDIO, source=source)


def publish(name, source):
    return pb.ClientMessage(publish_track=pb.PublishTrack(track=track(name, source)))


class SessionTest(ClusterCase):
    cluster_options = {"gateways": 2, "shards": 2}

    async def test_a_refreshed_token_brings_its_grants_and_they_survive_a_resume(self):
        ann, bob = await self.join("ann", "grants"), await self.join("bob", "grants", 2)
        for name, source in (("cam", pb.CAMERA), ("mic", pb.MICROPHONE)):
            self.assertEqual((await ann.request(publish(name, source))).code, pb.OK)
        tracks = lambda: sorted(t.id for t in bob.roster[ann.sid].tracks)
        await bob.until(lambda: ann.sid in bob.roster and tracks() == ["cam", "mic"])
        token = mint("ann", "grants", grants={"canPublishSources": ["microphone"]})
        self.assertEqual((await ann.request(pb.ClientMessage(refresh_token=pb.RefreshToken(token=token)))).code, pb.OK)
        self.assertEqual(ann.counts["token_refresh"], 1)
        await bob.until(lambda: tracks() == ["mic"])
        self.assertEqual(list(bob.roster[ann.sid].permissions.can_publish_sources), [pb.MICROPHONE])
        self.assertEqual((await ann.request(publish("cam", pb.CAMERA))).code, pb.FORBIDDEN)
        await ann.drop()
        await ann.resume(self.cluster.url(2))
        self.assertTrue(ann.hello_ok.recovered)
        self.assertEqual((await ann.request(publish("cam", pb.CAMERA))).code, pb.FORBIDDEN)
        self.assertEqual([t.id for t in ann.hello_ok.self.tracks], ["mic"])

    async def test_a_token_that_a_newer_one_has_superseded_is_refused(self):
        ann = await self.join("ann", "rotation")
        first = ann.resume_token
        updated = lambda: sum(self.cluster[name].metric('signalbox_session_commands_total{outcome="updated"}')
                              for name in self.cluster.shard_names)
        await ann.drop()
        await asyncio.to_thread(wait_for, lambda: [member["state"] for member in self.cluster.room("rotation")["members"]] == ["detached"],
                                "the owner to hear of the loss")
        detached = updated()
        await ann.resume(self.cluster.url(2))
        # The owner hears within a second that the new token has arrived.
        await asyncio.to_thread(wait_for, lambda: updated() > detached, "the confirmation")
        thief = self.client()
        thief.resume_token, thief.attempt = first, 7
        with self.assertRaises(ConnectionError):
            await thief.resume(self.cluster.url(1))
        self.assertEqual((thief.close_code, thief.leave.action), (4301, pb.STOP))
        self.assertIsNone(ann.close_code)

    async def test_sessions_outlive_the_rotation_of_the_clusters_secret(self):
        ann = await self.join("ann", "secret")
        old = self.cluster.gateway_config("gateway-1")["cluster"]["secret"]
        await self.reload(cluster={"secret": NEW_SECRET, "previous_secret": old})
        await ann.drop()
        await ann.resume(self.cluster.url(2))  # with a token of the old secret
        self.assertTrue(ann.hello_ok.recovered)
        await self.reload(cluster={"secret": NEW_SECRET})
        await ann.drop()
        await ann.resume(self.cluster.url(1))  # with one of the new
        self.assertTrue(ann.hello_ok.recovered)
        await self.reload()

    async def test_a_withdrawn_key_ends_its_sessions_and_nobody_comes_back(self):
        ann, bob = await self.join("ann", "key"), await self.join("bob", "key", 2)
        await bob.drop()
        await self.reload(keys=({"project": "default", "key": "APIother", "secret": API_SECRET},))
        await ann.until(lambda: ann.close_code is not None)
        self.assertEqual((ann.close_code, ann.leave.reason, ann.leave.action), (4305, pb.TOKEN_REVOKED, pb.STOP))
        for client in (ann, bob):
            with self.assertRaises(ConnectionError):
                await client.resume(self.cluster.url(1))
            self.assertEqual(client.close_code, 4305)
        await self.reload()
        cleo = await self.join("cleo", "key", token=mint("cleo", "key", iss=API_KEY))
        await cleo.until(lambda: cleo.identities() == ["cleo"])
        for client in (ann, bob):  # revocation beats resume, also once the key is back
            with self.assertRaises(ConnectionError):
                await client.resume(self.cluster.url(2))
            self.assertEqual(client.leave.action, pb.STOP)


def field(number, value):
    """One field of a protobuf message that has a length, of less than 128 bytes."""
    data = value.encode() if isinstance(value, str) else value
    return bytes([*((number << 3 | 2,) if number < 16 else (number << 3 & 0x7f | 0x82, number >> 4)), len(data)]) + data


class NewOwnerTest(ClusterCase):
    cluster_options = {"gateways": 2, "shards": 2}

    def remove(self, shard, room, identity):
        """AdminRequest{project, remove_participant{room, identity}}, until signalboxctl can say it."""
        request = field(2, "default") + field(3, "sbx.tool.test") + field(13, field(1, room) + field(2, identity))
        with socket.create_connection(("127.0.0.1", self.cluster.nats_port), 5) as nats:
            nats.sendall(b"CONNECT {}\r\nPUB sbx.admin.shard.%s %d\r\n%s\r\nPING\r\n" % (shard.encode(), len(request), request))
            self.assertTrue(any(line.startswith(b"PONG") for line in nats.makefile("rb")))

    async def test_who_was_removed_does_not_come_back_after_the_shard_has_died_with_the_room_empty(self):
        for name in self.cluster.shard_names:  # another test may have killed one
            if name not in self.cluster.processes:
                await asyncio.to_thread(self.cluster.launch, name)
        await asyncio.to_thread(self.cluster.wait_ready, *self.cluster.shard_names)
        ann, bob = await self.join("ann", "kicked"), await self.join("bob", "other")
        gone = ann.hello_ok.shard
        await asyncio.to_thread(self.remove, gone, "kicked", "ann")
        await ann.until(lambda: ann.close_code is not None)
        self.assertEqual((ann.close_code, ann.leave.reason), (4300, pb.REMOVED))
        await asyncio.to_thread(self.cluster.kill, gone)
        for gateway in (1, 2):
            with self.assertRaises(ConnectionError):
                await ann.resume(self.cluster.url(gateway), 30)
            self.assertEqual((ann.close_code, ann.leave.reason, ann.leave.action), (4300, pb.REMOVED, pb.STOP))
        # A gateway that was not there hears of it.
        await asyncio.to_thread(self.cluster.terminate, "gateway-2")
        await asyncio.to_thread(self.cluster.launch, "gateway-2")
        await asyncio.to_thread(self.cluster.wait_ready, "gateway-2")
        knows = lambda: self.cluster["gateway-2"].metric("signalbox_revocations") == 1
        await asyncio.to_thread(wait_for, knows, "the new gateway to be told")
        await asyncio.to_thread(self.cluster.launch, gone)
        await asyncio.to_thread(self.cluster.wait_ready, gone)
        await asyncio.to_thread(wait_for, lambda: self.cluster[gone].metric("signalbox_revocations") == 1, "the new shard")
        await bob.drop()
        await bob.resume(self.cluster.url(2), 30)

    async def test_a_resume_after_the_rooms_shard_has_died(self):
        ann, bob = await self.join("ann", "epoch"), await self.join("bob", "epoch", 2)
        await self.all_see([ann, bob], ["ann", "bob"])
        gone, sid = ann.hello_ok.shard, ann.sid
        await ann.drop()
        await asyncio.to_thread(self.cluster.kill, gone)
        await ann.resume(self.cluster.url(2), 30)
        self.assertEqual(ann.sid, sid)
        self.assertNotEqual(ann.hello_ok.shard, gone)
        await self.all_see([ann, bob], ["ann", "bob"])
        self.assertEqual([kind for kind, who in bob.history if who == sid], ["joined"])
