"""What the test cases share: one cluster for a class, clients that are closed at the end of a test."""
import asyncio
import signal
import socket
import unittest

from cluster import Cluster, merged, mint, wait_for
from signalbox_client import Client
from wire import pb

ENCODINGS = ("protobuf", "json")


class ClusterCase(unittest.IsolatedAsyncioTestCase):
    """One cluster for all tests of a class; its end is a test of its own kind: a bad exit status or a sanitizer's report
    fails the class."""

    cluster_options = {}

    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(**cls.cluster_options)

    @classmethod
    def tearDownClass(cls):
        cls.cluster.stop()

    def setUp(self):
        self.clients = []

    async def asyncTearDown(self):
        for client in self.clients:
            await client.close()

    def client(self, encoding="protobuf"):
        client = Client(encoding, self.cluster.client_tls)
        self.clients.append(client)
        return client

    async def join(self, identity, room, gateway=1, encoding="protobuf", token=None, **options):
        client = self.client(encoding)
        await client.connect(self.cluster.url(gateway), token or mint(identity, room), **options)
        return client

    async def all_see(self, clients, identities, timeout=20):
        """Every client ends with the same roster: these identities, in equal versions."""
        for client in clients:
            await client.until(lambda: client.identities() == sorted(identities), timeout,
                               lambda: f"expected {sorted(identities)}, sees {client.identities()}")
        await self.equal_rosters(clients, timeout)

    async def equal_rosters(self, clients, timeout=20):
        first = clients[0]
        for client in clients[1:]:
            await client.until(lambda: client.roster == first.roster, timeout, "rosters differ")

    async def reload(self, **changes):
        """New settings for all gateways, by SIGHUP; waits until they are in force."""
        for name in self.cluster.gateway_names:
            self.cluster.write_config(name, merged(self.cluster.gateway_config(name), changes))
            gateway = self.cluster[name]
            before = gateway.log().count("reloaded")
            gateway.signal(signal.SIGHUP)
            await asyncio.to_thread(wait_for, lambda: gateway.log().count("reloaded") > before, f"{name} to reload")

    async def flood_unread(self, slow, senders, pause_s):
        """`slow` stops reading and is sent offers until its gateway closes it; returns what waited in the gateway on the way."""
        closed = 'signalbox_websocket_closed_total{cause="slow"}'
        gateway, depths = self.cluster.gateway(), []
        before = gateway.metric(closed)
        slow.socket.transport.pause_reading()
        slow.socket.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        offer = pb.Offer(sdp="x" * 48000, negotiation=1)
        for number in range(1, 2000):
            for sender in senders:
                sender.send(pb.ClientMessage(route=pb.Route(peer=slow.sid, seq=number), offer=offer))
            await asyncio.sleep(pause_s)
            metrics = gateway.metrics()
            depths.append(metrics["fanout_queue_depth"])
            if metrics[closed] > before:
                return depths
        self.fail("it was never closed as slow")
