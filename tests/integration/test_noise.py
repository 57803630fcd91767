"""Clients that are within the protocol and beyond measure: each stays within its bounds and is counted, and two others, in a
room of their own on the same gateway and shard, notice nothing."""
import asyncio
import time

from cluster import mint
from cluster_case import ClusterCase
from raw import Raw
from wire import pb

# With sanitizers, beside other jobs, and in Python. What would be noticed is a stall behind thousands of messages.
PROMPT_S = 5


class NoiseTest(ClusterCase):
    cluster_options = {"gateways": 1, "shards": 1, "shard": {"limits": {
        "room_signals_per_s": 100, "room_messages_per_s": 20, "room_burst_s": 1}}}

    async def asyncSetUp(self):
        self.ann = await self.join("ann", "quiet")
        self.bob = await self.join("bob", "quiet")
        await self.all_see([self.ann, self.bob], ["ann", "bob"])

    def metric(self, process, name):
        return self.cluster[process].metric(name)

    async def while_others_talk(self, noise):
        """Runs the noise; meanwhile, and after it, the others' messages arrive promptly and nothing of theirs is repeated."""
        running = asyncio.ensure_future(noise)
        number, last = 0, False
        while not last:
            last = running.done()
            number += 1
            words, began = f"words {number}", time.monotonic()
            self.ann.tell(self.bob.sid, pb.ClientMessage(send=pb.Send(delivery=pb.RELIABLE, text=words)))
            await self.bob.until(lambda: words in self.bob.texts_from(self.ann.sid))
            self.assertLess(time.monotonic() - began, PROMPT_S)
            await asyncio.sleep(0.02)
        await running
        for witness in (self.ann, self.bob):
            self.assertIsNone(witness.close_code)
            self.assertEqual(len(witness.roster), 2)
            self.assertEqual(witness.syncs_asked, [])

    async def test_ten_thousand_speaking_updates(self):
        loud, hearer = await self.join("loud", "loud"), await self.join("hearer", "loud")
        await self.all_see([loud, hearer], ["loud", "hearer"])
        dropped = 'rtc_room_updates_dropped_total{class="p4_ephemeral"}'
        # Its own budget's or its room's: which of them it exhausts first depends on how fast it gets to send.
        throttled = "signalbox_client_throttled_total"
        before = self.metric("gateway-1", throttled)

        async def noise():
            for i in range(10000):
                loud.send(pb.ClientMessage(send=pb.Send(
                    delivery=pb.EPHEMERAL, key="speaking", speaking=pb.Speaking(active=True, level=i % 100))))
                if i % 500 == 0:
                    await asyncio.sleep(0.01)
            await loud.until(lambda: loud.close_code is not None)

        await self.while_others_talk(noise())
        self.assertEqual((loud.close_code, loud.leave.reason, loud.leave.action), (4307, pb.ABUSE, pb.STOP))
        self.assertGreater(self.metric("gateway-1", throttled), before)
        self.assertGreater(self.metric("gateway-1", dropped) + self.metric("shard-1", dropped), 0)
        await self.all_see([hearer], ["hearer"])

    async def test_connections_opened_and_closed(self):
        before = self.metric("gateway-1", 'signalbox_tls_handshakes_total{outcome="full"}')

        async def noise():
            for _ in range(60):
                raw = await Raw.websocket(self.cluster)
                await raw.close()

        await self.while_others_talk(noise())
        self.assertGreaterEqual(self.metric("gateway-1", 'signalbox_tls_handshakes_total{outcome="full"}') - before, 60)
        deadline = time.monotonic() + 20
        while self.metric("gateway-1", "active_websocket_connections") > 2:
            self.assertLess(time.monotonic(), deadline, "connections that were closed are still counted")
            await asyncio.sleep(0.05)

    async def test_joins_and_leaves(self):
        stays = await self.join("stays", "door")

        async def noise():
            for i in range(40):
                client = await self.join("swings", "door")
                await client.depart()
                await client.close()
                self.clients.remove(client)

        await self.while_others_talk(noise())
        await self.all_see([stays], ["stays"])
        deadline = time.monotonic() + 20
        while self.metric("shard-1", 'signalbox_participants{state="attached"}') > 3:
            self.assertLess(time.monotonic(), deadline, "participants that left are still counted")
            await asyncio.sleep(0.05)

    async def test_metadata_filled_without_end(self):
        writer, reader = await self.join("writer", "notes"), await self.join("reader", "notes")
        await self.all_see([writer, reader], ["writer", "reader"])
        throttled = 'signalbox_room_throttled_total{budget="p3_membership"}'
        before = self.metric("shard-1", throttled)

        def change(text):
            return pb.ClientMessage(set_metadata=pb.SetMetadata(set_metadata=True, metadata=text))

        async def noise():
            for i in range(300):
                writer.send(change(f"{i:04}" + "m" * 4000))
                if i % 10 == 0:
                    await asyncio.sleep(0.05)
            result = await writer.request(change("m" * 4097))
            self.assertEqual(result.code, pb.TOO_LARGE)

        await self.while_others_talk(noise())
        self.assertGreater(self.metric("shard-1", throttled), before)
        # What waited has been overtaken; the last one counts, for everybody.
        await reader.until(lambda: any(p.metadata.startswith("0299") for p in reader.roster.values()), 30)
        await self.equal_rosters([writer, reader])

    async def test_one_that_stops_reading_and_comes_back(self):
        """Its queue is bounded, and so is what it costs; back again, it has the right roster."""
        slow = await self.join("slow", "slow")
        senders = [await self.join(f"sender{i}", "slow") for i in range(3)]
        await self.all_see([slow, *senders], ["slow", "sender0", "sender1", "sender2"])
        depths = []

        async def noise():
            depths.extend(await self.flood_unread(slow, senders, 0.1))

        await self.while_others_talk(noise())
        self.assertGreater(max(depths), 4)
        self.assertLess(max(depths), 64)  # 1 MiB holds 21 of these, and there is little else
        await senders[2].depart()
        await slow.drop()
        await slow.resume(self.cluster.url())
        await self.all_see([slow, *senders[:2]], ["sender0", "sender1", "slow"])
