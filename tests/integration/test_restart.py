"""Parts that go away and come back in an orderly way: clients keep their sessions, rosters and, but for a gateway's own
clients, their sockets."""
import asyncio
import re
import signal
import time

from cluster import mint, wait_for
from cluster_case import ENCODINGS, ClusterCase
from wire import pb

ROOMS = 12


def text(value):
    return pb.ClientMessage(send=pb.Send(delivery=pb.RELIABLE, text=value))


class RestartTest(ClusterCase):
    cluster_options = {"gateways": 2, "shards": 3, "gateway": {"drain": {"spread_ms": 500, "deadline_ms": 4000}}}

    async def rooms(self, prefix):
        """Rooms of three, on both gateways and in both encodings; enough of them that every shard has some."""
        rooms = {}
        for number in range(ROOMS):
            name = f"{prefix}-{number}"
            rooms[name] = [await self.join(f"p{i}", name, 1 + (number + i) % 2, ENCODINGS[i % 2]) for i in range(3)]
        for clients in rooms.values():
            await self.all_see(clients, ["p0", "p1", "p2"])
        return rooms

    async def carries_on(self, rooms, words):
        """Rosters are equal, each sid joined once and none left, and messages of both kinds get through."""
        for name, clients in rooms.items():
            clients[0].tell(clients[1].sid, text(words))
            clients[2].tell("", text(words))
            # Without an event a client only learns from its next ping that it stands behind.
            for client in clients:
                client.send(pb.ClientMessage(ping=pb.Ping(nonce=8)))
        for name, clients in rooms.items():
            await clients[1].until(lambda: words in clients[1].texts_from(clients[0].sid), 30, f"{name}: directed message")
            for client in clients:
                await client.until(lambda: words in [m.text for m in client.chat], 30, lambda: f"{name}: room message {client.chat}")
                await client.until(lambda: client.unacknowledged() == 0, 30, f"{name}: acknowledgements")
            await self.all_see(clients, ["p0", "p1", "p2"], 30)
            for client in clients:
                self.assertEqual(sorted(client.history), sorted(("joined", c.sid) for c in clients), name)
                self.assertEqual([m.text for m in client.chat].count(words), 1)

    async def stop_in_background(self, name, number=signal.SIGTERM):
        process = self.cluster.processes.pop(name)
        process.signal(number)
        await asyncio.to_thread(process.wait)
        self.assertIsNone(process.problems())
        return process

    async def test_a_shard_leaves_and_comes_back(self):
        rooms = await self.rooms("shard")
        clients = [client for room in rooms.values() for client in room]
        sockets = [client.socket for client in clients]
        gone = rooms["shard-0"][0].hello_ok.shard
        await self.stop_in_background(gone)
        for number in (1, 2):
            await asyncio.to_thread(wait_for, lambda: self.cluster.gateway(number).metric("signalbox_view_shards") == 2,
                                    "a view of two shards")
        await self.carries_on(rooms, "after the shard left")
        self.assertEqual([client.socket for client in clients], sockets)
        self.assertTrue(all(client.close_code is None for client in clients))
        late = await self.join("late", "shard-0", 2)
        self.assertNotEqual(late.hello_ok.shard, gone)
        await late.depart()
        for room in rooms.values():
            await self.all_see(room, ["p0", "p1", "p2"])

        process = self.cluster.launch(gone)
        full_weight = "weight=100 full_weight=100"
        before = process.log().count(full_weight)
        await asyncio.to_thread(self.cluster.wait_ready, gone)
        for number in (1, 2):
            await asyncio.to_thread(wait_for, lambda: self.cluster.gateway(number).metric("signalbox_view_shards") == 3,
                                    "a view of three shards")
        await asyncio.to_thread(wait_for, lambda: process.log().count(full_weight) > before, "its full weight")
        fresh = await self.rooms("after")
        self.assertIn(gone, {room[0].hello_ok.shard for room in fresh.values()})
        await self.carries_on(fresh, "with the new shard")

    async def test_a_gateway_drains_and_its_clients_resume_on_the_other(self):
        rooms = await self.rooms("drain")
        moving = [c for room in rooms.values() for c in room if c.hello_ok.gateway == "gateway-1"]
        staying = [c for room in rooms.values() for c in room if c.hello_ok.gateway == "gateway-2"]

        stubborn = moving[-1]  # one that has never heard of `reconnect`
        away = {}

        async def move(client):
            await client.until(lambda: client.counts["reconnect"] == 1, 30)
            self.assertIsNone(client.close_code)
            away[client.sid] = time.monotonic()
            await client.move(self.cluster.url(2))
            self.assertEqual((client.hello_ok.gateway, client.hello_ok.recovered), ("gateway-2", True))

        async def be_closed(client):
            await client.until(lambda: client.close_code is not None, 30)
            self.assertEqual((client.close_code, client.leave.reason, client.leave.action),
                             (4001, pb.GATEWAY_DRAINING, pb.RESUME))
            await client.resume(self.cluster.url(2))
            self.assertEqual((client.hello_ok.gateway, client.hello_ok.recovered), ("gateway-2", True))

        gateway = self.cluster.gateway(1)
        stopping = asyncio.create_task(self.stop_in_background("gateway-1"))
        await stubborn.until(lambda: stubborn.counts["reconnect"] == 1 or len(away) > 0, 30)
        self.assertFalse(gateway.ready())
        await asyncio.gather(be_closed(stubborn), *(move(client) for client in moving if client is not stubborn))
        self.assertGreater(max(away.values()) - min(away.values()), 0.3)  # spread_ms is 0.5 s
        await stopping
        self.assertTrue(all(client.close_code is None for client in staying))
        await self.carries_on(rooms, "on the other gateway")

        self.cluster.launch("gateway-1")
        await asyncio.to_thread(self.cluster.wait_ready, "gateway-1")
        for client in moving[:6]:
            await client.drop()
            await client.resume(self.cluster.url(1))
        await self.carries_on(rooms, "and back")

    async def test_nats_restarts(self):
        rooms = await self.rooms("nats")
        clients = [client for room in rooms.values() for client in room]
        sockets = [client.socket for client in clients]
        nats = self.cluster.processes.pop("nats")
        nats.signal(signal.SIGTERM)
        await asyncio.to_thread(nats.wait)
        for client in clients:
            await client.until(lambda: client.degraded, 15, "degraded")
        # What is said meanwhile waits in the window; whoever comes now is told to come back.
        words = "said while NATS was away"
        for room in rooms.values():
            room[0].tell(room[1].sid, text(words))
            room[2].tell("", text(words))
        newcomer = self.client()
        with self.assertRaises(Exception) as refused:
            await newcomer.connect(self.cluster.url(1), mint("newcomer", "nats-0"))
        self.assertRegex(str(refused.exception), r"503|4100")
        for number in (1, 2):
            self.assertEqual(self.cluster.gateway(number).metric("signalbox_bus_up"), 0)
        await asyncio.to_thread(self.cluster.start_nats)
        for client in clients:
            await client.until(lambda: not client.degraded, 30, "restored")
        for room in rooms.values():
            await room[1].until(lambda: words in room[1].texts_from(room[0].sid), 30, "what waited")
            for client in room:
                await client.until(lambda: words in [m.text for m in client.chat], 30, "what waited for the room")
        await self.carries_on(rooms, "after NATS")
        self.assertEqual([client.socket for client in clients], sockets)
        await asyncio.to_thread(self.cluster.wait_ready, *self.cluster.gateway_names, *self.cluster.shard_names)
        newcomer = await self.join("newcomer", "nats-0", 1)
        await newcomer.depart()

    async def test_a_shard_that_is_replaced_in_its_place(self):
        """The same id started again before the old one has gone: the new incarnation takes its place."""
        rooms = await self.rooms("replace")
        old = self.cluster.processes.pop("shard-1")
        old.signal(signal.SIGKILL)
        await asyncio.to_thread(old.wait)
        self.cluster.launch("shard-1")
        await asyncio.to_thread(self.cluster.wait_ready, "shard-1")
        await self.carries_on(rooms, "with the new incarnation")
