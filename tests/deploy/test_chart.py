"""deploy/helm/signalbox: well-formed, strict, safe, and about metrics and settings that exist."""

import functools
import json
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

import chart_tools as chart
import dashboard
from chart_tools import of_kind

try:
    import jsonschema
    import kubernetes_validate
    import yaml
except ImportError as missing:
    raise unittest.SkipTest(f"{missing}; scripts/test deploy installs it") from missing

VALUE_SETS = {
    "default": [],
    "small": ["-f", chart.CHART / "values-small.yaml"],
    "dense": ["-f", chart.CHART / "values-dense.yaml"],
    "production": ["-f", chart.CHART / "values-production.yaml"],
    "keda": ["-f", chart.CHART / "values-production.yaml", "--set", "metricsSource.kind=keda"],
    "ingress": ["--set", "ingress.enabled=true,gateway.tls.enabled=false,service.type=ClusterIP",
                "--set", "gateway.trustedProxies={10.0.0.0/8}"],
    "own-nats": ["-f", chart.CHART / "values-production.yaml", "--set", "nats.enabled=true,nats.tls.secretName=nats-tls",
                 "--set", "nats.storage.className=fast,nats.replicas=5"],
    "fixed": ["--set", "gateway.autoscaling.enabled=false,shard.autoscaling.enabled=false,networkPolicy.enabled=false",
              "--set", "gateway.limits.tracks=4,shard.limits.rooms=1000,cluster.previousSecretKey=old-secret"],
}
KUBERNETES_VERSIONS = ("1.27", "1.31")
MOUNTED = {"tls": ("tls.crt", "tls.key"), "nats-ca": ("ca.crt",)}  # files of the Secrets
WORKLOADS = ("Deployment", "StatefulSet")


def tiers(objects):
    """Workloads of Signalbox's own programs: all but NATS."""
    return [workload for workload in of_kind(objects, *WORKLOADS) if not workload["metadata"]["name"].endswith("-nats")]


def queries(objects):
    """Every PromQL expression of the chart, with where it stands."""
    for rule in of_kind(objects, "PrometheusRule"):
        for group in rule["spec"]["groups"]:
            for alert in group["rules"]:
                yield alert["alert"], alert["expr"]
    for scaled in of_kind(objects, "ScaledObject"):
        for trigger in scaled["spec"]["triggers"]:
            if "query" in trigger["metadata"]:
                yield scaled["metadata"]["name"], trigger["metadata"]["query"]
    for config in of_kind(objects, "ConfigMap"):
        if "config.yaml" in config["data"]:
            for rule in yaml.safe_load(config["data"]["config.yaml"])["externalRules"]:
                yield rule["name"]["as"], rule["metricsQuery"]


def for_each_value_set(test):
    """`test(self, objects)` becomes a test of what every set of values renders to."""
    @functools.wraps(test)
    def run(self):
        for name, objects in self.rendered.items():
            with self.subTest(values=name):
                test(self, objects)
    return run


class ChartTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.rendered = {name: chart.render(*args) for name, args in VALUE_SETS.items()}

    def test_lint(self):
        for name, args in VALUE_SETS.items():
            with self.subTest(values=name):
                status, output, error = chart.helm("lint", "--strict", "--kube-version", chart.KUBERNETES, chart.CHART, *args)
                self.assertEqual(status, 0, output + error)

    @for_each_value_set
    def test_objects_follow_the_schemas(self, objects):
        for each in objects:
            if each["kind"] in chart.DEFINITIONS:
                jsonschema.validate(each, chart.schema_of(each["kind"]))
                continue
            for version in KUBERNETES_VERSIONS:
                kubernetes_validate.validate(each, version, strict=True)

    def test_the_schemas_refuse_unknown_fields(self):
        objects = self.rendered["production"]
        deployment = of_kind(objects, "Deployment")[0]
        deployment["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(deployment, KUBERNETES_VERSIONS[0], strict=True)
        del deployment["spec"]["template"]["spec"]["containers"][0]["livenesProbe"]
        monitor = {**of_kind(objects, "ServiceMonitor")[0]}
        monitor["spec"] = {**monitor["spec"], "endpoint": []}
        with self.assertRaises(jsonschema.ValidationError):
            jsonschema.validate(monitor, chart.schema_of("ServiceMonitor"))

    @for_each_value_set
    def test_pods_are_restricted(self, objects):
        self.assertEqual(len(tiers(objects)), 2)
        for workload in of_kind(objects, *WORKLOADS):
            pod = workload["spec"]["template"]["spec"]
            self.assertTrue(pod["securityContext"]["runAsNonRoot"])
            self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
            self.assertFalse(pod["automountServiceAccountToken"])
            for volume in pod["volumes"]:
                self.assertTrue(volume.keys() <= {"name", "configMap", "secret", "emptyDir"}, volume)
            for container in pod["containers"]:
                security = container["securityContext"]
                self.assertFalse(security["allowPrivilegeEscalation"])
                self.assertTrue(security["readOnlyRootFilesystem"])
                self.assertEqual(security["capabilities"], {"drop": ["ALL"]})
                for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                    self.assertIn(probe, container)
                for amount in ("cpu", "memory"):
                    self.assertIn(amount, container["resources"]["requests"])
                    self.assertIn(amount, container["resources"]["limits"])

    @for_each_value_set
    def test_everything_selects_what_is_there(self, objects):
        """Disruption budgets, services, policies and autoscalers of every tier name pods that exist."""
        pods = [workload["spec"]["template"]["metadata"]["labels"] for workload in of_kind(objects, *WORKLOADS)]
        names = {(workload["kind"], workload["metadata"]["name"]) for workload in of_kind(objects, *WORKLOADS)}
        self.assertEqual(len(of_kind(objects, "PodDisruptionBudget")), len(names))
        self.assertIn(len(of_kind(objects, "NetworkPolicy")), (0, len(names)))
        for kind in ("PodDisruptionBudget", "Service", "NetworkPolicy"):
            for each in of_kind(objects, kind):
                spec = each["spec"]
                selector = spec.get("podSelector", spec["selector"] if "selector" in spec else None)
                selector = selector.get("matchLabels", selector)
                self.assertEqual(sum(selector.items() <= labels.items() for labels in pods), 1, each)
        for scaler in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject"):
            target = scaler["spec"]["scaleTargetRef"]
            self.assertIn((target["kind"], target["name"]), names)
        services = [service["metadata"]["labels"] for service in of_kind(objects, "Service")]
        for monitor in of_kind(objects, "ServiceMonitor"):
            selector = monitor["spec"]["selector"]["matchLabels"]
            self.assertEqual(sum(selector.items() <= labels.items() for labels in services), 1, monitor)

    def test_nats_is_kept_apart_and_for_signalbox_alone(self):
        for name in ("small", "own-nats"):
            policies = {each["metadata"]["name"].rsplit("-", 1)[1]: each["spec"]
                        for each in of_kind(self.rendered[name], "NetworkPolicy")}
            callers = {rule["ports"][0]["port"]: {peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
                                                  for peer in rule["from"]} for rule in policies["nats"]["ingress"]}
            self.assertEqual(callers, {4222: {"gateway", "shard", "tool"}, 6222: {"nats"}})
            for tier in ("gateway", "shard"):
                rule = next(rule for rule in policies[tier]["egress"] if rule["ports"][0]["port"] == 4222)
                self.assertEqual([peer["podSelector"] for peer in rule["to"]], [policies["nats"]["podSelector"]])
        for name, kind in (("small", "preferred"), ("own-nats", "required")):
            nats = next(each for each in of_kind(self.rendered[name], "StatefulSet") if each not in tiers(self.rendered[name]))
            self.assertEqual([key for key in nats["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"]],
                             [f"{kind}DuringSchedulingIgnoredDuringExecution"])
            budget = next(each["spec"] for each in of_kind(self.rendered[name], "PodDisruptionBudget")
                          if each["metadata"]["name"] == nats["metadata"]["name"])
            self.assertEqual(budget["maxUnavailable"], 1)
        for name in ("default", "dense", "production"):  # theirs is elsewhere
            self.assertEqual(of_kind(self.rendered[name], *WORKLOADS), tiers(self.rendered[name]))

    @for_each_value_set
    def test_draining_fits_the_grace_period(self, objects):
        configs = {config["metadata"]["name"]: config["data"] for config in of_kind(objects, "ConfigMap")}
        for workload in tiers(objects):
            pod = workload["spec"]["template"]["spec"]
            text = "".join(configs[workload["metadata"]["name"]].values())
            deadline_s = int(re.search(r"deadline_ms = (\d+)", text)[1]) / 1000
            pre_stop = pod["containers"][0].get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["", 0])
            self.assertGreater(pod["terminationGracePeriodSeconds"], deadline_s + int(pre_stop[1]))

    def test_autoscalers_have_the_design_s_targets(self):
        scalers = {each["metadata"]["name"]: each["spec"] for each in of_kind(self.rendered["default"], "HorizontalPodAutoscaler")}
        self.assertEqual(set(scalers), {"test-signalbox-gateway", "test-signalbox-shard"})
        for spec in scalers.values():
            self.assertEqual((spec["minReplicas"], spec["maxReplicas"]), (8, 64))
            targets = [metric.get("pods", metric.get("resource")) for metric in spec["metrics"] if metric["type"] != "External"]
            self.assertIn({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 65}}, targets)
            self.assertIn({"metric": {"name": "fanout_queue_depth"}, "target": {"type": "AverageValue", "averageValue": "250"}},
                          targets)
        self.assertIn({"type": "Pods", "pods": {"metric": {"name": "active_websocket_connections"},
                                                "target": {"type": "AverageValue", "averageValue": "1700"}}},
                      scalers["test-signalbox-gateway"]["metrics"])
        self.assertEqual({metric["external"]["metric"]["name"]: metric["external"]["target"]
                          for metric in scalers["test-signalbox-gateway"]["metrics"] if metric["type"] == "External"},
                         {"test_signalbox_join_p95_seconds": {"type": "Value", "value": "500m"},
                          "test_signalbox_reconnect_failure_ratio": {"type": "Value", "value": "50m"}})

    def test_adapter_serves_what_autoscalers_ask_for(self):
        objects = self.rendered["default"]
        config = next(yaml.safe_load(each["data"]["config.yaml"]) for each in of_kind(objects, "ConfigMap")
                      if "config.yaml" in each["data"])
        external = {rule["name"]["as"] for rule in config["externalRules"]}
        pods = {rule["seriesQuery"].split("{")[0] for rule in config["rules"]}
        for scaler in of_kind(objects, "HorizontalPodAutoscaler"):
            for metric in scaler["spec"]["metrics"]:
                if metric["type"] == "External":
                    self.assertIn(metric["external"]["metric"]["name"], external)
                elif metric["type"] == "Pods":
                    self.assertIn(metric["pods"]["metric"]["name"], pods)

    def test_queries_are_promql_about_our_metrics(self):
        known = set()
        for tier in ("gateway", "shard"):
            status, output, error = chart.run([chart.BUILD / tier / f"signalbox-{tier}", "--print-metrics"])
            self.assertEqual(status, 0, error)
            known |= set(re.findall(r"^\| `(\w+)`", output, re.MULTILINE))
        rules = []
        for objects in self.rendered.values():
            for name, query in queries(objects):
                rules.append({"record": "test:query", "expr": query, "labels": {"number": str(len(rules))}})
                series = set(re.findall(r"(\w+)\{", query))
                self.assertTrue(series, query)
                for each in series:
                    self.assertIn(re.sub(r"_(bucket|count|sum)$", "", each), known, f"{name}: {query}")
        self.assertGreater(len(rules), 20)
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}, file)
            file.flush()
            status, output, error = chart.run([chart.promtool_path(), "check", "rules", file.name])
        self.assertEqual(status, 0, output + error)

    def test_the_dashboard_can_be_read(self):
        """Each panel has a place of its own, a unit, and says what it shows; Prometheus is the reader's choice."""
        panels = json.loads(dashboard.PATH.read_text())["panels"]
        self.assertEqual(len({panel["id"] for panel in panels}), len(panels))
        taken = set()
        for panel in panels:
            grid = panel["gridPos"]
            self.assertLessEqual(grid["x"] + grid["w"], dashboard.COLUMNS, panel["title"])
            cells = {(x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])}
            self.assertEqual(cells & taken, set(), panel["title"])
            taken |= cells
            if panel["type"] != "row":
                self.assertTrue(panel["description"] and panel["fieldConfig"]["defaults"]["unit"], panel["title"])
                for each in (panel, *panel["targets"]):
                    self.assertEqual(each["datasource"], {"type": "prometheus", "uid": "${datasource}"}, panel["title"])
        self.assertEqual(len(taken), dashboard.COLUMNS * (1 + max(y for _, y in taken)), "there are gaps")

    def test_alerts_say_what_to_do(self):
        rules = of_kind(self.rendered["production"], "PrometheusRule")[0]
        for group in rules["spec"]["groups"]:
            for alert in group["rules"]:
                self.assertIn(alert["labels"]["severity"], ("page", "ticket"))
                for annotation in ("summary", "description", "runbook"):
                    self.assertTrue(alert["annotations"][annotation], alert["alert"])

    @for_each_value_set
    def test_programs_accept_their_configuration(self, objects):
        """As the containers would get it, with each Secret's value in the environment."""
        configs = {config["metadata"]["name"]: config["data"] for config in of_kind(objects, "ConfigMap")}
        for workload in tiers(objects):
            container = workload["spec"]["template"]["spec"]["containers"][0]
            environment = chart.environment_of(container, workload["metadata"]["name"] + "-5d8c7b9f44-x2x9z", lambda key: "5" * 32)
            program, option, path = container["command"]
            with tempfile.TemporaryDirectory() as directory:
                for mount in container["volumeMounts"]:
                    for name in MOUNTED.get(mount["name"], ()):
                        file = pathlib.Path(directory + mount["mountPath"]) / name
                        file.parent.mkdir(parents=True, exist_ok=True)
                        file.touch()
                file = pathlib.Path(directory) / "program.conf"
                text = configs[workload["metadata"]["name"]][pathlib.Path(path).name]
                file.write_text(text.replace('"/etc/', f'"{directory}/etc/'))
                done = subprocess.run([chart.BUILD / container["name"] / program, option, file, "--check-config"],
                                      env={**os.environ, **environment}, capture_output=True, text=True)
                self.assertEqual(done.returncode, 0, done.stderr + file.read_text())

    def test_wrong_values_are_refused(self):
        refused = {
            "gateway.replcas=3": "replcas",
            "gateway.maxConnections=many": "maxConnections",
            "gateway.apiKeys=null": "apiKeys",
            "nats.servers={http://nats:4222}": "servers",
            "metricsSource.kind=influx": "kind",
            "gateway.autoscaling.targets.cpuPercent=650": "cpuPercent",
            "gateway.resources.limits.memory=null": "memory",
            "gateway.drain.spreadSeconds=600": "drain.spreadSeconds",
            "ingress.enabled=true": "gateway.tls.enabled",
            "gateway.autoscaling.minReplicas=65": "minReplicas",
            "nats.enabled=true": "nats.passwordSecretName",
            "nats.enabled=true,nats.passwordSecretName=x,nats.gateway.user=ann": "nats.gateway.user",
            "nats.replicas=2": "replicas",
            "nats.antiAffinity=hard": "antiAffinity",
        }
        for value, named in refused.items():
            with self.subTest(value=value):
                status, _, error = chart.helm("template", "test", chart.CHART, "--kube-version", chart.KUBERNETES, "--set", value)
                self.assertNotEqual(status, 0)
                self.assertIn(named, error)


if __name__ == "__main__":
    unittest.main()
