"""Every query of the dashboard, of the alerts and of the autoscalers, asked of a real Prometheus that watches a real
cluster with people in it: what asks for a metric or a label that does not exist gets no answer."""

import pathlib
import subprocess
import tempfile
import unittest

import chart_tools as chart
import dashboard
import nats_cluster as cluster
from prometheus import Prometheus

try:
    import yaml
except ImportError as missing:
    raise unittest.SkipTest(f"{missing}; scripts/test deploy installs it") from missing


class QueriesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory(prefix="signalbox-deploy-")
        cls.addClassCleanup(directory.cleanup)
        cls.directory = pathlib.Path(directory.name)
        cls.rendered = chart.render("-f", chart.CHART / "values-production.yaml")
        cls.rules = next(each["spec"] for each in cls.rendered if each["kind"] == "PrometheusRule")
        nats = cls.start(cluster.NatsServer, "single.conf")
        nats.wait_ready()
        server = [f"nats://127.0.0.1:{nats.port}"]
        cls.gateways = [cls.start(cluster.Member, "gateway", i, server) for i in (1, 2)]
        cls.shards = [cls.start(cluster.Member, "shard", i, server) for i in (1, 2)]
        for member in cls.gateways + cls.shards:
            member.wait_ready()
        cls.start_prometheus()

    @classmethod
    def start(cls, make, *args, **kwargs):
        process = make(cls.directory, *args, **kwargs)
        cls.addClassCleanup(process.stop)
        return process

    @classmethod
    def start_prometheus(cls):
        """With the labels that the chart's ServiceMonitors give."""
        members = [{"targets": [f"127.0.0.1:{member.admin_port}"],
                    "labels": {"namespace": "calls", "pod": f"test-signalbox-{member.name}"}}
                   for member in cls.gateways + cls.shards]
        config = {"global": {"scrape_interval": "500ms", "evaluation_interval": "1s"},
                  "scrape_configs": [{"job_name": "signalbox", "static_configs": members}]}
        (cls.directory / "rules.yaml").write_text(yaml.safe_dump(cls.rules))
        config["rule_files"] = ["rules.yaml"]
        (cls.directory / "prometheus.yaml").write_text(yaml.safe_dump(config))
        cls.prometheus = Prometheus(cluster.free_port())
        cls.start(cluster.Process, "prometheus",
                  [chart.promtool_path().with_name("prometheus"), f"--config.file={cls.directory}/prometheus.yaml",
                   f"--storage.tsdb.path={cls.directory}/tsdb", f"--web.listen-address=127.0.0.1:{cls.prometheus.port}"])
        cluster.wait_for("every target is scraped", lambda: cls.prometheus.ask("sum(up)") == [4.0])

    def people_come_and_go(self):
        for i, gateway in enumerate(self.gateways):
            status, token = cluster.ctl("token", "--key", cluster.API_KEY, "--secret", cluster.API_SECRET, "--room", "demo",
                                        "--identity", f"guest-{i}")
            self.assertEqual(status, 0, token)
            client = cluster.JsonClient(gateway.client_port)
            client.send({"hello": {"token": token.strip(), "join": {"room": "demo"}}})
            resume_token = client.receive_until("helloOk")["resumeToken"]
            client.close()
            client = cluster.JsonClient(gateway.client_port)
            client.send({"hello": {"resumeToken": resume_token}})
            client.receive_until("helloOk")
            client.close()

    def assert_answered(self, queries):
        """Each has an answer that is a number within a while, as people come and go."""
        missing = dict(queries)

        def all_answered():
            self.people_come_and_go()
            for name, query in list(missing.items()):
                values = self.prometheus.ask(query)
                if values and any(value == value for value in values):
                    del missing[name]
            return not missing
        try:
            cluster.wait_for("answers", all_answered)
        except TimeoutError:
            self.fail("no answer to:\n" + "\n".join(f"{name}: {query}" for name, query in missing.items()))

    def test_metrics_keep_to_the_conventions(self):
        self.people_come_and_go()
        for member in (self.gateways[0], self.shards[0]):
            status, page = member.get("/metrics")
            self.assertEqual(status, 200)
            done = subprocess.run([chart.promtool_path(), "check", "metrics"], input=page, capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stderr), (0, ""), member.name)
        done = subprocess.run([chart.promtool_path(), "check", "metrics"], input="bad_total{a=\"1\"} 1\n# TYPE Bad gauge\n",
                              capture_output=True, text=True)
        self.assertNotEqual(done.returncode, 0)

    def test_dashboard(self):
        queries = {f"{title} {name}": query for title, questions in dashboard.panels() for name, query in questions}
        self.assertGreater(len(queries), 25)
        self.assertEqual(self.prometheus.ask("no_such_metric"), [])
        self.assert_answered(queries)

    def test_alerts_and_autoscalers(self):
        queries = {}
        for group in self.rules["groups"]:
            for rule in group["rules"]:
                if not rule["expr"].startswith("absent("):
                    queries[f"{rule['alert']} {rule['labels']['severity']}"] = dashboard.bare(rule["expr"])
        for config in self.rendered:
            if config["kind"] == "ConfigMap" and "config.yaml" in config["data"]:
                for rule in yaml.safe_load(config["data"]["config.yaml"])["externalRules"]:
                    queries[rule["seriesQuery"]] = rule["seriesQuery"]
                    queries[rule["name"]["as"]] = dashboard.bare(rule["metricsQuery"])
        self.assertGreater(len(queries), 14)
        self.assert_answered(queries)
        cluster.wait_for("rules are evaluated", lambda: all(rule["health"] == "ok" for rule in self.prometheus.rules()))
        rules = self.prometheus.rules()
        self.assertEqual(len(rules), sum(len(group["rules"]) for group in self.rules["groups"]))
        # The people above come and go: nothing is wrong with the cluster.
        self.assertEqual([rule["name"] for rule in rules if rule["state"] == "firing"], [])


if __name__ == "__main__":
    unittest.main()
