#!/usr/bin/env python3
"""Usage: bench_rooms.py NAME BUILD_DIR PORT [PARTICIPANTS]

The benchmarks of scripts/bench that compare arms: fanout, noisy, coalesce. Each starts what it needs (clusters by
scripts/up, other servers), lets signalbox-fan load it, prints figures and writes build/bench-NAME.json. Exit status 1 if
a figure falls short of its bar.
"""

import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
import urllib.request

from bench_results import figure, line, machine

ROOT = pathlib.Path(__file__).resolve().parents[1]
PEERS = ROOT / "tests/load/peers"
OUT = ROOT / "build/bench" / sys.argv[1] if len(sys.argv) > 1 else ROOT / "build/bench"
UNLIMITED = "1000000"
WINDOWS = (1, 8, 32)
# Of the room of 2,000, at each window.
NODE_BARS = {1: 1.5, 8: 2.3, 32: 5.5}
CONTROL_BAR = 0.85
SOCKETIO_BAR = 5
NOISY_BAR = 1.2
STALE_BAR_MS = 250
# client.queue_bytes: what one slow client may make a gateway hold.
QUEUE_BYTES = 1048576

ROOM_KEYS = ("joins", "negotiations", "candidates", "messages", "signals", "bytes", "delivery_bytes")
GATEWAY_OPEN = {"limits.messages_per_s": UNLIMITED, "limits.messages_burst": UNLIMITED, "limits.signals_per_s": UNLIMITED,
                "limits.signals_burst": UNLIMITED, "limits.bytes_per_s": "1073741824", "limits.bytes_burst": "1073741824",
                "limits.abuse_strikes": UNLIMITED}
SHARD_OPEN = {f"limits.room_{key}_per_s": "0" for key in ROOM_KEYS}


def step(text):
    print(f"==> {text}", file=sys.stderr, flush=True)


class Bench:
    def __init__(self, build, port):
        self.build, self.port = pathlib.Path(build), port
        self.processes, self.clusters = [], []
        self.figures, self.details = [], []
        shutil.rmtree(OUT, ignore_errors=True)
        OUT.mkdir(parents=True)

    def figure(self, *arguments):
        entry = figure(*arguments)
        self.figures.append(entry)
        print(line(entry, ""), flush=True)

    def spawn(self, name, command, core=None):
        """A server of ours or another's; waits until its port (the last word's) answers."""
        log = open(OUT / f"{name}.log", "w")
        command = ([] if core is None else ["taskset", "-c", str(core)]) + [str(word) for word in command]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def wait_port(self, port, process):
        deadline = time.monotonic() + 30
        while subprocess.run(["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port}"], stderr=subprocess.DEVNULL).returncode != 0:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"nothing listens on port {port}; the logs are in {OUT}")
            time.sleep(0.05)

    def cluster(self, name, port, gateways=1, shards=1, gateway=None, shard=None, like=None):
        """`like`: another cluster whose API key this one takes too."""
        if like is not None:
            (OUT / name).mkdir()
            shutil.copy(like.run / "secrets.env", OUT / name)
        cluster = Cluster(name, port, self.build, gateways, shards, gateway or {}, shard or {})
        self.clusters.append(cluster)
        return cluster

    def stop(self):
        for process in self.processes:
            process.terminate()
        for cluster in self.clusters:
            cluster.stop()
        for process in self.processes:
            process.wait(20)

    def fan(self, label, options, environment):
        command = [str(self.build / "tests/load/signalbox-fan")] + [str(option) for option in options]
        result = subprocess.run(command, stdout=subprocess.PIPE, env={**os.environ, **environment}, timeout=400)
        if result.returncode != 0:
            raise SystemExit(f"signalbox-fan failed in {label}: {' '.join(command)}")
        data = json.loads(result.stdout)
        self.details.append({"run": label, **data})
        return data

    def clients(self, result, prefix=""):
        """How long the load process itself was away from its connections: latencies are that much too long at most."""
        turns = result["client_turns"]
        self.figure(f"{prefix}client_loop_p99", turns["p99_us"] / 1000, "ms")
        self.figure(f"{prefix}client_loop_max", turns["max_us"] / 1000, "ms")

    def finish(self, name):
        good = all(entry.get("ok", True) for entry in self.figures)
        with open(ROOT / f"build/bench-{name}.json", "w") as file:
            json.dump({"bench": name, "ok": good, "machine": machine(), "figures": self.figures, "runs": self.details}, file, indent=2)
            file.write("\n")
        print(f"bench {name}: {'ok' if good else 'short'}, {len(self.figures)} figures, build/bench-{name}.json")
        return 0 if good else 1


class Cluster:
    def __init__(self, name, port, build, gateways, shards, gateway, shard):
        self.run, self.port, self.gateways, self.shards = OUT / name, port, gateways, shards
        self.env = {"SIGNALBOX_RUN": str(self.run), "SIGNALBOX_BUILD": str(build)}
        command = [str(ROOT / "scripts/up"), "--no-build", "--port", str(port), "--gateways", str(gateways), "--shards", str(shards)]
        for option, values in (("--gateway-set", gateway), ("--shard-set", shard)):
            for key, value in values.items():
                command += [option, f"{key}={value}"]
        with open(OUT / f"{name}-up.log", "w") as log:
            if subprocess.run(command, env={**os.environ, **self.env}, stdout=log, stderr=log).returncode != 0:
                raise SystemExit(f"a cluster did not start; see {OUT}/{name}-up.log")
        for text in (self.run / "secrets.env").read_text().splitlines():
            key, _, value = text.partition("=")
            self.env[key.removeprefix("export ")] = value.strip("'\"")
        self.certificate, self.key = self.run / "tls/server.pem", self.run / "tls/server.key"

    def stop(self):
        subprocess.run([str(ROOT / "scripts/down")], env={**os.environ, **self.env}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def urls(self):
        return ",".join(f"wss://127.0.0.1:{self.port + i}" for i in range(self.gateways))

    def pids(self, kind):
        return [path.read_text().strip() for path in sorted(self.run.glob(f"{kind}*.pid"))]

    def cpu(self, label, *kinds):
        return ["--cpu", f"{label}=" + ",".join(pid for kind in kinds for pid in self.pids(kind))]

    def pin(self, core, *kinds):
        for kind in kinds:
            for pid in self.pids(kind):
                subprocess.run(["taskset", "-a", "-cp", str(core), pid], stdout=subprocess.DEVNULL, check=True)

    def metrics(self):
        """All counters of all processes, by name."""
        totals = {}
        ports = [self.port + 101 + i for i in range(self.gateways)] + [self.port + 201 + i for i in range(self.shards)]
        for port in ports:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                for text in answer.read().decode().splitlines():
                    if not text.startswith("#"):
                        name, value = text.rsplit(" ", 1)
                        totals[name] = totals.get(name, 0) + float(value)
        return totals


# --- fanout ----------------------------------------------------------------------------------------------------------

def per_core_second(result, label):
    deliveries = sum(group["deliveries"] for group in result["groups"].values())
    return deliveries / max(result["cpu_s"][label], 0.01)


def fanout(bench, members):
    """Deliveries per second of CPU time: the gateway alone beside Node's ws and a bare server, each on core 0; and all of
    Signalbox beside all of socket.io with Redis."""
    cluster = bench.cluster("cluster", bench.port, gateway=GATEWAY_OPEN, shard=SHARD_OPEN)
    cluster.pin(0, "gateway")
    tls = [cluster.certificate, cluster.key]
    control_port, ws_port, redis_port, io_port = (bench.port + offset for offset in (60, 61, 62, 63))
    control = bench.spawn("control", [bench.build / "tests/load/signalbox-control", f"127.0.0.1:{control_port}", *tls], core=0)
    ws = bench.spawn("ws", ["node", PEERS / "ws.mjs", ws_port, *tls], core=0)
    bench.wait_port(control_port, control)
    bench.wait_port(ws_port, ws)
    arms = {
        "signalbox": (["--dialect", "signalbox", "--url", cluster.urls()], cluster.cpu("server", "gateway")
                      + cluster.cpu("all", "gateway", "shard", "nats")),
        "control": (["--dialect", "control", "--url", f"wss://127.0.0.1:{control_port}"], ["--cpu", f"server={control.pid}"]),
        "node_ws": (["--dialect", "ws", "--url", f"wss://127.0.0.1:{ws_port}"], ["--cpu", f"server={ws.pid}"]),
    }
    for size in (10, 100, members):
        for window in WINDOWS:
            rates = {}
            rounds = {arm: [] for arm in arms}
            for _ in range(2):  # alternated, so that whatever else runs meets all of them
                for arm, (options, cpu) in arms.items():
                    step(f"fanout: rooms of {size}, {window} outstanding, {arm}")
                    group = f"rooms={members // size},size={size},senders=1,outstanding={window},bytes=200"
                    rounds[arm].append(bench.fan(f"fanout-{size}-{window}-{arm}", [*options, "--group", group, *cpu, "--seconds", 3],
                                                 cluster.env))
            for arm, results in rounds.items():
                rates[arm] = statistics.mean(per_core_second(result, "server") for result in results)
                bench.figure(f"{arm}_room_{size}_outstanding_{window}", rates[arm], "deliveries_per_core_second")
            judged = size == members
            bench.figure(f"to_node_ws_room_{size}_outstanding_{window}", rates["signalbox"] / rates["node_ws"], "times",
                         *((">=", NODE_BARS[window]) if judged else ()))
            bench.figure(f"to_control_room_{size}_outstanding_{window}", rates["signalbox"] / rates["control"], "times",
                         *((">=", CONTROL_BAR) if judged else ()))
    end_to_end(bench, members, redis_port, io_port)


def end_to_end(bench, members, redis_port, io_port):
    for cluster in bench.clusters:
        cluster.stop()
    bench.clusters.clear()
    cluster = bench.cluster("cluster2", bench.port, gateways=2, gateway=GATEWAY_OPEN, shard=SHARD_OPEN)
    redis = bench.spawn("redis", ["redis-server", "--port", redis_port, "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"])
    bench.wait_port(redis_port, redis)
    nodes = [bench.spawn(f"socketio-{i}", ["node", PEERS / "socketio.mjs", io_port + i, cluster.certificate, cluster.key, redis_port])
             for i in range(2)]
    for i, node in enumerate(nodes):
        bench.wait_port(io_port + i, node)
    io_cpu = ["--cpu", "all=" + ",".join(str(process.pid) for process in (redis, *nodes))]
    io_urls = ",".join(f"wss://127.0.0.1:{io_port + i}" for i in range(2))
    for window in WINDOWS:
        group = f"size={members},senders=1,outstanding={window},bytes=200"
        rates = {}
        for arm, options in {"signalbox": ["--url", cluster.urls(), *cluster.cpu("all", "gateway", "shard", "nats")],
                             "socketio": ["--dialect", "socketio", "--url", io_urls, *io_cpu]}.items():
            step(f"fanout end to end: room of {members}, {window} outstanding, {arm}")
            result = bench.fan(f"end-to-end-{window}-{arm}", [*options, "--group", group, "--seconds", 4], cluster.env)
            rates[arm] = per_core_second(result, "all")
            bench.figure(f"end_to_end_{arm}_outstanding_{window}", rates[arm], "deliveries_per_core_second")
        bench.figure(f"end_to_end_to_socketio_outstanding_{window}", rates["signalbox"] / rates["socketio"], "times", ">=", SOCKETIO_BAR)


# --- noisy -----------------------------------------------------------------------------------------------------------

def noisy(bench, members):
    """Steady rooms on cluster 0; the noise on the same cluster, or, in the control arm, on another one on the same cores."""
    # A budget that a few clients can exceed a hundred times, and nobody is closed for it: the worst case goes on.
    budget = {**GATEWAY_OPEN}
    shard = {"limits.room_signals_per_s": "50", "limits.room_messages_per_s": "50"}
    clusters = [bench.cluster("cluster-a", bench.port, gateway=budget, shard=shard)]
    clusters.append(bench.cluster("cluster-b", bench.port + 300, gateway=budget, shard=shard, like=clusters[0]))
    urls = [option for cluster in clusters for option in ("--url", cluster.urls())]
    steady = "name=steady,rooms=200,size=5,senders=1,kind=message,rate=2,bytes=200"
    noises = {"noise": "name=noise,size=5,senders=5,kind=signal,rate=1000,bytes=200",
              "storm": f"name=storm,size={members},join_at=1.5,join_rate=400"}
    for noise, group in noises.items():
        p99 = {"same": [], "other": []}
        for round_number in range(5):
            for arm, cluster in (("same", 0), ("other", 1)):
                step(f"noisy: {noise}, round {round_number + 1} of 5, on the {arm} cluster")
                result = bench.fan(f"noisy-{noise}-{arm}", [*urls, "--group", steady, "--group", f"{group},cluster={cluster}",
                                                            "--seconds", 8], clusters[0].env)
                group_result = result["groups"]["steady"]
                p99[arm].append(group_result["latency"]["p99_us"] / 1000)
                if group_result["disconnects"] > 0:
                    bench.figure(f"{noise}_{arm}_disconnects", group_result["disconnects"], "count", "<=", 0)
        for arm, values in p99.items():
            bench.figure(f"{noise}_{arm}_cluster_others_p99", statistics.median(values), "ms")
        bench.figure(f"{noise}_others_p99_to_control", statistics.median(p99["same"]) / statistics.median(p99["other"]), "times", "<=", NOISY_BAR)
    costs = subprocess.run([bench.build / "tests/load/signalbox-budget-cost"], stdout=subprocess.PIPE, text=True, check=True).stdout
    for name, cost in (text.split() for text in costs.splitlines()[:2]):
        bench.figure(f"budget_check_{name}", float(cost), "ns")
    totals = clusters[0].metrics()
    for name in ("p0_control", "p1_negotiation", "p2_candidates"):
        bench.figure(f"dropped_{name}", totals[f'rtc_room_updates_dropped_total{{class="{name}"}}'], "updates", "<=", 0)
    bench.figure("dropped_p3_membership", totals['rtc_room_updates_dropped_total{class="p3_membership"}'], "updates")
    bench.figure("dropped_p4_ephemeral", totals['rtc_room_updates_dropped_total{class="p4_ephemeral"}'], "updates")


# --- coalesce --------------------------------------------------------------------------------------------------------

def coalesce(bench, members):
    """50 speakers, 50 updates a second each, in a room of 500: as it is, and with nothing that could be coalesced."""
    size = min(500, members)
    cluster = bench.cluster("cluster", bench.port, gateways=2, gateway=GATEWAY_OPEN)
    speak = f"name=speakers,size={size},senders=50,kind=signal,rate=50,bytes=64"
    options = ["--url", cluster.urls(), *cluster.cpu("gateways", "gateway")]
    step("coalesce: with")
    result = bench.fan("coalesced", [*options, "--group", speak, "--seconds", 10, "--warm-up", 8], cluster.env)
    speakers = result["groups"]["speakers"]
    seconds = result["seconds"]
    bench.figure("latest_state_p99", speakers["staleness"]["p99_us"] / 1000, "ms", "<=", STALE_BAR_MS)
    bench.figure("latest_state_max", speakers["staleness"]["max_us"] / 1000, "ms")
    bench.clients(result)
    bench.figure("receiver_speaker_pairs_heard", speakers["deliveries"] / seconds, "deliveries_per_s")
    bench.figure("bytes_with_coalescing", speakers["bytes_received"] / seconds, "bytes_per_s")
    bench.figure("gateway_cpu_with_coalescing", 100 * result["cpu_s"]["gateways"] / seconds, "percent_of_a_core")
    cluster.stop()
    bench.clusters.clear()
    cluster = bench.cluster("cluster2", bench.port, gateways=2, gateway=GATEWAY_OPEN, shard=SHARD_OPEN)
    options = ["--url", cluster.urls(), *cluster.cpu("gateways", "gateway")]
    step("coalesce: without")
    result = bench.fan("not-coalesced", [*options, "--group", f"{speak},unique_keys=1", "--seconds", 10, "--warm-up", 3], cluster.env)
    without = result["groups"]["speakers"]
    bench.figure("bytes_without_coalescing", without["bytes_received"] / result["seconds"], "bytes_per_s")
    bench.figure("gateway_cpu_without_coalescing", 100 * result["cpu_s"]["gateways"] / result["seconds"], "percent_of_a_core")


# --- slow ------------------------------------------------------------------------------------------------------------

class MemoryWatch(threading.Thread):
    """The greatest resident memory of some processes while it runs."""

    def __init__(self, pids):
        super().__init__(daemon=True)
        self.pids, self.done = pids, threading.Event()
        self.before = self.greatest = self.now()

    def now(self):
        pages = sum(int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.pids)
        return pages * os.sysconf("SC_PAGE_SIZE")

    def run(self):
        while not self.done.wait(0.2):
            self.greatest = max(self.greatest, self.now())


def slow(bench, members):
    """5% of the clients, in the rooms of the others, stop reading for 30 s and come back. The control is a run in which
    nobody does."""
    cluster = bench.cluster("cluster", bench.port, gateways=2, gateway=GATEWAY_OPEN, shard=SHARD_OPEN)
    group = f"name=room,rooms={members // 40},size=20,senders=1,rate=10,bytes=4000,join_rate=300"
    results, growth = {}, {}
    for arm, stall in (("control", ""), ("slow", ",stall=5,stall_at=3,stall_for=30")):
        step(f"slow: {arm}")
        watch = MemoryWatch(cluster.pids("gateway"))
        watch.start()
        results[arm] = bench.fan(f"slow-{arm}", ["--url", cluster.urls(), "--group", group + stall, "--seconds", 45],
                                 cluster.env)["groups"]["room"]
        watch.done.set()
        growth[arm] = watch.greatest - watch.before
    slow_ones = results["slow"]["stalled"]
    bench.figure("clients", results["slow"]["clients"], "clients")
    bench.figure("clients_that_stopped_reading", slow_ones, "clients")
    bench.figure("gateways_memory_growth_control", growth["control"], "bytes")
    bench.figure("gateways_memory_growth_slow", growth["slow"], "bytes")
    bench.figure("gateways_memory_growth_per_slow_client", growth["slow"] / max(slow_ones, 1), "bytes", "<=", QUEUE_BYTES)
    for arm, result in results.items():
        bench.figure(f"others_p99_{arm}", result["latency"]["p99_us"] / 1000, "ms")
    bench.figure("others_p99_to_control", results["slow"]["latency"]["p99_us"] / results["control"]["latency"]["p99_us"], "times",
                 "<=", NOISY_BAR)
    bench.figure("others_disconnected", results["slow"]["disconnects"], "count", "<=", 0)
    bench.figure("slow_clients_resumed", results["slow"]["resumed"], "clients")
    bench.figure("slow_clients_with_a_wrong_roster", results["slow"]["rosters_wrong"], "clients", "<=", 0)


BENCHMARKS = {"slow": slow, "fanout": fanout, "noisy": noisy, "coalesce": coalesce}


def main():
    name, build, port, *rest = sys.argv[1:]
    bench = Bench(build, int(port))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        BENCHMARKS[name](bench, int(rest[0]) if rest else 2000)
        return bench.finish(name)
    finally:
        bench.stop()


if __name__ == "__main__":
    sys.exit(main())
