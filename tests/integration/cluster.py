"""A real Signalbox cluster for tests: nats-server, shards and gateways as processes on free loopback ports, in a
directory of its own.

    with Cluster(gateways=2, shards=3) as cluster:
        await client.connect(cluster.url(1), cluster.token("ann", "standup"))

Waits by asking readyz, never by time. stop() wants every process to end by itself with the status that was expected, and
no sanitizer to have reported anything.

Environment: SIGNALBOX_TEST_BUILD names the build with sanitizers (default build-asan), SIGNALBOX_BUILD the one without
(default build); SIGNALBOX_ARTIFACTS keeps the logs.
"""
import base64
import hashlib
import hmac
import itertools
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
SANITIZED = pathlib.Path(os.environ.get("SIGNALBOX_TEST_BUILD", ROOT / "build-asan"))
PLAIN = pathlib.Path(os.environ.get("SIGNALBOX_BUILD", ROOT / "build"))

API_KEY = "APItest"
API_SECRET = "test-only-secret-of-the-integration-tests"
SANITIZER_REPORT = re.compile(r"ERROR: \w+Sanitizer|runtime error:|WARNING: ThreadSanitizer|Assertion .* failed")
START_TIMEOUT_S = 40
STOP_TIMEOUT_S = 40

_ports = itertools.count(int(os.environ.get("SIGNALBOX_PORT", 0)) or random.randrange(22000, 29000))


def free_port():
    """Below the range that the kernel gives to outgoing connections, so that it stays free until it is used."""
    for port in _ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def run_openssl(*args):
    subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)


def make_certificate(directory):
    """A CA and a P-256 certificate for loopback: ca.pem, server.pem, server.key."""
    run_openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                "/CN=test CA", "-addext", "keyUsage=critical,keyCertSign", "-keyout", directory / "ca.key", "-out",
                directory / "ca.pem")
    run_openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost",
                "-keyout", directory / "server.key", "-out", directory / "server.csr")
    (directory / "server.ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    run_openssl("x509", "-req", "-in", directory / "server.csr", "-CA", directory / "ca.pem", "-CAkey",
                directory / "ca.key", "-CAcreateserial", "-days", "2", "-extfile", directory / "server.ext", "-out",
                directory / "server.pem")


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(header, claims, secret=API_SECRET, digest="sha256"):
    text = f"{base64url(json.dumps(header).encode())}.{base64url(json.dumps(claims).encode())}"
    return f"{text}.{base64url(hmac.new(secret.encode(), text.encode(), digest).digest())}"


def mint(identity, room, *, secret=API_SECRET, header=None, grants=None, **claims):
    """An access token; claims that are None are left out."""
    now = int(time.time())
    whole = {"iss": API_KEY, "sub": identity, "nbf": now - 5, "exp": now + 3600,
             "video": {"roomJoin": True, "room": room, **(grants or {})}, **claims}
    whole["video"] = {name: value for name, value in whole["video"].items() if value is not None}
    return sign(header or {"alg": "HS256"}, {name: value for name, value in whole.items() if value is not None}, secret)


def libconfig(value, indent=""):
    """A Python value as libconfig text: dict = group, tuple = list of groups, list = array."""
    if isinstance(value, dict):
        return "{\n" + "".join(f"{indent}  {k} = {libconfig(v, indent + '  ')};\n" for k, v in value.items()) + indent + "}"
    if isinstance(value, tuple):
        return "( " + ", ".join(libconfig(v, indent) for v in value) + " )"
    if isinstance(value, list):
        return "[ " + ", ".join(libconfig(v, indent) for v in value) + " ]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value)


def merged(base, extra):
    """`extra` laid over `base`, group by group; None removes a key."""
    result = dict(base)
    for name, value in extra.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict) and isinstance(result.get(name), dict):
            result[name] = merged(result[name], value)
        else:
            result[name] = value
    return result


def http_get(url, timeout=5):
    """(status, body) of plain HTTP; (0, reason) if nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def wait_for(condition, what, timeout_s=START_TIMEOUT_S, step_s=0.02):
    """Asks until the answer is true; for what cannot tell us by itself. Time in which the machine stood still does not count:
    what is waited for stood still too."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if answer:
            return answer
        asked = time.monotonic()
        if asked > deadline:
            raise TimeoutError(f"waited {timeout_s} s in vain for {what() if callable(what) else what}")
        time.sleep(step_s)
        late_s = time.monotonic() - asked - step_s
        if late_s > 1:
            deadline += late_s


class Process:
    def __init__(self, name, command, directory, admin_port=0, ready_path="/readyz", admin_host="127.0.0.1"):
        self.name = name
        self.admin_port = admin_port
        self.admin_url = f"http://{admin_host}:{admin_port}"
        self.ready_path = ready_path
        self.log_path = directory / f"{name}.log"
        # As deployed: docs/PERFORMANCE.md, "Memory after a crowd".
        environment = dict(os.environ, GLIBC_TUNABLES="glibc.malloc.tcache_count=0",
                           ASAN_OPTIONS="detect_leaks=1:abort_on_error=0:exitcode=99",
                           UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1:exitcode=99")
        with open(self.log_path, "ab") as log:
            self.popen = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                          env=environment)

    @property
    def pid(self):
        return self.popen.pid

    def log(self):
        return self.log_path.read_text(errors="replace")

    def log_tail(self, lines=25):
        return f"{self.name}:\n" + "".join(f"    | {line}\n" for line in self.log().splitlines()[-lines:])

    def ready(self):
        if self.popen.poll() is not None:
            raise RuntimeError(f"{self.name} ended with status {self.popen.returncode}\n{self.log_tail()}")
        return http_get(self.admin_url + self.ready_path)[0] == 200

    def metrics(self):
        """{'name': sum over labels, 'name{label="value"}': value}"""
        status, text = http_get(f"{self.admin_url}/metrics")
        if status != 200:
            raise RuntimeError(f"{self.name} gave no metrics: {status} {text}\n{self.log_tail()}")
        values = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                values[name] = float(value)
                bare = name.split("{")[0]
                if bare != name:
                    values[bare] = values.get(bare, 0) + float(value)
        return values

    def metric(self, name):
        return self.metrics().get(name, 0)

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def memory_kb(self):
        """What the process has of its own. Not PSS: its share of the libraries grows when somebody else's process ends."""
        rollup = pathlib.Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return int(re.search(r"^Anonymous:\s+(\d+) kB", rollup, re.M)[1])

    def signal(self, number):
        self.popen.send_signal(number)

    def wait(self, timeout_s=STOP_TIMEOUT_S):
        try:
            return self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise RuntimeError(f"{self.name} did not end within {timeout_s} s\n{self.log_tail()}") from None

    def problems(self, want_status=0):
        """What was wrong with a process that has ended; None if all was right."""
        log = self.log()
        if SANITIZER_REPORT.search(log):
            return f"a sanitizer reported:\n{self.log_tail(60)}"
        if self.popen.returncode != want_status:
            return f"ended with status {self.popen.returncode}, not {want_status}\n{self.log_tail()}"
        return None


class Cluster:
    def __init__(self, gateways=2, shards=3, build=SANITIZED, gateway=None, shard=None, tls=True, start=True):
        self.build = pathlib.Path(build)
        self.tls = tls
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="signalbox-test-"))
        self.gateway_extra, self.shard_extra = gateway or {}, shard or {}
        self.nats_port, self.nats_monitor = free_port(), free_port()
        self.ports, self.admin_ports = {}, {}
        self.processes = {}
        self.ended = []
        self.secret, self.seed = "0123456789abcdef" * 4, "00112233445566778899aabbccddeeff"
        make_certificate(self.directory)
        self.client_tls = ssl.create_default_context(cafile=str(self.directory / "ca.pem")) if tls else None
        self.gateway_names = [f"gateway-{i + 1}" for i in range(gateways)]
        self.shard_names = [f"shard-{i + 1}" for i in range(shards)]
        if start:
            try:
                self.start()
            except BaseException:
                self.abandon()
                raise

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None:
            self.abandon()
        else:
            self.stop()

    # --- Configuration ----------------------------------------------------------------------------------------------

    def common_config(self, name):
        self.admin_ports.setdefault(name, free_port())
        return {"node": {"id": name},
                "cluster": {"secret": self.secret, "placement_seed": self.seed},
                "nats": {"servers": [f"nats://127.0.0.1:{self.nats_port}"]},
                "admin": {"listen": f"{self.admin_host(name)}:{self.admin_ports[name]}"},
                "log": {"level": "debug"}}

    def gateway_config(self, name):
        self.ports.setdefault(name, free_port())
        config = {"client": {"listen": f"127.0.0.1:{self.ports[name]}",
                             "allowed_origins": ["https://app.example.com"],
                             "web_root": str(ROOT / "gateway" / "web")},
                  "tls": {"enabled": self.tls, "certificate_file": str(self.directory / "server.pem"),
                          "key_file": str(self.directory / "server.key")},
                  "keys": ({"project": "default", "key": API_KEY, "secret": API_SECRET},)}
        if not self.tls:
            config["tls"] = {"enabled": False}
        return merged(merged(self.common_config(name), config), self.gateway_extra)

    def shard_config(self, name):
        return merged(self.common_config(name), self.shard_extra)

    def write_config(self, name, config):
        path = self.directory / f"{name}.conf"
        path.write_text("".join(f"{key} = {libconfig(value)};\n" for key, value in config.items()))
        return path

    # --- Processes --------------------------------------------------------------------------------------------------

    def start(self):
        self.start_nats()
        for name in self.shard_names:
            self.launch(name)
        for name in self.gateway_names:
            self.launch(name)
        self.wait_ready(*self.shard_names, *self.gateway_names)

    def start_nats(self):
        program = shutil.which("nats-server") or "/usr/sbin/nats-server"
        self.processes["nats"] = Process(
            "nats", [program, "-c", ROOT / "deploy/nats/local.conf", "-a", "127.0.0.1", "-p", self.nats_port, "-m",
                     self.nats_monitor, "-sd", self.directory / "nats"], self.directory, self.nats_monitor, "/healthz")
        self.wait_ready("nats")

    def launch(self, name):
        tier = name.split("-")[0]
        config = self.gateway_config(name) if tier == "gateway" else self.shard_config(name)
        path = self.write_config(name, config)
        program = self.build / tier / f"signalbox-{tier}"
        self.processes[name] = Process(name, [*self.launcher(name), program, "--config", path], self.directory,
                                       self.admin_ports[name], admin_host=self.admin_host(name))
        return self.processes[name]

    def launcher(self, name):
        """What stands before the program in its command line."""
        return []

    def admin_host(self, name):
        return "127.0.0.1"

    def wait_ready(self, *names):
        for name in names:
            process = self.processes[name]
            wait_for(process.ready, lambda: f"{name} to be ready\n{process.log_tail()}")

    def __getitem__(self, name):
        return self.processes[name]

    def terminate(self, name, want_status=0):
        """SIGTERM and a good end."""
        process = self.processes.pop(name)
        process.signal(signal.SIGTERM)
        process.wait()
        self._check_ended(process, want_status)

    def kill(self, name):
        process = self.processes.pop(name)
        process.signal(signal.SIGKILL)
        process.wait()
        self._check_ended(process, -signal.SIGKILL)

    def _check_ended(self, process, want_status):
        problem = process.problems(want_status)
        if problem is not None:
            self.ended.append(f"{process.name}: {problem}")

    def stop(self):
        """Gateways, shards, then NATS; raises if any process did not end as it should."""
        for tier in ("gateway", "shard", "nats"):
            names = [name for name in self.processes if name.startswith(tier)]
            for name in names:
                self.processes[name].signal(signal.SIGTERM)
            for name in names:
                process = self.processes.pop(name)
                try:
                    process.wait()
                except RuntimeError as error:
                    self.ended.append(str(error))
                    continue
                # nats-server ends a SIGTERM with status 1.
                self._check_ended(process, process.popen.returncode if tier == "nats" else 0)
        self._keep_logs()
        if self.ended:
            raise AssertionError("\n".join(self.ended))

    def abandon(self):
        for process in self.processes.values():
            process.popen.kill()
            process.popen.wait()
        self.processes.clear()
        self._keep_logs()

    def _keep_logs(self):
        artifacts = os.environ.get("SIGNALBOX_ARTIFACTS")
        if artifacts and self.directory.exists():
            kept = pathlib.Path(artifacts) / self.directory.name
            kept.mkdir(parents=True, exist_ok=True)
            for path in self.directory.glob("*.log"):
                shutil.copy(path, kept)
        shutil.rmtree(self.directory, ignore_errors=True)

    # --- What tests ask ---------------------------------------------------------------------------------------------

    def port(self, number=1):
        return self.ports[f"gateway-{number}"]

    def url(self, number=1):
        return f"{'wss' if self.tls else 'ws'}://127.0.0.1:{self.port(number)}"

    def gateway(self, number=1):
        return self.processes[f"gateway-{number}"]

    def room(self, room):
        """What the room's owner says of it, as `signalboxctl room --json` prints it."""
        done = subprocess.run([self.build / "ctl" / "signalboxctl", "room", room, "--json", "--nats",
                               f"nats://127.0.0.1:{self.nats_port}"], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)[0]

    def token(self, identity, room, **more):
        return mint(identity, room, **more)
