"""deploy/nats: the programs work as their roles, and no role can do what is another's."""

import pathlib
import tempfile
import unittest

import nats_cluster as cluster

INBOX = "0123456789abcdef"


class NatsTest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="signalbox-deploy-")
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)

    def start(self, make, *args, **kwargs):
        process = make(self.directory, *args, **kwargs)
        self.addCleanup(process.stop)
        return process

    def start_single(self):
        nats = self.start(cluster.NatsServer, "single.conf")
        nats.wait_ready()
        return nats

    def start_members(self, servers, ca_file=None):
        shards = [self.start(cluster.Member, "shard", i, servers, ca_file=ca_file) for i in (1, 2)]
        gateways = [self.start(cluster.Member, "gateway", i, servers, ca_file=ca_file) for i in (1, 2)]
        for member in shards + gateways:
            member.wait_ready()
        return shards, gateways

    def join(self, gateway, identity):
        status, token = cluster.ctl("token", "--key", cluster.API_KEY, "--secret", cluster.API_SECRET, "--room", "demo",
                                    "--identity", identity)
        self.assertEqual(status, 0, token)
        client = cluster.JsonClient(gateway.client_port)
        self.addCleanup(client.close)
        client.send({"hello": {"token": token.strip(), "join": {"room": "demo"}}})
        hello = client.receive_until("helloOk")
        return client, hello["sid"]

    def assert_call_works(self, gateways):
        """Two people at two gateways: a directed message crosses gateway, shard, gateway."""
        ann, ann_sid = self.join(gateways[0], "ann")
        ben, ben_sid = self.join(gateways[1], "ben")
        ann.send({"route": {"peer": ben_sid, "seq": "1"},
                  "offer": {"negotiation": "1", "iceGeneration": 1, "sdp": "v=0"}})
        self.assertIn("v=0", str(ben.receive_until("offer")))

    def run_ctl(self, server, *args, ca_file=""):
        path = self.directory / "ctl.conf"
        path.write_text(f'nats = {{ servers = [ "{server}" ]; user = "tool"; password = "{cluster.PASSWORDS["tool"]}"; '
                        f'tls_ca_file = "{ca_file}"; }};')
        return cluster.ctl(*args, "--config", str(path))

    def test_roles_suffice(self):
        nats = self.start_single()
        server = f"nats://127.0.0.1:{nats.port}"
        shards, gateways = self.start_members([server])
        self.assert_call_works(gateways)
        for command in (["view"], ["room", "demo"]):
            status, output = self.run_ctl(server, *command)
            self.assertEqual(status, 0, output)
            self.assertIn("gateway-1", output)
        for member in gateways + shards:
            member.stop()
            self.assertEqual(member.process.returncode, 0, member.log())
        self.assertEqual(nats.violations(), [])

    def test_three_servers_with_tls(self):
        cluster.make_certificates(self.directory)
        ca_file = str(self.directory / "ca.pem")
        ports = [cluster.free_port() for _ in range(3)]
        routes = [f"nats-route://route:{cluster.PASSWORDS['route']}@127.0.0.1:{port}" for port in ports]
        servers = [self.start(cluster.NatsServer, "cluster.conf", f"nats-{i}", routes=routes, route_port=port)
                   for i, port in enumerate(ports, 1)]
        for server in servers:
            server.wait_ready()
        urls = [f"tls://127.0.0.1:{server.port}" for server in servers]
        _, gateways = self.start_members(urls, ca_file)
        self.assert_call_works(gateways)
        status, output = self.run_ctl(urls[2], "view", ca_file=ca_file)
        self.assertEqual(status, 0, output)
        self.assertEqual([line for server in servers for line in server.violations()], [])
        client = cluster.NatsClient(servers[0].port, "gateway", ca_file)
        self.addCleanup(client.close)
        self.assertEqual(client.answer, "")
        self.assertFalse(client.may_publish("sbx.hb.shard.shard-1"))

    def test_a_wrong_role_ends_at_once(self):
        nats = self.start_single()
        for kind, user in (("shard", "gateway"), ("gateway", "shard"), ("shard", "tool")):
            member = self.start(cluster.Member, kind, 1, [f"nats://127.0.0.1:{nats.port}"], user=user)
            member.process.wait(cluster.TIMEOUT_S)
            self.assertNotEqual(member.process.returncode, 0)
            self.assertRegex(member.log(), "cannot_start.*Permissions Violation")

    def start_with_roles(self, change):
        """One server with deploy/nats/roles.conf, changed."""
        for name in ("single.conf", "roles.conf"):
            text = (cluster.NATS_CONFIGS / name).read_text()
            (self.directory / name).write_text(change(text) if name == "roles.conf" else text)
        nats = self.start(cluster.NatsServer, self.directory / "single.conf")
        nats.wait_ready()
        return [f"nats://127.0.0.1:{nats.port}"]

    def test_permissions_that_are_too_small_end_it_at_once(self):
        for kind, missing in (("shard", "sbx.gw.*.*.>"), ("gateway", "sbx.tool.*"), ("gateway", "sbx.hb.gw.*"),
                              ("shard", "sbx.hb.shard.*"), ("gateway", "sbx.shard.*.*")):
            def without(text):
                """The role's list without one subject."""
                before, user, after = text.partition(f"user: {kind}\n")
                self.assertIn(f'"{missing}"\n', after)
                return before + user + after.replace(f'"{missing}"\n', "\n", 1)
            with self.subTest(kind=kind, missing=missing):
                member = self.start(cluster.Member, kind, 1, self.start_with_roles(without))
                self.assertEqual(member.process.wait(cluster.TIMEOUT_S), 1, member.log())
                self.assertRegex(member.log(), r"cannot_start.*Permissions Violation")

    def test_permissions_that_are_too_large_are_warned_of(self):
        servers = self.start_with_roles(lambda text: text.replace('"sbx.tool.*"\n', '"sbx.>"\n').replace(
            '"sbx.view", "_INBOX.>"', '">"'))
        shard, gateway = self.start(cluster.Member, "shard", 1, servers), self.start(cluster.Member, "gateway", 1, servers)
        for member in (shard, gateway):
            member.wait_ready()
            self.assertIn("WARN nats_permissions_too_large", member.log())
        self.assertIn("publish sbx.gw.permission-probe.0.in", gateway.log())
        self.assertIn("subscribe sbx.hb.permission-probe", gateway.log())
        self.assertIn("publish sbx.admin.gw.permission-probe", shard.log())
        self.assertNotIn("PERMISSION_PROBE", shard.log())  # which it may not, as before

    def test_right_permissions_are_not_warned_of(self):
        nats = self.start_single()
        for member in sum(self.start_members([f"nats://127.0.0.1:{nats.port}"]), []):
            self.assertNotIn("nats_permissions_too_large", member.log())

    def test_roles_forbid(self):
        nats = self.start_single()
        forbidden = {
            "gateway": (
                ["sbx.hb.shard.shard-1", f"sbx.gw.gateway-2.{INBOX}.in", f"sbx.shard.shard-1.{INBOX}.echo",
                 "sbx.admin.gw.gateway-2", "_INBOX.abc.1", "$JS.API.STREAM.DELETE.SBX_VIEW",
                 "$JS.API.STREAM.UPDATE.SBX_VIEW", "$JS.API.STREAM.PURGE.SBX_VIEW", "$JS.API.STREAM.CREATE.OTHER", "else"],
                [f"sbx.shard.shard-1.{INBOX}", "sbx.shard.>", "sbx.hb.>", "sbx.admin.shard.shard-1", "sbx.tool.>", "sbx.>",
                 ">"]),
            "shard": (
                ["sbx.hb.gw.gateway-1", "sbx.admin.shard.shard-1", "sbx.admin.gw.gateway-1", "_INBOX.abc.1",
                 "$JS.API.STREAM.DELETE.SBX_VIEW", "$JS.API.STREAM.UPDATE.SBX_VIEW", "else"],
                [f"sbx.gw.gateway-1.{INBOX}.in", "sbx.gw.>", "sbx.admin.gw.gateway-1", "sbx.tool.>", "sbx.>", ">"]),
            "tool": (
                ["sbx.viewlog", "sbx.view", f"sbx.shard.shard-1.{INBOX}", f"sbx.gw.gateway-1.{INBOX}.in",
                 "sbx.hb.shard.shard-1", "$JS.API.STREAM.CREATE.SBX_VIEW"],
                ["sbx.gw.>", "sbx.shard.>", "sbx.hb.>", ">"]),
        }
        for role, (publish, subscribe) in forbidden.items():
            client = cluster.NatsClient(nats.port, role)
            self.addCleanup(client.close)
            self.assertEqual(client.answer, "")
            for subject in publish:
                self.assertFalse(client.may_publish(subject), f"{role} may publish {subject}")
            for subject in subscribe:
                self.assertFalse(client.may_subscribe(subject), f"{role} may subscribe to {subject}")

    def test_nobody_comes_in_without_a_password(self):
        nats = self.start_single()
        for user in ("", "nobody"):
            client = cluster.NatsClient(nats.port, user)
            self.addCleanup(client.close)
            self.assertIn("Authorization Violation", client.answer)


if __name__ == "__main__":
    unittest.main()
