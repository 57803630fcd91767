"""A Kubernetes API server with etcd and nothing else: it stores and judges objects, and nothing runs them. kube-apiserver is built from
its module of the Go proxy, which takes ten minutes the first time; etcd is Debian's, unpacked and not installed."""

import json
import os
import pathlib
import secrets
import ssl
import subprocess
import urllib.error
import urllib.request

import yaml

import chart_tools as chart
import nats_cluster as cluster

VERSION = "1.31.4"
TOOLS = chart.TOOLS / f"kubernetes-{VERSION}"
APISERVER = TOOLS / "kube-apiserver"
START_S = 300
PLURALS = {"NetworkPolicy": "networkpolicies", "Ingress": "ingresses"}  # all others have an s


def build():
    """kube-apiserver, of a module of our own that replaces what Kubernetes' repository keeps beside it by its releases."""
    if APISERVER.exists():
        return
    module = TOOLS / "module"
    module.mkdir(parents=True, exist_ok=True)
    status, output, error = chart.run([chart.go_path(), "mod", "download", "-json", f"k8s.io/kubernetes@v{VERSION}"], cwd="/")
    assert status == 0, output + error
    beside = [line.split()[0] for line in pathlib.Path(json.loads(output)["GoMod"]).read_text().splitlines() if "=> ./staging/" in line]
    replaced = "\n".join(f"replace {name} => {name} v0.{VERSION.split('.', 1)[1]}" for name in beside)
    (module / "go.mod").write_text(f"module apiserver\ngo 1.22.0\nrequire k8s.io/kubernetes v{VERSION}\n{replaced}\n")
    major, minor, _ = VERSION.split(".")
    named = " ".join(f"-X k8s.io/component-base/version.{name}={value}"
                     for name, value in (("gitVersion", f"v{VERSION}"), ("gitMajor", major), ("gitMinor", minor)))
    status, _, error = chart.run([chart.go_path(), "build", "-mod=mod", "-trimpath", "-ldflags", f"-s -w {named}", "-o", APISERVER,
                                  "k8s.io/kubernetes/cmd/kube-apiserver"], cwd=module, env={**os.environ, "CGO_ENABLED": "0"})
    assert status == 0, f"go build of kube-apiserver: {error}"


class Refused(Exception):
    """What the server said."""


class ApiServer:
    def __init__(self, directory):
        self.directory = directory
        self.token = secrets.token_hex(16)
        self.processes = []
        self.warnings = []

    def start(self):
        build()
        etcd, peer, self.port = (cluster.free_port() for _ in range(3))
        self.processes.append(cluster.Process(self.directory, "etcd", [
            chart.unpacked("etcd-server", "etcd"), "--data-dir", self.directory / "etcd",
            "--listen-client-urls", f"http://127.0.0.1:{etcd}", "--advertise-client-urls", f"http://127.0.0.1:{etcd}",
            "--listen-peer-urls", f"http://127.0.0.1:{peer}"]))
        subprocess.run(["openssl", "genrsa", "-out", self.directory / "sa.key", "2048"], check=True, capture_output=True)
        (self.directory / "tokens").write_text(f"{self.token},operator,operator,system:masters\n")
        self.processes.append(cluster.Process(self.directory, "kube-apiserver", [
            APISERVER, f"--etcd-servers=http://127.0.0.1:{etcd}", f"--secure-port={self.port}", "--bind-address=127.0.0.1",
            f"--cert-dir={self.directory}", "--service-cluster-ip-range=10.0.0.0/24", "--authorization-mode=RBAC",
            f"--token-auth-file={self.directory}/tokens", "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.directory}/sa.key", f"--service-account-signing-key-file={self.directory}/sa.key"]))
        cluster.wait_for("the API server is ready", self.is_ready, START_S)

    def is_ready(self):
        for process in self.processes:
            process.assert_runs()
        try:
            return self.request("GET", "/readyz")
        except (OSError, Refused):
            return False

    def wait_serves(self, definition):
        """A custom kind."""
        path = f"/apis/{definition['group']}/{definition['versions'][0]['name']}/{definition['names']['plural']}"

        def serves():
            try:
                return self.request("GET", path)
            except Refused:
                return False
        cluster.wait_for(path, serves)

    def stop(self):
        for process in reversed(self.processes):
            process.stop()

    def kubeconfig(self):
        """A file for Helm."""
        path = self.directory / "kubeconfig"
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": f"https://127.0.0.1:{self.port}", "insecure-skip-tls-verify": True}}],
            "users": [{"name": "test", "user": {"token": self.token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}]}))
        return path

    def request(self, method, path, body=None, content="application/yaml"):
        """The answer's text; warnings are kept, refusals raised."""
        request = urllib.request.Request(f"https://127.0.0.1:{self.port}{path}", method=method,
                                         data=yaml.safe_dump(body).encode() if body else None,
                                         headers={"Authorization": f"Bearer {self.token}", "Content-Type": content})
        try:
            with urllib.request.urlopen(request, timeout=30, context=ssl._create_unverified_context()) as answer:
                self.warnings += answer.headers.get_all("Warning") or []
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            raise Refused(error.read().decode()) from error

    def apply(self, thing, namespace=None, dry_run=False):
        """As kubectl apply --server-side does, unknown fields refused."""
        version, kind = thing["apiVersion"], thing["kind"]
        plural = PLURALS.get(kind, kind.lower() + "s")
        where = f"/api/{version}" if "/" not in version else f"/apis/{version}"
        where += f"/namespaces/{namespace}" if namespace else ""
        query = "fieldManager=test&fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")
        return self.request("PATCH", f"{where}/{plural}/{thing['metadata']['name']}?{query}", thing, "application/apply-patch+yaml")
