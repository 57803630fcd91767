"""deploy/systemd: units that systemd understands, hardened, and whose commands the programs accept."""

import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import unittest

import nats_cluster as cluster

ROOT = pathlib.Path(os.environ.get("SIGNALBOX_ROOT", pathlib.Path(__file__).parents[2]))
BUILD = pathlib.Path(os.environ.get("SIGNALBOX_BUILD", ROOT / "build"))
UNITS = ROOT / "deploy" / "systemd"
KINDS = ("gateway", "shard")
EXPOSURE_MAX = 20  # of 100, by systemd's own reckoning


class SystemdTest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="signalbox-deploy-")
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)
        for kind in KINDS:
            unit = (UNITS / f"signalbox-{kind}@.service").read_text()
            (self.directory / f"signalbox-{kind}@.service").write_text(unit.replace("/usr/bin/", f"{BUILD / kind}/"))
        shutil.copy(UNITS / "signalbox.target", self.directory)

    def analyze(self, *args):
        return subprocess.run(["systemd-analyze", *args], cwd=self.directory, capture_output=True, text=True)

    @unittest.skipUnless(shutil.which("systemd-analyze"), "needs systemd-analyze")
    def test_units_are_understood_and_hardened(self):
        for kind in KINDS:
            unit = f"./signalbox-{kind}@1.service"
            done = self.analyze("verify", "--man=no", unit, "./signalbox.target")
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            done = self.analyze("security", "--offline=yes", f"--threshold={EXPOSURE_MAX}", unit)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_programs_accept_the_units_commands(self):
        certificate = self.directory / "server"
        certificate.touch()
        environment = {name: "5" * 32 for name in ("CLUSTER_SECRET", "CLUSTER_PLACEMENT_SEED", "API_SECRET",
                                                   "NATS_GATEWAY_PASSWORD", "NATS_SHARD_PASSWORD")}
        for kind in KINDS:
            unit = (self.directory / f"signalbox-{kind}@.service").read_text()
            config = re.sub(r'"/etc/signalbox/tls/[^"]*"', f'"{certificate}"', (UNITS / f"{kind}.conf").read_text())
            (self.directory / f"{kind}.conf").write_text(config)
            command = shlex.split(re.search(r"^ExecStart=(.*)", unit, re.MULTILINE)[1].replace("%i", "1"))
            command = [word.replace("/etc/signalbox", str(self.directory)) for word in command]
            done = subprocess.run([*command, "--check-config"], env={**os.environ, **environment}, capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_the_manager_hears_of_readiness_reloads_and_the_end(self):
        """As with Type=notify and WatchdogSec=: a shard tells a socket what a service manager acts on."""
        nats = cluster.NatsServer(self.directory, "single.conf")
        self.addCleanup(nats.stop)
        nats.wait_ready()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            path = str(self.directory / "notify")
            manager.bind(path)
            manager.settimeout(cluster.TIMEOUT_S)

            def hear(wanted):
                """Everything up to the first message with `wanted`."""
                heard = []
                while not heard or wanted not in heard[-1]:
                    heard.append(manager.recv(4096).decode())
                return heard

            environment = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "400000"}
            shard = cluster.Member(self.directory, "shard", 1, [f"nats://127.0.0.1:{nats.port}"], environment=environment)
            self.addCleanup(shard.stop)
            before = hear("READY=1")
            self.assertIn("STATUS=not ", "".join(before))
            self.assertEqual(shard.get("/readyz")[0], 200)
            hear("WATCHDOG=1")
            config = self.directory / "shard-1.conf"
            config.write_text(config.read_text() + 'log = { level = "debug"; };')
            shard.process.send_signal(signal.SIGHUP)
            hear("RELOADING=1")
            hear("READY=1")
            self.assertIn("reloaded", shard.log())
            shard.process.terminate()
            hear("STOPPING=1")
            self.assertEqual(shard.process.wait(cluster.TIMEOUT_S), 0, shard.log())

    def test_stopping_waits_for_the_drain(self):
        for kind, key in (("gateway", "deadline_ms"), ("shard", "drain_deadline_ms")):
            unit = (UNITS / f"signalbox-{kind}@.service").read_text()
            defaults = subprocess.run([BUILD / kind / f"signalbox-{kind}", "--print-config"], capture_output=True, text=True)
            deadline_s = int(re.search(rf"^ *{key} = (\d+)", defaults.stdout, re.MULTILINE)[1]) / 1000
            self.assertGreater(int(re.search(r"^TimeoutStopSec=(\d+)s", unit, re.MULTILINE)[1]), deadline_s)


if __name__ == "__main__":
    unittest.main()
