"""A rolling upgrade under load: every process of a cluster is replaced, one after the other, by a build whose bus messages
and view entries have the next schema version; then back again, as after a bad release."""

import pathlib
import subprocess
import tempfile
import unittest

import nats_cluster as cluster
from swarm import Swarm, broken_promises

PEOPLE = 60
NEXT_BUILD = cluster.BUILD / "next"


def build_next():
    """The same sources, one schema version on."""
    if not (NEXT_BUILD / "build.ninja").exists():
        subprocess.run(["meson", "setup", NEXT_BUILD, cluster.ROOT, "-Dschema_raise=1", "-Dtests=false"], check=True,
                       capture_output=True)
    subprocess.run(["ninja", "-C", NEXT_BUILD], check=True, capture_output=True)


class UpgradeTest(unittest.TestCase):
    def setUp(self):
        build_next()
        directory = tempfile.TemporaryDirectory(prefix="signalbox-deploy-")
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)
        cluster.make_certificates(self.directory)
        self.nats = cluster.NatsServer(self.directory, "single.conf")
        self.addCleanup(self.nats.stop)
        self.nats.wait_ready()
        self.members = {}
        for kind, number in (("shard", 1), ("shard", 2), ("shard", 3), ("gateway", 1), ("gateway", 2)):
            self.start(kind, number, cluster.BUILD)
        for member in self.members.values():
            member.wait_ready()

    def start(self, kind, number, build, port=None):
        member = cluster.Member(self.directory, kind, number, [f"nats://127.0.0.1:{self.nats.port}"], build=build, port=port,
                                certificates=self.directory)
        self.addCleanup(member.stop)
        self.members[kind, number] = member
        return member

    def replace(self, kind, number, build):
        """As an orchestrator does: the old one drains and ends, the new one is ready before the next goes."""
        old = self.members[kind, number]
        old.process.terminate()
        self.assertEqual(old.process.wait(90), 0, old.log()[-3000:])
        self.dropped += self.refused_versions(old.log())
        new = self.start(kind, number, build, old.client_port)
        new.wait_ready()
        self.assertTrue(str((pathlib.Path("/proc") / str(new.process.pid) / "exe").readlink()).startswith(str(build)))

    @staticmethod
    def refused_versions(log):
        return log.count("schema_version=")

    def counter(self, member, series):
        status, page = member.get("/metrics")
        self.assertEqual(status, 200)
        return next(float(line.split()[-1]) for line in page.splitlines() if line.startswith(series + " "))

    def test_each_process_by_the_next_version_and_back(self):
        self.dropped = 0
        urls = [f"wss://127.0.0.1:{self.members['gateway', number].client_port}" for number in (1, 2)]
        swarm = Swarm(self.directory, PEOPLE, urls, "--join-rate", "40")
        self.addCleanup(swarm.stop)
        swarm.wait_holds()
        for build in (NEXT_BUILD, cluster.BUILD):
            for kind, number in list(self.members):
                self.replace(kind, number, build)
        result = swarm.finish()
        counters = result["counters"]
        self.assertEqual(broken_promises(result), {}, swarm.output())
        self.assertGreaterEqual(counters["resumes"], PEOPLE)  # gateways were replaced, twice each
        self.assertGreater(counters["directed_delivered"], PEOPLE)
        for member in self.members.values():
            self.assertEqual(self.counter(member, 'signalbox_bus_messages_dropped_total{reason="schema"}'), 0, member.name)
        self.assertEqual(self.dropped, 0)


if __name__ == "__main__":
    unittest.main()
