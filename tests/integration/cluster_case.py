"""What the test cases share: one cluster for a class, clients that are closed at the end of a test."""
import unittest

from cluster import Cluster, mint
from signalbox_client import Client

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
