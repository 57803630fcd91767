"""Proxies in front: the PROXY protocol, forwarding headers from trusted proxies alone, TLS that ends before the gateway."""
import asyncio
import socket
import struct

from cluster import mint
from cluster_case import ClusterCase
from raw import TEXT, Raw, frame, upgrade_request

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def proxy_header(source="203.0.113.7", command=1, family=0x11):
    if family == 0x21:
        body = socket.inet_pton(socket.AF_INET6, source) * 2 + struct.pack("!HH", 40000, 443)
    else:
        body = socket.inet_aton(source) + socket.inet_aton("127.0.0.1") + struct.pack("!HH", 40000, 443)
    return SIGNATURE + bytes([0x20 | command, family]) + struct.pack("!H", len(body)) + body


class ProxyCase(ClusterCase):
    async def joins(self, raw, identity):
        await raw.send(frame(TEXT, b'{"hello": {"token": "%s"}}' % mint(identity, "proxy").encode()))
        self.assertIn(b"helloOk", await raw.next_of(TEXT))

    def count(self, name):
        return self.cluster.gateway().metric(name)

    async def grows(self, metric, before):
        for _ in range(500):
            if self.count(metric) > before:
                return
            await asyncio.sleep(0.02)
        self.fail(f"{metric} did not grow")


class ProxyProtocolTest(ProxyCase):
    """PROXY v2 before plain HTTP, as a TLS terminator in front sends it."""

    cluster_options = {"gateways": 1, "shards": 1, "tls": False, "gateway": {
        "proxy": {"protocol": True, "trusted": ["127.0.0.0/8"]}, "client": {"connections_per_address": 2}}}

    async def connect(self, header):
        raw = await Raw.open(self.cluster, tls=False)
        self.addAsyncCleanup(raw.close)
        return raw, await raw.http(header + upgrade_request())

    async def test_each_client_counts_by_its_own_address(self):
        connections = []
        for source in ("203.0.113.7", "203.0.113.7", "203.0.113.8"):
            raw, answer = await self.connect(proxy_header(source))
            self.assertEqual(answer.status, 101)
            connections.append(raw)
        before = self.count('signalbox_accepts_total{outcome="address_connections"}')
        _, answer = await self.connect(proxy_header("203.0.113.7"))
        self.assertIsNone(answer)
        await self.grows('signalbox_accepts_total{outcome="address_connections"}', before)
        for number, raw in enumerate(connections):
            await self.joins(raw, f"p{number}")

    async def test_ipv6_counts_by_64(self):
        for number in range(2):
            _, answer = await self.connect(proxy_header(f"2001:db8:1:2::{number + 1}", family=0x21))
            self.assertEqual(answer.status, 101)
        _, answer = await self.connect(proxy_header("2001:db8:1:2:ffff::", family=0x21))
        self.assertIsNone(answer)
        _, answer = await self.connect(proxy_header("2001:db8:1:3::1", family=0x21))
        self.assertEqual(answer.status, 101)

    async def test_a_local_header_names_nobody(self):
        _, answer = await self.connect(SIGNATURE + b"\x20\x00\x00\x00")
        self.assertEqual(answer.status, 101)

    async def test_bad_headers_are_refused_and_counted(self):
        for name, data in (("none", b""), ("version 1", b"PROXY TCP4 203.0.113.9 127.0.0.1 1 2\r\n"),
                           ("a wrong version", SIGNATURE + b"\x31\x11\x00\x0c" + b"\0" * 12),
                           ("too short for its family", SIGNATURE + b"\x21\x11\x00\x04" + b"\0" * 4)):
            with self.subTest(name):
                before = self.count('signalbox_proxy_headers_total{outcome="malformed"}')
                _, answer = await self.connect(data)
                self.assertIsNone(answer)
                await self.grows('signalbox_proxy_headers_total{outcome="malformed"}', before)

    async def test_a_header_may_come_in_pieces(self):
        raw = await Raw.open(self.cluster, tls=False)
        self.addAsyncCleanup(raw.close)
        for byte in proxy_header("203.0.113.20"):
            await raw.send(bytes([byte]))
            await asyncio.sleep(0.005)
        self.assertEqual((await raw.http(upgrade_request())).status, 101)


class UntrustedProxyTest(ProxyCase):
    cluster_options = {"gateways": 1, "shards": 1, "tls": False,
                       "gateway": {"proxy": {"protocol": True, "trusted": ["192.0.2.1"]}}}

    async def test_a_stranger_cannot_claim_an_address(self):
        before = self.count('signalbox_proxy_headers_total{outcome="untrusted"}')
        raw = await Raw.open(self.cluster, tls=False)
        self.assertIsNone(await raw.http(proxy_header() + upgrade_request()))
        await raw.close()
        await self.grows('signalbox_proxy_headers_total{outcome="untrusted"}', before)


class ForwardedCase(ProxyCase):
    limit = {"connections_per_address": 1}

    async def connect(self, **headers):
        raw = await Raw.open(self.cluster, tls=False)
        self.addAsyncCleanup(raw.close)
        return (await raw.http(upgrade_request(**headers))).status


class XForwardedForTest(ForwardedCase):
    cluster_options = {"gateways": 1, "shards": 1, "tls": False,
                       "gateway": {"proxy": {"trusted": ["127.0.0.1"]}, "client": ForwardedCase.limit}}

    async def test_the_header_of_a_trusted_proxy_counts(self):
        self.assertEqual(await self.connect(x_forwarded_for="203.0.113.1"), 101)
        before = self.count('signalbox_upgrades_total{outcome="address_busy"}')
        self.assertEqual(await self.connect(x_forwarded_for="203.0.113.1"), 429)
        self.assertEqual(self.count('signalbox_upgrades_total{outcome="address_busy"}'), before + 1)
        # What a client claims of itself stands to the left of what the proxy saw.
        self.assertEqual(await self.connect(x_forwarded_for="198.51.100.9, 203.0.113.1"), 429)
        self.assertEqual(await self.connect(x_forwarded_for="203.0.113.2"), 101)
        # The other header is not looked at.
        self.assertEqual(await self.connect(forwarded="for=203.0.113.2", x_forwarded_for="203.0.113.3"), 101)


class ForwardedTest(ForwardedCase):
    cluster_options = {"gateways": 1, "shards": 1, "tls": False, "gateway": {
        "proxy": {"trusted": ["127.0.0.1"], "header": "forwarded"}, "client": ForwardedCase.limit}}

    async def test_the_header_of_a_trusted_proxy_counts(self):
        self.assertEqual(await self.connect(forwarded='for="[2001:db8::1]:4711";proto=https'), 101)
        self.assertEqual(await self.connect(forwarded='for="[2001:db8::2]"'), 429)
        self.assertEqual(await self.connect(forwarded="for=198.51.100.9, for=203.0.113.2"), 101)
        self.assertEqual(await self.connect(forwarded="For=203.0.113.2:99"), 429)


class UntrustedForwardedTest(ForwardedCase):
    cluster_options = {"gateways": 1, "shards": 1, "tls": False, "gateway": {
        "proxy": {"trusted": ["192.0.2.1"]}, "client": {"connections_per_address": 2}}}

    async def test_a_stranger_cannot_claim_an_address(self):
        for number in range(2):
            self.assertEqual(await self.connect(x_forwarded_for=f"203.0.113.{number}"), 101)
        raw = await Raw.open(self.cluster, tls=False)
        self.assertIsNone(await raw.http(upgrade_request(x_forwarded_for="203.0.113.99")))
        await raw.close()


class PlainTest(ProxyCase):
    """tls.enabled = false: both encodings work over plain TCP, and TLS finds nobody."""

    cluster_options = {"gateways": 1, "shards": 1, "tls": False}

    async def test_clients_join_without_tls(self):
        ann, bob = await self.join("ann", "plain"), await self.join("bob", "plain", encoding="json")
        await self.all_see([ann, bob], ["ann", "bob"])

    async def test_tls_on_the_plain_port_is_a_bad_request(self):
        raw = await Raw.open(self.cluster, tls=False)
        await raw.send(bytes.fromhex("16030100300100002c0303") + b"x" * 37 + b"\r\n\r\n")
        self.assertIn(b" 400 ", await raw.ended())
        await raw.close()
