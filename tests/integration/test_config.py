"""Configuration that is missing or wrong, ports in use, keys that cannot be read, NATS that is away or refuses: a clear line
that says what, where and what to do, and the exit status or the state that is right."""
import os
import socket
import subprocess
import unittest

from cluster import SANITIZED, SANITIZER_REPORT, Cluster, Process, free_port, http_get, libconfig, wait_for

TIERS = ("gateway", "shard")
FAILED, USAGE = 1, 2


class ConfigTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(gateways=1, shards=1)

    @classmethod
    def tearDownClass(cls):
        cls.cluster.stop()

    def run_program(self, tier, *args, env=None):
        done = subprocess.run([SANITIZED / tier / f"signalbox-{tier}", *map(str, args)], capture_output=True, text=True, timeout=60,
                              stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})}, check=False)
        self.assertIsNone(SANITIZER_REPORT.search(done.stderr), done.stderr)
        return done

    def config(self, tier, extra=None, name="probe"):
        """A good configuration of one more process of the running cluster."""
        cluster = self.cluster
        cluster.gateway_extra = cluster.shard_extra = {"log": {"level": "info"}, **(extra or {})}
        config = cluster.gateway_config(f"{tier}-{name}") if tier == "gateway" else cluster.shard_config(f"{tier}-{name}")
        cluster.gateway_extra = cluster.shard_extra = {}
        return config

    def write(self, tier, extra=None, name="probe"):
        return self.cluster.write_config(f"{tier}-{name}", self.config(tier, extra, name))

    def refused(self, tier, path, *texts, status=USAGE, args=()):
        """Ends at once with this status and says all of `texts`."""
        done = self.run_program(tier, "--config", path, *args)
        self.assertEqual(done.returncode, status, done.stderr)
        for text in texts:
            self.assertIn(text, done.stderr)
        return done.stderr

    def test_help_and_unknown_options(self):
        for tier in TIERS:
            done = self.run_program(tier, "--help")
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            for option in ("--config", "--check-config", "--print-config", "--set"):
                self.assertIn(option, done.stdout)
            done = self.run_program(tier, "--no-such-option")
            self.assertEqual(done.returncode, USAGE)
            self.assertIn("--no-such-option", done.stderr)

    def test_no_configuration_says_which_keys_are_missing(self):
        for tier in TIERS:
            done = self.run_program(tier)
            self.assertEqual(done.returncode, USAGE, done.stderr)
            for key in ("cluster.secret", "cluster.placement_seed"):
                self.assertIn(key, done.stderr)

    def test_a_file_that_is_not_there(self):
        for tier in TIERS:
            self.refused(tier, "/nonexistent/signalbox.conf", "/nonexistent/signalbox.conf", "No such file")

    def test_print_config_loads_as_it_is(self):
        for tier in TIERS:
            printed = self.run_program(tier, "--print-config")
            self.assertEqual((printed.returncode, printed.stderr), (0, ""))
            path = self.cluster.directory / f"{tier}-printed.conf"
            path.write_text(printed.stdout)
            good = self.config(tier)
            sets = ["--set", f"cluster.secret={self.cluster.secret}", "--set", f"cluster.placement_seed={self.cluster.seed}"]
            if tier == "gateway":
                # The one thing that has no default and that --set cannot say.
                path.write_text(printed.stdout + f"\nkeys = {libconfig(good['keys'])};\n" if "\nkeys" not in printed.stdout
                                else printed.stdout.replace("keys = ( );", f"keys = {libconfig(good['keys'])};"))
                sets += ["--set", f"tls.certificate_file={self.cluster.directory}/server.pem",
                         "--set", f"tls.key_file={self.cluster.directory}/server.key"]
            done = self.run_program(tier, "--config", path, "--check-config", *sets)
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_check_config_reports_every_problem_with_file_and_line(self):
        for tier in TIERS:
            path = self.cluster.directory / f"{tier}-wrong.conf"
            lines = ['node = { id = "Not An Id!"; };', 'nats = { servers = "nats://127.0.0.1"; stream_replicas = 77; };',
                     'log = { level = "loud"; format = "text"; };', 'admin = { listn = "127.0.0.1:1"; };',
                     'cluster = { secret = "0123456789012345678901234567890123"; placement_seed = 5; };']
            path.write_text("\n".join(lines) + "\n")
            done = self.run_program(tier, "--config", path, "--check-config")
            self.assertEqual(done.returncode, USAGE, done.stderr)
            for line, what in ((2, "nats.servers"), (2, "nats.stream_replicas"), (3, "log.level"), (4, "admin.listn"),
                               (5, "cluster.placement_seed")):
                self.assertRegex(done.stderr, rf"{path}:{line}:.*{what}", done.stderr)
            # Beyond types, once the types are right.
            path.write_text('node = { id = "Not An Id!"; };\ncluster = { secret = "short"; placement_seed = "xyz"; };\n')
            done = self.run_program(tier, "--config", path, "--check-config")
            self.assertEqual(done.returncode, USAGE, done.stderr)
            for line, what in ((1, "node.id"), (2, "cluster.secret"), (2, "cluster.placement_seed")):
                self.assertRegex(done.stderr, rf"{path}:{line}:.*{what}", done.stderr)

    def test_check_config_of_a_good_file_is_silent(self):
        for tier in TIERS:
            done = self.run_program(tier, "--config", self.write(tier), "--check-config")
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_syntax_errors_name_file_and_line(self):
        for tier in TIERS:
            path = self.cluster.directory / f"{tier}-syntax.conf"
            path.write_text('node = {\n  id = "x";\n  region = = "y";\n};\n')
            self.refused(tier, path, f"{path}:3")

    def test_a_missing_environment_variable_is_named(self):
        for tier in TIERS:
            path = self.write(tier, {"cluster": {"secret": "${SIGNALBOX_TEST_UNSET}"}})
            self.refused(tier, path, "SIGNALBOX_TEST_UNSET")

    def test_wrong_gateway_values(self):
        cases = {
            "no keys": ({"keys": ()}, "keys"),
            "a short secret": ({"keys": ({"key": "k", "secret": "short"},)}, "32"),
            "two keys of one name": ({"keys": ({"key": "k", "secret": "s" * 32}, {"key": "k", "secret": "t" * 32})}, "k"),
            "no certificate": ({"tls": {"certificate_file": ""}}, "tls.certificate_file"),
            "a bad origin": ({"client": {"allowed_origins": ["app.example.com"]}}, "app.example.com"),
            "a bad listen address": ({"client": {"listen": "nowhere"}}, "nowhere"),
            "a bad proxy": ({"proxy": {"trusted": ["10.0.0.0/99"]}}, "10.0.0.0/99"),
            "PROXY without trusted proxies": ({"proxy": {"protocol": True}}, "proxy.trusted"),
            "pings slower than the window": ({"limits": {"resume_window_ms": 9000}}, "client.ping_interval_ms"),
            "a send larger than a message": ({"limits": {"send_bytes": 65536}}, "limits.send_bytes"),
            "a JWKS file that is not there": ({"jwks": ({"file": "/nonexistent/jwks.json"},)}, "/nonexistent/jwks.json"),
        }
        for name, (extra, text) in cases.items():
            with self.subTest(name):
                done = self.run_program("gateway", "--config", self.write("gateway", extra))
                self.assertIn(done.returncode, (FAILED, USAGE), done.stderr)
                self.assertIn(text, done.stderr)

    def test_ports_in_use(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            for tier in TIERS:
                path = self.write(tier, {"admin": {"listen": address}})
                self.refused(tier, path, address, "address already in use", "admin.listen", status=FAILED)
            path = self.write("gateway", {"client": {"listen": address}})
            self.refused("gateway", path, address, "address already in use", "client.listen", status=FAILED)

    def test_certificates_and_keys_that_cannot_be_used(self):
        directory = self.cluster.directory
        broken, other = directory / "broken.pem", directory / "other.key"
        broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        subprocess.run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", other], check=True,
                       capture_output=True)
        for name, tls, text in (("a key that is not there", {"key_file": "/nonexistent/server.key"}, "/nonexistent/server.key"),
                                ("a key that is a directory", {"key_file": str(directory)}, str(directory)),
                                ("a certificate that is not there", {"certificate_file": "/nonexistent/x.pem"}, "/nonexistent/x.pem"),
                                ("a broken certificate", {"certificate_file": str(broken)}, str(broken)),
                                ("a key of another certificate", {"key_file": str(other)}, str(other))):
            with self.subTest(name):
                path = self.write("gateway", {"tls": tls})
                self.refused("gateway", path, text, "tls.", status=FAILED)

    def test_an_unreadable_key(self):
        key = self.cluster.directory / "unreadable.key"
        key.write_text((self.cluster.directory / "server.key").read_text())
        key.chmod(0)
        path = self.write("gateway", {"tls": {"key_file": str(key)}})
        # root reads everything, unless it has laid that down.
        lay_down = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"] if os.geteuid() == 0 else []
        done = subprocess.run([*lay_down, SANITIZED / "gateway/signalbox-gateway", "--config", path], capture_output=True, text=True,
                              timeout=60, check=False)
        self.assertEqual(done.returncode, FAILED, done.stderr)
        self.assertIn(str(key), done.stderr)
        self.assertIn("tls.key_file", done.stderr)

    def test_nats_unreachable_is_up_but_not_ready(self):
        for tier in TIERS:
            port = free_port()
            path = self.write(tier, {"nats": {"servers": [f"nats://127.0.0.1:{port}"]}}, "lonely")
            process = Process(f"{tier}-lonely", [SANITIZED / tier / f"signalbox-{tier}", "--config", path], self.cluster.directory,
                              self.cluster.admin_ports[f"{tier}-lonely"])
            base = f"http://127.0.0.1:{process.admin_port}"
            wait_for(lambda: f"127.0.0.1:{port}" in process.log(), "a line that names the NATS server")
            self.assertEqual(http_get(f"{base}/healthz")[0], 200)
            status, text = http_get(f"{base}/readyz")
            self.assertEqual(status, 503)
            self.assertIn("NATS", text)
            self.assertEqual(process.metric("signalbox_bus_up"), 0)
            process.signal(15)
            process.wait()
            self.assertIn(process.popen.returncode, (0, FAILED))
            self.assertIsNone(process.problems(process.popen.returncode))

    def test_nats_refusing_ends_with_a_reason(self):
        port = free_port()
        conf = self.cluster.directory / "nats-auth.conf"
        conf.write_text('authorization { user: "signalbox", password: "right" }\njetstream {}\n')
        nats = Process("nats-auth", ["nats-server", "-c", conf, "-a", "127.0.0.1", "-p", port, "-sd", self.cluster.directory / "nats-auth"],
                       self.cluster.directory)
        try:
            wait_for(lambda: "Server is ready" in nats.log(), "nats-server")
            for tier in TIERS:
                for name, extra in (("a wrong password", {"user": "signalbox", "password": "wrong"}), ("no user", {})):
                    with self.subTest(f"{tier}, {name}"):
                        path = self.write(tier, {"nats": {"servers": [f"nats://127.0.0.1:{port}"], **extra}}, "refused")
                        text = self.refused(tier, path, f"127.0.0.1:{port}", "nats.user", status=FAILED)
                        self.assertRegex(text.lower(), "authoriz|refuse")
        finally:
            nats.popen.terminate()
            nats.wait()

    def test_a_reload_with_problems_changes_nothing(self):
        gateway = self.cluster.gateway()
        path = self.cluster.directory / "gateway-1.conf"
        good = path.read_text()
        try:
            path.write_text(good.replace("tls =", "tlss ="))
            gateway.signal(1)
            wait_for(lambda: "reload_failed" in gateway.log(), "the reload to fail")
            self.assertIn("tlss", gateway.log())
        finally:
            path.write_text(good)
        self.assertEqual(http_get(f"http://127.0.0.1:{gateway.admin_port}/readyz")[0], 200)
