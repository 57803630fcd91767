"""What an orchestrator asks of a process: liveness, which is the process's own, and readiness, which says whether to send people to it."""

import pathlib
import signal
import tempfile
import unittest

import nats_cluster as cluster


class HealthTest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="signalbox-deploy-")
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)

    def start(self, make, *args, **kwargs):
        process = make(self.directory, *args, **kwargs)
        self.addCleanup(process.stop)
        return process

    def test_from_the_start_to_the_end(self):
        nats_port = cluster.free_port()
        members = [self.start(cluster.Member, kind, number, [f"nats://127.0.0.1:{nats_port}"])
                   for kind, number in (("gateway", 1), ("gateway", 2), ("shard", 1))]
        gateway = members[0]
        for member in members:
            cluster.wait_for(f"{member.name} lives", lambda member=member: member.get("/healthz")[0] == 200)
            status, reason = member.get("/readyz")
            self.assertEqual(status, 503)
            self.assertIn("not connected to NATS", reason)
        nats = self.start(cluster.NatsServer, "single.conf", port=nats_port)
        for member in members:
            member.wait_ready()

        status, token = cluster.ctl("token", "--key", cluster.API_KEY, "--secret", cluster.API_SECRET, "--room", "demo",
                                    "--identity", "ann")
        self.assertEqual(status, 0, token)
        client = cluster.JsonClient(gateway.client_port)
        self.addCleanup(client.close)
        client.send({"hello": {"token": token.strip(), "join": {"room": "demo"}}})
        client.receive_until("helloOk")

        # Without NATS nobody is sent elsewhere or started again: it would be the same there.
        nats.stop()
        for member in members:
            cluster.wait_for(f"{member.name} misses NATS", lambda member=member: "\nsignalbox_bus_up 0" in member.get("/metrics")[1])
            self.assertEqual((member.get("/healthz")[0], member.get("/readyz")[0]), (200, 200), member.name)
        nats = self.start(cluster.NatsServer, "single.conf", port=nats_port)
        for member in members:
            cluster.wait_for(f"{member.name} has NATS", lambda member=member: "\nsignalbox_bus_up 1" in member.get("/metrics")[1])

        # A drain is told first, and done then.
        gateway.process.send_signal(signal.SIGTERM)
        cluster.wait_for("drain", lambda: gateway.get("/readyz") != (200, "ready\n"))
        status, reason = gateway.get("/readyz")
        self.assertEqual((status, gateway.get("/healthz")[0]), (503, 200))
        self.assertIn("draining", reason)
        self.assertIn("\nactive_websocket_connections 1", gateway.get("/metrics")[1])
        client.receive_until("reconnect")
        client.close()
        self.assertEqual(gateway.process.wait(cluster.TIMEOUT_S), 0, gateway.log())


if __name__ == "__main__":
    unittest.main()
