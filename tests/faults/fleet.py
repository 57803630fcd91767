"""A cluster of the real programs, made to be broken: one or three NATS servers, shards and gateways on loopback, which
integration/cluster.py starts and stops, with everything that can befall them.

Whoever uses it is alone in its network namespace (the suites' `run` sees to that), so that packets can be dropped. Every
process reaches NATS by an address of its own, 127.64.N.1: dropping what goes to and from it cuts that process off the bus,
whichever server and however often it connects. Clients of odd seats come from 127.1.0.0/16 or 127.3.0.0/16
(tests/load/participant.c).
"""
import collections
import itertools
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "integration"))
from cluster import API_KEY, API_SECRET, PLAIN, Cluster, Process, free_port, http_get, merged, wait_for  # noqa: E402

ODD_SEATS, ODD_SEATS_MOVED = "127.1.0.0/16", "127.3.0.0/16"
BUS_ADDRESSES = (f"127.64.{i}.1" for i in itertools.count())  # no two processes have the same
WHOLE_TIMEOUT_S = 90


def now_us():
    """CLOCK_MONOTONIC, as histories have it."""
    return time.monotonic_ns() // 1000


class Namespace:
    """A network namespace with one link to this one; kept by a process that sleeps in it."""

    def __init__(self, number):
        self.outside, self.inside, self.link = f"10.99.{number}.1", f"10.99.{number}.2", f"sbx{number}"
        self.keeper = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        here = os.readlink("/proc/self/ns/net")
        wait_for(lambda: os.readlink(f"/proc/{self.keeper.pid}/ns/net") != here, "a network namespace")
        self.ip("link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", str(self.keeper.pid))
        self.ip("address", "add", f"{self.outside}/24", "dev", self.link)
        self.set_link("up")
        for words in (("link", "set", "lo", "up"), ("address", "add", f"{self.inside}/24", "dev", "eth0"),
                      ("link", "set", "eth0", "up")):
            self.ip(*words, launcher=self.launcher())

    @staticmethod
    def ip(*words, launcher=()):
        subprocess.run([*launcher, "ip", *words], check=True, capture_output=True)

    def launcher(self):
        return ["nsenter", f"--net=/proc/{self.keeper.pid}/ns/net"]

    def set_link(self, state):
        self.ip("link", "set", self.link, state)

    def close(self):
        """The link goes with the namespace."""
        self.keeper.kill()
        self.keeper.wait()


def present(fleet, *names):
    """Those of them that run."""
    return [name for name in names if name in fleet.processes]


class Fleet(Cluster):
    def __init__(self, gateways=2, shards=3, nats=3, namespaces=(), alone=None, **options):
        """`namespaces`: these processes live in network namespaces of their own, each joined to this one by a link. `alone`: one
        of them, which may have the last NATS server for itself, see seclude()."""
        self.alone = alone
        self.namespaces = {name: Namespace(number) for number, name in enumerate(namespaces, 1)}
        self.nats_names = [f"nats-{i + 1}" for i in range(nats)]
        self.nats_ports = {name: (free_port(), free_port(), free_port()) for name in self.nats_names}
        self.bus_addresses = {}
        self.victims = {}  # of faults, by kind and number
        self.packets_dropped = 0
        super().__init__(gateways=gateways, shards=shards, build=options.pop("build", PLAIN), **options)

    # --- Configuration

    def bus_address(self, name):
        if name not in self.bus_addresses:
            namespace = self.namespaces.get(name)
            self.bus_addresses[name] = namespace.outside if namespace else next(BUS_ADDRESSES)
        return self.bus_addresses[name]

    def common_config(self, name):
        # shard-1 and gateway-1 prefer the first server, shard-2 and gateway-2 the second, and so on.
        used = self.nats_names
        if self.alone:
            used = used if name == self.alone else used[:-1]
        at = (int(name.split("-")[1]) - 1) % len(used)
        order = used[at:] + used[:at]
        servers = [f"nats://{self.bus_address(name)}:{self.nats_ports[server][0]}" for server in order]
        return merged(super().common_config(name), {"nats": {"servers": servers}, "log": {"level": "info"}})

    def nats_config(self, name):
        port, monitor, route = self.nats_ports[name]
        text = (f'server_name: {name}\nlisten: "0.0.0.0:{port}"\nhttp: "127.0.0.1:{monitor}"\nwrite_deadline: "1s"\n'
                f'jetstream {{ store_dir: "{self.directory / name}", max_memory_store: 16MB, max_file_store: 256MB }}\n')
        if len(self.nats_names) > 1:
            routes = ", ".join(f'"nats-route://127.0.0.1:{ports[2]}"' for ports in self.nats_ports.values())
            text += f'cluster {{ name: faults, listen: "127.0.0.1:{route}", routes: [{routes}] }}\n'
        path = self.directory / f"{name}.conf"
        path.write_text(text)
        return path

    # --- Processes

    def launcher(self, name):
        return self.namespaces[name].launcher() if name in self.namespaces else []

    def admin_host(self, name):
        return self.namespaces[name].inside if name in self.namespaces else "127.0.0.1"

    def set_link(self, name, state):
        self.namespaces[name].set_link(state)

    def _keep_logs(self):
        super()._keep_logs()
        for namespace in self.namespaces.values():
            namespace.close()

    def start_nats(self):
        for name in self.nats_names:
            self.launch(name)
        self.wait_ready(*self.nats_names)

    def launch(self, name):
        if not name.startswith("nats"):
            return super().launch(name)
        self.processes[name] = Process(name, ["nats-server", "-c", self.nats_config(name)], self.directory,
                                       self.nats_ports[name][1], "/healthz")
        return self.processes[name]

    def names(self):
        return self.nats_names + self.shard_names + self.gateway_names

    def freeze(self, name):
        self.processes[name].signal(signal.SIGSTOP)

    def thaw(self, name):
        self.processes[name].signal(signal.SIGCONT)

    def terminate(self, name, want_status=0):
        self.processes[name].signal(signal.SIGTERM)
        self.wait_end(name, (want_status,))

    def wait_end(self, name, statuses=(0,)):
        """The good end of what was told to end."""
        process = self.processes.pop(name)
        status = process.wait()
        # nats-server ends a SIGTERM with status 1.
        self._check_ended(process, status if name.startswith("nats") or status in statuses else statuses[0])

    def kill_all(self, *names):
        dying = [self.processes.pop(name) for name in names]
        for process in dying:
            process.signal(signal.SIGKILL)
        for process in dying:
            process.wait()

    def restore(self):
        """Starts what is missing and waits until everything is ready and agrees on who is there."""
        for name in self.names():
            if name not in self.processes:
                self.launch(name)
        self.wait_whole()

    def wait_whole(self):
        self.wait_ready(*self.names())

        def agreed():
            views = {(m.get("signalbox_view_generation"), m.get("signalbox_view_sequence"), m.get("signalbox_view_shards"),
                      m.get("signalbox_view_gateways")) for m in map(self.metrics_of, self.shard_names + self.gateway_names)}
            return len(views) == 1 and views.pop()[2:] == (len(self.shard_names), len(self.gateway_names))
        wait_for(agreed, "one view with everybody in it", WHOLE_TIMEOUT_S, 0.05)

    def metrics_of(self, name):
        try:
            return self.processes[name].metrics()
        except (KeyError, RuntimeError):
            return {}

    def bus_losses(self):
        """{(name, pid): how often this process has lost its connection to NATS}"""
        return {(name, self.processes[name].pid): self.metrics_of(name).get("signalbox_bus_losses_total", 0)
                for name in present(self, *self.shard_names, *self.gateway_names)}

    def connections(self):
        return sum(self.metrics_of(name).get("active_websocket_connections", 0) for name in self.gateway_names)

    def wait_connections(self, count, timeout_s):
        """False if not so many clients are connected in time: whoever judges the run will see that too."""
        try:
            wait_for(lambda: self.connections() >= count, "connections", timeout_s, 0.05)
        except TimeoutError:
            return False
        return True

    def view(self):
        """The view as signalboxctl shows it; waits while the log cannot be read."""
        servers = ",".join(f"nats://127.0.0.1:{ports[0]}" for ports in self.nats_ports.values())
        command = [self.build / "ctl" / "signalboxctl", "view", "--json", "--nats", servers]

        def ask():
            done = subprocess.run(command, capture_output=True, text=True)
            return json.loads(done.stdout) if done.returncode == 0 else None
        return wait_for(ask, "signalboxctl to read the view", step_s=0.2)

    def nats_ids(self):
        """{server's id, as processes name it: its name here} of those that run."""
        ids = {}
        for name in self.nats_names:
            status, text = http_get(f"http://127.0.0.1:{self.nats_ports[name][1]}/varz", 2) if name in self.processes else (0, "")
            if status == 200:
                ids[json.loads(text)["server_id"]] = name
        return ids

    def log_states(self):
        """(server, what it says of the view log's replicas) of those that know the log."""
        for name in present(self, *self.nats_names):
            status, text = http_get(f"http://127.0.0.1:{self.nats_ports[name][1]}/jsz?streams=1", 2)
            for account in json.loads(text).get("account_details", []) if status == 200 else []:
                for stream in account.get("stream_detail", []):
                    if stream["name"] == "SBX_VIEW":
                        yield name, stream.get("cluster", {})

    def log_leader(self):
        """Which server leads the view log; None while it has no leader."""
        return next((cluster["leader"] for _, cluster in self.log_states() if cluster.get("leader")), None)

    def wait_log(self):
        """Until the view log has all of its replicas: as whoever restarts one server after another must."""
        def is_whole():
            return any(cluster.get("leader") == name and all(replica.get("current") for replica in cluster.get("replicas", []))
                       for name, cluster in self.log_states())
        wait_for(is_whole, "the view log to have its replicas", WHOLE_TIMEOUT_S)

    def shards_on(self, server):
        """How many of the view's shards are connected to it."""
        ids = self.nats_ids()
        return sum(ids.get(shard.get("natsServer")) == server for shard in self.view()["shards"])

    def move_log_leader(self, wanted):
        """Has the leader of the view log step down until `wanted(leader)`; returns the leader."""
        while True:
            leader = wait_for(self.log_leader, "a leader of the view log", WHOLE_TIMEOUT_S)
            if wanted(leader):
                return leader
            with socket.create_connection(("127.0.0.1", self.nats_ports[leader][0]), 2) as nats:
                nats.sendall(b"CONNECT {}\r\nPUB $JS.API.STREAM.LEADER.STEPDOWN.SBX_VIEW 0\r\n\r\nPING\r\n")
                for line in nats.makefile("rb"):
                    if line.startswith(b"PONG"):
                        break
            wait_for(lambda: self.log_leader() not in (None, leader), f"another leader of the view log than {leader}",
                     WHOLE_TIMEOUT_S)

    def nats_by_use(self):
        """NATS servers, the one with the most processes on it first, other than those that something else befalls, the leader of
        the view log last: whoever loses that one waits for another. The leader is another one than all those are connected to."""
        view, ids = self.view(), self.nats_ids()
        used = [ids[node["natsServer"]] for node in view["shards"] + view["gateways"]
                if node.get("natsServer") in ids and node["id"] not in self.victims.values()]
        leader = self.move_log_leader(lambda leader: any(name != leader for name in used))
        return sorted(self.nats_names, key=lambda name: (name == leader, -used.count(name)))

    def shards_in_company(self):
        """Shards on whose NATS server there is another process, and then the others."""
        view = self.view()
        used = collections.Counter(node.get("natsServer") for node in view["shards"] + view["gateways"])
        order = sorted(view["shards"], key=lambda shard: (used[shard.get("natsServer")] < 2, shard["id"]))
        return [shard["id"] for shard in order]

    def seclude(self):
        """Has the shard that is to be alone connect its bus to the last NATS server, and its view log to another one."""
        ids, shard = self.nats_ids(), next(shard for shard in self.view()["shards"] if shard["id"] == self.alone)
        others = self.nats_names[:-1]
        if ids.get(shard.get("natsServer")) in others:
            refusals = [["OUTPUT", "-p", "tcp", "--dport", str(self.nats_ports[name][0]), "-j", "REJECT", "--reject-with",
                         "tcp-reset"] for name in others]
            command = [*self.namespaces[self.alone].launcher(), "iptables", "-w"]
            for rule in refusals:
                subprocess.run([*command, "-A", *rule], check=True, capture_output=True)
            self.kill_all(self.alone)
            self.restore()
            for rule in refusals:
                subprocess.run([*command, "-D", *rule], check=True, capture_output=True)

        def is_there_too():
            texts = [http_get(f"http://127.0.0.1:{self.nats_ports[name][1]}/connz", 2)[1] for name in others]
            return any(f"-{self.alone}\"" in text for text in texts)
        wait_for(is_there_too, "the secluded shard's second connection", WHOLE_TIMEOUT_S, 0.2)

    def incarnations(self):
        """{shard: incarnation} of the present view, as histories have them."""
        return {shard["id"]: int(shard["incarnation"], 16) for shard in self.view()["shards"]}

    # --- The network

    @staticmethod
    def filter_packets(action, *matches):
        for chain, match in matches:
            subprocess.run(["iptables", "-w", action, chain, "-i", "lo", *match, "-j", "DROP"], check=True, capture_output=True)

    def client_matches(self, network):
        """Both ways, and only between clients and gateways."""
        return [("INPUT", ["-p", "tcp", way, network, "--" + side, str(port)]) for port in self.ports.values()
                for way, side in (("-s", "dport"), ("-d", "sport"))]

    def cut_clients(self, *networks):
        for network in networks:
            self.filter_packets("-A", *self.client_matches(network))

    def count_dropped(self):
        """Between this fleet's clients and gateways; the rules that dropped them are about to go."""
        text = subprocess.run(["iptables", "-w", "-nvxL", "INPUT"], check=True, capture_output=True, text=True).stdout
        ours = tuple(f"pt:{port}" for port in self.ports.values())
        self.packets_dropped += sum(int(line.split()[0]) for line in text.splitlines() if line.rstrip().endswith(ours))

    def reconnect_clients(self, *networks):
        self.count_dropped()
        for network in networks:
            self.filter_packets("-D", *self.client_matches(network))

    def bus_matches(self, name):
        return [("INPUT", ["-s", self.bus_address(name)]), ("INPUT", ["-d", self.bus_address(name)])]

    def cut_bus(self, name):
        self.filter_packets("-A", *self.bus_matches(name))

    def reconnect_bus(self, name):
        self.filter_packets("-D", *self.bus_matches(name))
