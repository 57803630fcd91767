"""Helm, promtool, and schemas of the kinds that the chart makes. Helm and schemas come through the Go module proxy, and
so does Go itself where there is none that is new enough; what is fetched or compiled stays in build/."""

import functools
import hashlib
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import urllib.request
import zipfile

import yaml

ROOT = pathlib.Path(os.environ.get("SIGNALBOX_ROOT", pathlib.Path(__file__).parents[2]))
BUILD = pathlib.Path(os.environ.get("SIGNALBOX_BUILD", ROOT / "build"))
CHART = ROOT / "deploy" / "helm" / "signalbox"
TOOLS = BUILD / "tools"
GO_OLDEST = (1, 22)
GO_MODULE = "golang.org/toolchain@v0.0.1-go1.24.9.linux-{}"
GO_SHA256 = {"amd64": "2a683c9c1d65a0e221519c21850a3ed5fe5ff287d39d74e35e4af7ceb9e333b2",
             "arm64": "4d31d22f75fed99025f7b082319eabeb74106d11e343fc203b336ba2afdeb3a1"}
HELM = "helm.sh/helm/v3/cmd/helm@v3.16.4"
KUBERNETES = "1.31.0"  # what charts are rendered for; a Helm built from source knows none
# Kinds that are not Kubernetes' own: where the project that defines them keeps the definition.
DEFINITIONS = {
    "ServiceMonitor": ("github.com/prometheus-operator/prometheus-operator@v0.75.2",
                       "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml"),
    "PrometheusRule": ("github.com/prometheus-operator/prometheus-operator@v0.75.2",
                       "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml"),
    "ScaledObject": ("github.com/kedacore/keda/v2@v2.15.1", "config/crd/bases/keda.sh_scaledobjects.yaml"),
}


@functools.cache
def go_path():
    """The machine's own Go, unless it has none or an older one than Helm needs."""
    own = shutil.which("go", path=os.environ["PATH"] + ":/usr/local/go/bin")
    if own is not None:
        version = re.match(r"go(\d+)\.(\d+)", run([own, "env", "GOVERSION"])[1])
        if version and tuple(map(int, version.groups())) >= GO_OLDEST:
            return own
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    name, _, version = GO_MODULE.format(machine).partition("@")
    go = TOOLS / f"{name}@{version}" / "bin" / "go"
    if not go.exists():
        fetch_go(f"{name}/@v/{version}.zip", GO_SHA256[machine])
    return go


def fetch_go(path, sha256):
    proxy = re.split("[,|]", os.environ.get("GOPROXY", "https://proxy.golang.org"))[0]
    archive = TOOLS / "go.zip"
    TOOLS.mkdir(parents=True, exist_ok=True)
    urllib.request.urlretrieve(f"{proxy}/{path}", archive)
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert found == sha256, f"{proxy}/{path} has the checksum {found}, {sha256} was expected"
    with zipfile.ZipFile(archive) as files:
        files.extractall(TOOLS)
    archive.unlink()
    # Archives of modules keep no modes.
    directory = TOOLS / path.removesuffix(".zip").replace("/@v/", "@")
    for program in [*directory.glob("bin/*"), *directory.glob("pkg/tool/*/*")]:
        program.chmod(0o755)


def run(command, **kwargs):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **kwargs)
    return done.returncode, done.stdout, done.stderr


def install(package, path, *options):
    """The path, where the program of a pinned version is compiled at the first call, which takes minutes."""
    if not path.exists():
        command = [go_path(), "install", "-p", "2", *options, package]
        status, _, error = run(command, env={**os.environ, "GOBIN": str(path.parent)})
        assert status == 0, f"go install {package}: {error}"
        built = path.parent / package.partition("@")[0].rsplit("/", 1)[1]
        if built != path:
            built.rename(path)
    return path


def helm_path():
    return install(HELM, TOOLS / HELM.partition("@")[2] / "helm")


def helm(*args):
    return run([helm_path(), *args])


def render(*args, release="test", namespace="calls"):
    """The objects that the chart makes of these arguments."""
    status, output, error = helm("template", release, CHART, "--namespace", namespace, "--kube-version", KUBERNETES, *args)
    assert status == 0, error
    return [document for document in yaml.safe_load_all(output) if document]


def of_kind(objects, *kinds):
    return [each for each in objects if each["kind"] in kinds]


def environment_of(container, pod_name, secret):
    """As a container of that pod would get it; `secret` gives the value of a Secret's key."""
    environment = {}
    for variable in container["env"]:
        source = variable.get("valueFrom", {})
        if "fieldRef" in source:
            assert source["fieldRef"]["fieldPath"] == "metadata.name", variable
            value = pod_name
        elif "secretKeyRef" in source:
            value = secret(source["secretKeyRef"]["key"])
        else:
            value = re.sub(r"\$\((\w+)\)", lambda match: environment[match[1]], variable["value"])
        environment[variable["name"]] = value
    return environment


class Readable(yaml.SafeDumper):
    """Writes texts of several lines as blocks."""


Readable.add_representer(str, lambda dumper, text: dumper.represent_scalar(
    "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None))


def compose_alerts():
    """deploy/compose/prometheus/alerts.yml: the chart's rules, for the labels that the Compose cluster gives."""
    objects = render("--set", "monitoring.rules=true", release="signalbox", namespace="compose")
    rules = next(each["spec"] for each in objects if each["kind"] == "PrometheusRule")
    return ("# Written by tests/deploy/chart_tools.py from the Helm chart's rules; changes here are lost.\n"
            + yaml.dump(rules, Dumper=Readable, width=1000, sort_keys=False))


def unpacked(package, program):
    """A program of a Debian package, which is unpacked and not installed: installing it would start a server."""
    path = TOOLS / package / "usr" / "bin" / program
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        status, _, error = run(["apt-get", "download", package], cwd=TOOLS)
        assert status == 0, f"apt-get download {package}: {error}"
        archive = next(TOOLS.glob(f"{package}_*.deb"))
        subprocess.run(["dpkg-deb", "-x", archive, TOOLS / package], check=True)
        archive.unlink()
    return path


def promtool_path():
    found = shutil.which("promtool")
    return pathlib.Path(found) if found else unpacked("prometheus", "promtool")


def definition_of(kind):
    """Of a custom kind, as its project keeps it."""
    module, path = DEFINITIONS[kind]
    status, output, error = run([go_path(), "mod", "download", "-json", module], cwd="/")
    assert status == 0, output + error
    return yaml.safe_load((pathlib.Path(json.loads(output)["Dir"]) / path).read_text())


def schema_of(kind):
    """The schema of a custom kind, as strict as those of Kubernetes: unknown fields are refused."""
    return refuse_unknown(definition_of(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"])


def refuse_unknown(schema):
    if isinstance(schema, list):
        return [refuse_unknown(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: refuse_unknown(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    if isinstance(schema.get("pattern"), str):  # Go takes flags anywhere in an expression
        schema["pattern"] = schema["pattern"].replace("^(?i)", "(?i)^")
    if schema.get("x-kubernetes-int-or-string"):
        schema.pop("type", None)
    return schema


if __name__ == "__main__":
    (ROOT / "deploy" / "compose" / "prometheus" / "alerts.yml").write_text(compose_alerts())
    shutil.copy(ROOT / "deploy" / "nats" / "roles.conf", CHART / "files")  # a chart's files are its own
