"""The NATS servers of deploy/helm/signalbox: their rendered configuration in the hands of real servers, and the rendered programs with
them. What Kubernetes gives a pod (names, addresses, Secrets, files) is given here."""

import json
import os
import pathlib
import random
import subprocess
import tempfile
import unittest
import urllib.request

import chart_tools as chart
import nats_cluster as cluster

try:
    import yaml
except ImportError as missing:
    raise unittest.SkipTest(f"{missing}; scripts/test deploy installs it") from missing

RELEASE, NAMESPACE = "test", "calls"
PREFIX = f"{RELEASE}-signalbox"
VALUES = ["-f", chart.CHART / "values-small.yaml", "--set", "gateway.tls.enabled=false,log.format=text"]
RETRANSMISSION_S = 1
WITH_TLS = ["--set", "nats.tls.secretName=nats-tls"]
SECRETS = {"cluster-secret": "s" * 64, "placement-seed": "5" * 32, "api-secret": cluster.API_SECRET,
           **{f"nats-{role}-password": password for role, password in cluster.PASSWORDS.items()}}


class Pods:
    """Processes in the place of the chart's pods, each at a loopback address of its own: what the files name by service and pod
    is written as address, absolute paths as paths below a directory, and nothing else is changed."""

    def __init__(self, directory, *args):
        self.directory = directory
        self.objects = chart.render(*VALUES, *args, release=RELEASE, namespace=NAMESPACE)
        self.network = f"127.{random.randrange(1, 255)}.{random.randrange(256)}"
        self.processes = {}
        self.addresses = {}

    def workload(self, tier):
        return next(each for each in chart.of_kind(self.objects, "Deployment", "StatefulSet")
                    if each["metadata"]["name"] == f"{PREFIX}-{tier}")

    def address(self, pod):
        return self.addresses.setdefault(pod, f"{self.network}.{len(self.addresses) + 1}")

    def localize(self, text, pod):
        for other in (f"{PREFIX}-nats-{number}" for number in range(3)):
            text = text.replace(f"{other}.{PREFIX}-nats.{NAMESPACE}.svc", self.address(other))
        for path in ("etc/", "run/"):
            text = text.replace(f'"/{path}', f'"{self.directory}/{pod}/{path}')
        return text.replace("0.0.0.0:", f"{self.address(pod)}:")

    def write_files(self, tier, pod):
        """The mounted files of a pod, below the directory of its name."""
        root = self.directory / pod
        spec = self.workload(tier)["spec"]["template"]["spec"]
        sources = {volume["name"]: volume for volume in spec["volumes"]}
        for mount in spec["containers"][0]["volumeMounts"]:
            path = root / mount["mountPath"].lstrip("/")
            source = sources.get(mount["name"], {})
            if "configMap" in source:
                data = next(each["data"] for each in chart.of_kind(self.objects, "ConfigMap")
                            if each["metadata"]["name"] == source["configMap"]["name"])
                folder = path.parent if "subPath" in mount else path
                folder.mkdir(parents=True, exist_ok=True)
                for name, text in data.items():
                    (folder / name).write_text(self.localize(text, pod))
            elif "secret" in source:
                path.mkdir(parents=True, exist_ok=True)
                for name, file in (("tls.crt", "server.pem"), ("tls.key", "server.key"), ("ca.crt", "ca.pem")):
                    (path / name).write_bytes((self.directory / file).read_bytes())
            else:
                path.mkdir(parents=True, exist_ok=True)
        return root

    def command(self, tier, pod):
        """The container's command and environment; its first word is the program's name."""
        root = self.write_files(tier, pod)
        container = self.workload(tier)["spec"]["template"]["spec"]["containers"][0]
        environment = {name: self.localize(value, pod) for name, value in
                       chart.environment_of(container, pod, SECRETS.__getitem__).items()}
        return [f"{root}{word}" if word.startswith("/") else word for word in container["command"]], environment

    def start(self, tier, number):
        pod = f"{PREFIX}-{tier}-{number}"
        command, environment = self.command(tier, pod)
        if tier != "nats":
            command[0] = chart.BUILD / tier / command[0]
        self.processes[pod] = cluster.Process(self.directory, pod, command, environment)
        return self.processes[pod]

    def pre_stop(self, pod):
        hook = self.workload("nats")["spec"]["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        return [word.replace("=/", f"={self.directory / pod}/") for word in hook]

    def probe(self, tier, pod, name):
        """The status that a probe gets."""
        container = self.workload(tier)["spec"]["template"]["spec"]["containers"][0]
        request = container[name]["httpGet"]
        port = next(each["containerPort"] for each in container["ports"] if each["name"] == request["port"])
        try:
            with urllib.request.urlopen(f"http://{self.address(pod)}:{port}{request['path']}", timeout=5) as answer:
                return answer.status
        except OSError as error:
            return getattr(error, "code", 0)

    def wait_ready(self, tier, number):
        pod = f"{PREFIX}-{tier}-{number}"
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            def answers(name=name):
                self.processes[pod].assert_runs()
                return self.probe(tier, pod, name) == 200
            cluster.wait_for(f"{name} of {pod}", answers)

    def stop(self):
        for process in reversed(self.processes.values()):
            process.stop()


class ChartNatsTest(unittest.TestCase):
    def start_cluster(self, *args):
        directory = tempfile.TemporaryDirectory(prefix="signalbox-deploy-")
        self.addCleanup(directory.cleanup)
        pods = Pods(pathlib.Path(directory.name), *args)
        self.addCleanup(pods.stop)
        cluster.make_certificates(pods.directory, [pods.address(f"{PREFIX}-nats-{number}") for number in range(3)])
        for number in range(3):
            pods.start("nats", number)
        for number in range(3):
            pods.wait_ready("nats", number)
        for tier in ("shard", "gateway"):
            for number in range(2):
                pods.start(tier, number)
        for tier in ("shard", "gateway"):
            for number in range(2):
                pods.wait_ready(tier, number)
        return pods

    def join(self, pods, number, identity):
        status, token = cluster.ctl("token", "--key", "main", "--secret", cluster.API_SECRET, "--room", "demo", "--identity", identity)
        self.assertEqual(status, 0, token)
        client = cluster.JsonClient(8443, host=pods.address(f"{PREFIX}-gateway-{number}"))
        self.addCleanup(client.close)
        client.send({"hello": {"token": token.strip(), "join": {"room": "demo"}}})
        return client, client.receive_until("helloOk")["sid"]

    def assert_message_crosses(self, people, text):
        (ann, _), (ben, ben_sid) = people
        self.sent = getattr(self, "sent", 0) + 1
        offer = {"route": {"peer": ben_sid, "seq": str(self.sent)},
                 "offer": {"negotiation": str(self.sent), "iceGeneration": 1, "sdp": text}}

        def arrives():
            ann.send(offer)
            try:
                while text not in str(ben.receive_until("offer", RETRANSMISSION_S)):
                    pass  # an earlier one, sent again
                return True
            except TimeoutError:
                return False
        # A server that ends may take a message with it: clients send again what is not acknowledged (docs/PROTOCOL.md, 5).
        cluster.wait_for(f"message {text}", arrives)

    def leader(self, pods):
        """Number of the server that leads the view log, and of how many copies."""
        for number in range(3):
            try:
                with urllib.request.urlopen(f"http://{pods.address(f'{PREFIX}-nats-{number}')}:8222/jsz?streams=true&accounts=true",
                                            timeout=5) as answer:
                    accounts = json.load(answer).get("account_details", [])
            except OSError:
                continue
            for stream in (each for account in accounts for each in account.get("stream_detail", []) or []):
                group = stream.get("cluster", {})
                if stream["name"] == "SBX_VIEW" and group.get("leader"):
                    return int(group["leader"].rsplit("-", 1)[1]), 1 + len(group.get("replicas", []) or [])
        return None

    def test_the_configuration_is_one_to_nats(self):
        for args in ([], WITH_TLS, ["--set", "nats.replicas=1"]):
            with self.subTest(args=args), tempfile.TemporaryDirectory() as directory:
                pods = Pods(pathlib.Path(directory), *args)
                cluster.make_certificates(pods.directory)
                (program, *options), environment = pods.command("nats", f"{PREFIX}-nats-0")
                status, output, error = chart.run([program, "-t", *options], env={**os.environ, **environment})
                self.assertEqual(status, 0, output + error)
                # It can fail: without a password there is no such user.
                del environment["NATS_SHARD_PASSWORD"]
                status, output, error = chart.run([program, "-t", *options], env={**os.environ, **environment})
                self.assertNotEqual(status, 0, output + error)

    def test_three_servers_carry_a_cluster_and_are_replaced_one_by_one(self):
        pods = self.start_cluster()
        people = [self.join(pods, 0, "ann"), self.join(pods, 1, "ben")]
        self.assert_message_crosses(people, "v=0")
        self.assertEqual(cluster.wait_for("the view log", lambda: self.leader(pods))[1], 3)
        leader = self.leader(pods)[0]
        pod = f"{PREFIX}-nats-{leader}"
        # As Kubernetes does it: the hook, then SIGTERM, then the pod anew with its volume.
        subprocess.run(pods.pre_stop(pod), check=True, env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin"})
        server = pods.processes[pod]
        # Sent at once, the later signal can be the first that the server looks at.
        cluster.wait_for("lame duck mode", lambda: "Entering lame duck mode" in server.log())
        server.process.terminate()
        grace_s = pods.workload("nats")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        self.assertEqual(server.process.wait(grace_s), 0, server.log())
        self.assertNotEqual(cluster.wait_for("another leader", lambda: self.leader(pods))[0], leader)
        self.assert_message_crosses(people, "v=1")
        pods.start("nats", leader)
        pods.wait_ready("nats", leader)
        for tier in ("shard", "gateway"):
            for number in range(2):
                pods.wait_ready(tier, number)
        self.assert_message_crosses(people, "v=2")
        for name, process in pods.processes.items():
            process.assert_runs()
            if "-nats-" not in name:
                self.assertNotIn("nats_permissions_too_large", process.log())

    def test_three_servers_with_tls(self):
        pods = self.start_cluster(*WITH_TLS)
        self.assert_message_crosses([self.join(pods, 0, "ann"), self.join(pods, 1, "ben")], "v=0")
        self.assertEqual(cluster.wait_for("the view log", lambda: self.leader(pods))[1], 3)

    def test_the_roles_are_deploy_nats_s(self):
        self.assertEqual((chart.CHART / "files" / "roles.conf").read_text(), (cluster.NATS_CONFIGS / "roles.conf").read_text(),
                         "python3 tests/deploy/chart_tools.py copies it")


if __name__ == "__main__":
    unittest.main()
