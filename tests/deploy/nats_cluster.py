"""NATS servers on loopback with the configurations of deploy/nats, and Signalbox's programs as their users."""

import asyncio
import json
import os
import pathlib
import re
import socket
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import websockets

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "integration"))
import cluster  # noqa: E402
from cluster import free_port  # noqa: E402

ROOT = pathlib.Path(os.environ.get("SIGNALBOX_ROOT", pathlib.Path(__file__).parents[2]))
BUILD = pathlib.Path(os.environ.get("SIGNALBOX_BUILD", ROOT / "build"))
NATS_CONFIGS = ROOT / "deploy" / "nats"
PASSWORDS = {role: f"p-{role}-{os.urandom(8).hex()}" for role in ("gateway", "shard", "tool", "sys", "route")}
API_KEY, API_SECRET = "devdeploy", os.urandom(24).hex()
TIMEOUT_S = 30


def wait_for(what, condition, timeout_s=TIMEOUT_S):
    """Asks until `condition()` gives something true, and gives that back."""
    return cluster.wait_for(condition, what, timeout_s, step_s=0.05)


def make_certificates(directory, addresses=()):
    """A CA, and one certificate for all servers on loopback, and at the addresses."""
    run = lambda *args: subprocess.run(["openssl", *args], cwd=directory, check=True, capture_output=True)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    run("req", "-x509", *key, "-days", "2", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test CA")
    run("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    names = ["DNS:localhost", *(f"IP:{address}" for address in ("127.0.0.1", *addresses))]
    (directory / "extensions").write_text(f"subjectAltName={','.join(names)}\n")
    run("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
        "-out", "server.pem", "-extfile", "extensions")


class Process:
    """A program whose output goes to a file; ended with the test."""

    def __init__(self, directory, name, command, environment=None):
        self.log_path = directory / f"{name}.log"
        self.name = name
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log,
                                            stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})})

    def log(self):
        return self.log_path.read_text(errors="replace")

    def assert_runs(self):
        if self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self.process.returncode}:\n{self.log()}")

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class NatsServer(Process):
    def __init__(self, directory, config, name="nats-1", port=None, routes=(), route_port=None):
        self.port = port or free_port()
        environment = {f"NATS_{role.upper()}_PASSWORD": password for role, password in PASSWORDS.items()}
        environment |= {"NATS_SERVER_NAME": name, "NATS_TLS_CERT": str(directory / "server.pem"),
                        "NATS_TLS_KEY": str(directory / "server.key"), "NATS_TLS_CA": str(directory / "ca.pem")}
        environment |= {f"NATS_ROUTE_{i}": route for i, route in enumerate(routes, 1)}
        # What a test must change: addresses. Flags win over the file.
        command = ["nats-server", "-c", NATS_CONFIGS / config, "-a", "127.0.0.1", "-p", self.port, "-m", free_port(),
                   "-sd", directory / name]
        if route_port:
            command += ["--cluster", f"nats://route:{PASSWORDS['route']}@127.0.0.1:{route_port}"]
        super().__init__(directory, name, command, environment)

    def wait_ready(self):
        def is_ready():
            self.assert_runs()
            return "Server is ready" in self.log()
        wait_for(f"{self.name} is ready", is_ready)

    def violations(self):
        """What the server forbade, but for what a program tries at its start because it should be forbidden."""
        return [line for line in re.findall(r".*(?:Violation|authentication error).*", self.log())
                if not re.search("permission-probe|PERMISSION_PROBE", line)]


class Member(Process):
    """A gateway or a shard. `user` is the role that it takes at NATS."""

    def __init__(self, directory, kind, number, servers, user=None, ca_file=None, environment=None, build=BUILD,
                 port=None, certificates=None):
        """`certificates`: a directory with server.pem and server.key, for TLS."""
        self.kind = kind
        self.admin_port, self.client_port = free_port(), port or free_port()
        name = f"{kind}-{number}"
        user = user or kind
        quoted = ", ".join(f'"{server}"' for server in servers)
        config = f"""
            node = {{ id = "{name}"; }};
            cluster = {{ secret = "{'s' * 64}"; placement_seed = "{'5' * 32}"; }};
            nats = {{ servers = [ {quoted} ]; user = "{user}"; password = "${{NATS_PASSWORD}}";
                      tls_ca_file = "{ca_file or ''}"; }};
            admin = {{ listen = "127.0.0.1:{self.admin_port}"; }};
        """
        if kind == "gateway":
            tls = f'certificate_file = "{certificates}/server.pem"; key_file = "{certificates}/server.key";' if certificates else ""
            config += f"""
                client = {{ listen = "127.0.0.1:{self.client_port}"; }};
                tls = {{ enabled = {"true" if certificates else "false"}; {tls} }};
                keys = ( {{ key = "{API_KEY}"; secret = "{API_SECRET}"; }} );
                drain = {{ spread_ms = 1000; deadline_ms = 6000; }};
            """
        path = directory / f"{name}.conf"
        path.write_text(config)
        super().__init__(directory, name, [build / kind / f"signalbox-{kind}", "--config", path],
                         {"NATS_PASSWORD": PASSWORDS[user], **(environment or {})})

    def get(self, path):
        """Status and text; status 0 while nothing answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=2) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def wait_ready(self):
        def is_ready():
            self.assert_runs()
            return self.get("/readyz")[0] == 200
        try:
            wait_for(f"{self.name} is ready", is_ready)
        except TimeoutError as error:
            raise AssertionError(f"{error}: {self.get('/readyz')}\n{self.log()}") from None


def ctl(*args):
    """signalboxctl: exit status and output."""
    done = subprocess.run([BUILD / "ctl" / "signalboxctl", *args], capture_output=True, text=True, timeout=TIMEOUT_S)
    return done.returncode, done.stdout + done.stderr


class NatsClient:
    """Speaks to one server as a role, in NATS's own protocol, so that nothing stands between a test and what is
    forbidden."""

    def __init__(self, port, user, ca_file=None):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        self.lines = self.socket.makefile("rb")
        self.lines.readline()  # INFO
        if ca_file:
            self.lines.close()
            context = ssl.create_default_context(cafile=ca_file)
            self.socket = context.wrap_socket(self.socket, server_hostname="127.0.0.1")
            self.lines = self.socket.makefile("rb")
        self.answer = self.ask("CONNECT " + json.dumps({"verbose": False, "user": user, "pass": PASSWORDS.get(user, "")}))

    def ask(self, line):
        """Sends one line; gives back what the server objects to, or ""."""
        self.socket.sendall(f"{line}\r\nPING\r\n".encode())
        objection = ""
        for answer in iter(self.lines.readline, b""):
            if answer.startswith(b"PONG"):
                break
            if answer.startswith(b"-ERR"):
                objection = answer.decode().strip()
        return objection

    def may_publish(self, subject):
        return self.ask(f"PUB {subject} 0\r\n") == ""

    def may_subscribe(self, subject):
        return self.ask(f"SUB {subject} 1") == ""

    def close(self):
        self.lines.close()
        self.socket.close()


_loop = asyncio.new_event_loop()
threading.Thread(target=_loop.run_forever, daemon=True).start()


class JsonClient:
    """Joins a room in JSON. Lives on a loop of its own, so that the gateway's pings are answered while a test waits for
    something else."""

    def __init__(self, port, tls=False, host="127.0.0.1"):
        """`tls`: with any certificate."""
        context = ssl._create_unverified_context() if tls else None

        async def connect():
            return await websockets.connect(f"{'wss' if tls else 'ws'}://{host}:{port}/v1/connect", ssl=context, max_queue=None,
                                            subprotocols=["signalbox.v1.json"], ping_interval=None, open_timeout=TIMEOUT_S)
        self.socket = self.on_loop(connect())

    @staticmethod
    def on_loop(work, timeout_s=TIMEOUT_S):
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, timeout_s), _loop).result()

    def send(self, message):
        self.on_loop(self.socket.send(json.dumps(message)))

    def receive_until(self, name, timeout_s=TIMEOUT_S):
        """What the next message of this name holds; the others are passed over. TimeoutError: nothing came for so long."""
        while True:
            try:
                message = json.loads(self.on_loop(self.socket.recv(), timeout_s))
            except websockets.ConnectionClosed as error:
                raise AssertionError(f"the gateway closed the connection: {error}") from None
            if name in message:
                return message[name]

    def close(self):
        """As a network ends it: without a close frame, so that the session can be resumed."""
        _loop.call_soon_threadsafe(self.socket.transport.abort)
