"""A gateway near its memory's ceiling gives up joins first, then signals, then who is slow; who is there stays, and may resume."""
import asyncio

from cluster import Cluster, mint, wait_for
from cluster_case import ClusterCase
from raw import Raw, upgrade_request
from wire import pb

JOINS, SIGNALS, SLOWEST, TRIES = 1, 2, 3, 12
# Where each level begins and ends, in percent of the ceiling: gateway/shed.h.
AIM_PERCENT = {0: 40, JOINS: 84, SIGNALS: 91.5, SLOWEST: 99}


class SteadyCluster(Cluster):
    """AddressSanitizer keeps what was freed, so that memory would grow with every question about it."""

    def launcher(self, name):
        return ["env", "ASAN_OPTIONS=detect_leaks=1:exitcode=99:quarantine_size_mb=0:thread_local_quarantine_size_kb=0"]


class MemoryTest(ClusterCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = SteadyCluster(gateways=1, shards=1)

    def metric(self, name):
        return self.cluster["gateway-1"].metric(name)

    async def at(self, level, ask):
        """What `ask()` tells at this level. The ceiling is set by what the gateway takes now; where that changes
        meanwhile, it is done again."""
        reached = lambda: self.metric("signalbox_shed_level") == level
        for _ in range(TRIES):
            used_bytes = self.metric("process_resident_memory_bytes")
            await self.reload(memory={"ceiling_mb": round(used_bytes * 100 / AIM_PERCENT[level] / 2**20)})
            try:
                await asyncio.to_thread(wait_for, reached, f"level {level}", 2)
            except TimeoutError:
                continue
            answer = await ask()
            if reached():
                return answer
        self.fail(f"the gateway could not be held at level {level}")

    async def joins_are_refused(self):
        raw = await Raw.open(self.cluster)
        answer = await raw.http(upgrade_request(authorization="Bearer " + mint("late", "full")))
        await raw.close()
        return answer.status == 503

    async def signal_arrives(self, sender, receiver, key):
        """False if it was dropped for want of memory instead."""
        dropped = 'signalbox_updates_dropped_total{reason="gateway_memory"}'
        heard, lost = receiver.counts["signals"], self.metric(dropped)
        sender.send(pb.ClientMessage(send=pb.Send(delivery=pb.EPHEMERAL, key=key, text=key)))
        await asyncio.to_thread(wait_for, lambda: receiver.counts["signals"] > heard or self.metric(dropped) > lost, key)
        return receiver.counts["signals"] > heard

    async def test_joins_then_signals_then_the_slow_give_way(self):
        ann, bob = await self.join("ann", "full"), await self.join("bob", "full")
        await self.all_see([ann, bob], ["ann", "bob"])
        self.assertFalse(await self.joins_are_refused())
        self.assertTrue(await self.signal_arrives(ann, bob, "before"))

        self.assertTrue(await self.at(JOINS, self.joins_are_refused))
        self.assertTrue(await self.at(JOINS, lambda: self.signal_arrives(ann, bob, "joins are short")))
        self.assertTrue(await self.at(SIGNALS, self.joins_are_refused))
        self.assertFalse(await self.at(SIGNALS, lambda: self.signal_arrives(ann, bob, "signals are short")))

        async def resumed():
            await bob.drop()
            await bob.resume(self.cluster.url())
            return bob.hello_ok.recovered

        async def heard():
            words = f"still here {len(bob.chat)}"
            ann.tell(bob.sid, pb.ClientMessage(send=pb.Send(delivery=pb.RELIABLE, text=words)))
            await bob.until(lambda: words in bob.texts_from(ann.sid))
            return True

        self.assertTrue(await self.at(SLOWEST, resumed))
        self.assertTrue(await self.at(SLOWEST, heard))
        self.assertFalse(await self.at(0, self.joins_are_refused))
        late = await self.join("late", "full")
        await self.all_see([ann, bob, late], ["ann", "bob", "late"])
        self.assertEqual((ann.close_code, bob.close_code), (None, None))
