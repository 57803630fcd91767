"""deploy/helm/signalbox in the hands of a real Kubernetes API server: every object of every set of values is applied, the releases are
installed, changed and taken away by Helm, and the namespace admits nothing but pod security "restricted". There are no nodes:
nothing runs. Slow, because the server is compiled first; scripts/test deploy --all has it."""

import copy
import os
import pathlib
import re
import tempfile
import unittest

import chart_tools as chart

try:
    import apiserver
    from test_chart import VALUE_SETS, WORKLOADS
except ImportError as missing:
    raise unittest.SkipTest(f"{missing}; scripts/test deploy installs it") from missing

NAMESPACE = "calls"
LEVELS = {f"pod-security.kubernetes.io/{what}": "restricted" for what in ("enforce", "warn", "audit")}


@unittest.skipUnless(os.environ.get("SIGNALBOX_TEST_ALL"), "compiles kube-apiserver: with --all")
class ApiServerTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory(prefix="signalbox-deploy-")
        cls.addClassCleanup(directory.cleanup)
        cls.server = apiserver.ApiServer(pathlib.Path(directory.name))
        cls.addClassCleanup(cls.server.stop)
        cls.server.start()
        cls.server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": LEVELS}})
        for kind in chart.DEFINITIONS:
            definition = chart.definition_of(kind)
            cls.server.apply(definition)
            cls.server.wait_serves(definition["spec"])

    def helm(self, *args):
        status, output, error = chart.helm(*args, "--namespace", NAMESPACE, "--kubeconfig", self.server.kubeconfig())
        self.assertEqual(status, 0, output + error)
        self.assertNotIn("would violate", error)
        return output

    def pod_of(self, workload):
        """What a controller would make of it."""
        template = workload["spec"]["template"]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {**template["metadata"], "name": f"{workload['metadata']['name']}-0"},
               "spec": copy.deepcopy(template["spec"])}
        for claim in workload["spec"].get("volumeClaimTemplates", []):
            pod["spec"]["volumes"].append({"name": claim["metadata"]["name"], "persistentVolumeClaim": {"claimName": "data-0"}})
        return pod

    def test_every_object_is_accepted(self):
        for name, args in VALUE_SETS.items():
            with self.subTest(values=name):
                self.server.warnings.clear()
                for each in chart.render(*args):
                    self.server.apply(each, NAMESPACE, dry_run=True)
                self.assertEqual(self.server.warnings, [])

    def test_pods_are_admitted_where_only_restricted_ones_are(self):
        for name, args in VALUE_SETS.items():
            with self.subTest(values=name):
                objects = chart.render(*args, release="admitted")  # a name that Helm does not come upon
                self.server.apply(chart.of_kind(objects, "ServiceAccount")[0], NAMESPACE)
                for workload in chart.of_kind(objects, *WORKLOADS):
                    pod = self.pod_of(workload)
                    self.server.apply(pod, NAMESPACE, dry_run=True)
                    # It can refuse: the same pod, a little less restricted.
                    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
                    with self.assertRaisesRegex(apiserver.Refused, "violates PodSecurity"):
                        self.server.apply(pod, NAMESPACE, dry_run=True)

    def test_unknown_fields_are_refused(self):
        deployment = chart.of_kind(chart.render(), "Deployment")[0]
        deployment["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
        with self.assertRaisesRegex(apiserver.Refused, "livenesProbe"):
            self.server.apply(deployment, NAMESPACE, dry_run=True)

    def test_releases_are_installed_changed_and_taken_away(self):
        for name, args in VALUE_SETS.items():
            with self.subTest(values=name):
                self.helm("install", "first", chart.CHART, "--dry-run=server", *args)
                notes = self.helm("install", "test", chart.CHART, *args)
                self.assertIn("release test in namespace calls", notes)
                named = set(re.findall(r"(?:statefulset/|deployment/|get service |in ConfigMap )([\w-]+)", notes))
                self.assertGreaterEqual(len(named), 2, notes)
                self.assertLessEqual(named, {each["metadata"]["name"] for each in chart.render(*args)})
                self.helm("upgrade", "test", chart.CHART, *args, "--set", "log.level=debug,gateway.maxConnections=1000")
                self.helm("uninstall", "test")
        # From one set to another, NATS moving in and out: what cannot be changed in place would be refused.
        self.helm("install", "test", chart.CHART, *VALUE_SETS["default"])
        for name in ("small", "production", "own-nats"):
            self.helm("upgrade", "test", chart.CHART, *VALUE_SETS[name], "--reset-values")
        self.helm("uninstall", "test")


if __name__ == "__main__":
    unittest.main()
