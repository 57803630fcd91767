#!/usr/bin/env python3
"""record_day.py FILE [--commit ID]

Records a day of a real cluster, an hour in a minute: people come in the morning, a gateway is killed and others lose their networks
at midday, people leave in the evening. The chart's autoscaler, its times and its number of connections made as small as the
day, decides after Prometheus's answers how many gateways there are; each one that it takes away drains. FILE gets what Prometheus
saw, what was drained, and whether anybody lost anything. Takes five minutes and the machine for itself:

    build/venv/bin/python3 tests/deploy/record_day.py tests/deploy/recorded_day.json
"""

import argparse
import copy
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

import yaml

import chart_tools as chart
import hpa
import nats_cluster as cluster
from prometheus import Prometheus
from swarm import Swarm, broken_promises

COMPRESSION = 60  # seconds of the day in one of the recording
GROUP_SIZE, JOIN_RATE = 60, 8  # people in a swarm, and how many of them come in a second
CONNECTIONS_TARGET, GATEWAYS_MIN, GATEWAYS_MAX = 100, 2, 10
SHARDS = 3
SCRAPE_S = 1
RATE_WINDOW_S = 5  # of 1 s scrapes; the chart's queries have 5 minutes
NIGHT_S, PLATEAU_S, STORM_S, PAUSE_S = 15, 20, 40, 9
RESTART_S = 3  # until a killed gateway is there again
PODS_SIGNALS = ("active_websocket_connections", "fanout_queue_depth")
SERIES = {
    "connections": "sum(active_websocket_connections)",
    "gateways": 'count(up{pod=~".*-gateway-.*"} == 1)',
    "gateway_cpu_cores": 'sum(rate(process_cpu_seconds_total{pod=~".*-gateway-.*"}[WINDOW]))',
    "shard_cpu_cores": 'sum(rate(process_cpu_seconds_total{pod=~".*-shard-.*"}[WINDOW]))',
    "gateway_queue": 'sum(fanout_queue_depth{pod=~".*-gateway-.*"})',
    "shard_queue": 'sum(fanout_queue_depth{pod=~".*-shard-.*"})',
    "returned_per_s": 'sum(rate(signalbox_reconnects_total{outcome=~"recovered|resumed"}[WINDOW]))',
    "decided_per_s": 'sum(rate(signalbox_reconnects_total{outcome!="abandoned"}[WINDOW]))',
}
JOIN_BUCKETS = "sum by (le) (rate(signalbox_join_latency_seconds_bucket[WINDOW]))"


def compressed(spec):
    """The gateways' autoscaler for the recording's size and pace."""
    spec = copy.deepcopy(spec)
    spec["minReplicas"], spec["maxReplicas"] = GATEWAYS_MIN, GATEWAYS_MAX
    for metric in spec["metrics"]:
        if metric.get("pods", {}).get("metric", {}).get("name") == "active_websocket_connections":
            metric["pods"]["target"]["averageValue"] = str(CONNECTIONS_TARGET)
    for rules in spec["behavior"].values():
        rules["stabilizationWindowSeconds"] /= COMPRESSION
        for policy in rules["policies"]:
            policy["periodSeconds"] /= COMPRESSION
    return spec


class Day:
    def __init__(self, directory):
        self.directory = directory
        self.port = cluster.free_port()  # all gateways share it
        self.gateways, self.drains, self.leaving = {}, [], []
        self.shards, self.swarms, self.servers = [], [], []
        self.prometheus = Prometheus(cluster.free_port())
        self.sections, self.begun = [], None
        self.lock = threading.Lock()  # of gateways: the autoscaler's thread takes and gives them
        self.over = threading.Event()
        self.replicas = []
        self.failure = None

    def start(self):
        cluster.make_certificates(self.directory)
        self.nats = cluster.NatsServer(self.directory, "single.conf")
        self.servers.append(self.nats)
        self.nats.wait_ready()
        self.shards = [self.member("shard", number) for number in range(1, SHARDS + 1)]
        for number in range(1, GATEWAYS_MIN + 1):
            self.gateways[number] = self.member("gateway", number)
        for member in (*self.shards, *self.gateways.values()):
            member.wait_ready()
        self.write_targets()
        config = {"global": {"scrape_interval": f"{SCRAPE_S}s"},
                  "scrape_configs": [{"job_name": "signalbox", "file_sd_configs": [{"files": ["targets.json"]}]}]}
        (self.directory / "prometheus.yaml").write_text(yaml.safe_dump(config))
        self.servers.append(cluster.Process(self.directory, "prometheus", [
            chart.promtool_path().with_name("prometheus"), f"--config.file={self.directory}/prometheus.yaml",
            f"--storage.tsdb.path={self.directory}/tsdb", f"--web.listen-address=127.0.0.1:{self.prometheus.port}"]))
        cluster.wait_for("Prometheus sees all", lambda: self.prometheus.ask("sum(up)") == [SHARDS + GATEWAYS_MIN])

    def member(self, kind, number):
        return cluster.Member(self.directory, kind, number, [f"nats://127.0.0.1:{self.nats.port}"],
                              port=self.port if kind == "gateway" else None, certificates=self.directory)

    def write_targets(self):
        """For Prometheus, with the labels that the chart's ServiceMonitors give."""
        targets = [{"targets": [f"127.0.0.1:{member.admin_port}"],
                    "labels": {"namespace": "calls", "pod": f"test-signalbox-{member.name}"}}
                   for member in (*self.shards, *self.gateways.values())]
        path = self.directory / "targets.json"
        path.with_suffix(".new").write_text(json.dumps(targets))
        path.with_suffix(".new").rename(path)

    def autoscale(self, spec, queries):
        """In a thread: what the HorizontalPodAutoscaler and the Deployment do."""
        try:
            autoscaler = hpa.Autoscaler(compressed(spec))
            while not self.over.wait(hpa.SYNC_S / COMPRESSION):
                signals = {name: (self.prometheus.ask(in_window(query)) or [None])[0] for name, query in queries.items()}
                by_pod = {name: self.prometheus.ask_by("pod", f"sum by (pod) ({name})") for name in PODS_SIGNALS}
                with self.lock:
                    # Kubernetes leaves out what is being taken away.
                    pods = [f"test-signalbox-{gateway.name}" for gateway in self.gateways.values()]
                    signals |= {name: [values[pod] for pod in pods if pod in values] for name, values in by_pod.items()}
                    count = autoscaler.step(time.time(), len(self.gateways), signals)
                    self.set_gateways(count)
                    if self.sections and (not self.replicas or self.replicas[-1][1] != count):
                        self.replicas.append([round(time.time() - self.begun, 1), count])
        except Exception as error:  # not lost with the thread
            self.failure = error

    def set_gateways(self, count):
        while len(self.gateways) < count:
            number = max(self.gateways) + 1
            self.gateways[number] = self.member("gateway", number)
        while len(self.gateways) > count:
            leaver = self.gateways.pop(max(self.gateways))
            page = leaver.get("/metrics")[1]
            people = next(float(line.split()[1]) for line in page.splitlines() if line.startswith("active_websocket_connections "))
            leaver.process.terminate()
            self.leaving.append((leaver, time.time(), people))
        self.write_targets()

    def kill_gateway(self):
        """The first one, and its people with it; it comes back like a container does."""
        with self.lock:
            os.kill(self.gateways[1].process.pid, signal.SIGKILL)
            self.gateways[1].process.wait()
        time.sleep(RESTART_S)
        with self.lock:
            self.gateways[1] = self.member("gateway", 1)
            self.write_targets()

    def section(self, name):
        """Ends the one before."""
        now = round(time.time() - self.begun, 1)
        if self.sections:
            self.sections[-1]["end_s"] = now
        self.sections.append({"name": name, "begin_s": now})
        print(f"{now:6.1f} s  {name}: {len(self.gateways)} gateways", file=sys.stderr)

    def arrive(self, number):
        swarm = Swarm(self.directory, GROUP_SIZE, [f"wss://127.0.0.1:{self.port}"], "--join-rate", str(JOIN_RATE), "--seed", str(number),
                      name=f"swarm-{number}")
        self.swarms.append(swarm)
        return swarm

    def live(self, groups):
        """The people's day."""
        self.arrive(0).wait_holds()
        self.begun = time.time()
        self.section("night")
        time.sleep(NIGHT_S)
        self.section("morning")
        for number in range(1, groups):
            self.arrive(number)
            time.sleep(PAUSE_S)
        for swarm in self.swarms:
            swarm.wait_holds()
        self.section("forenoon")
        time.sleep(PLATEAU_S)
        self.section("storm")
        for swarm in self.swarms[::3]:
            swarm.tell("renew")
        self.kill_gateway()
        time.sleep(STORM_S - RESTART_S)
        self.section("afternoon")
        time.sleep(PLATEAU_S)
        self.section("evening")
        results = []
        for swarm in self.swarms[:0:-1]:
            results.append(swarm.finish())
            time.sleep(PAUSE_S / 2)
        self.section("late")
        time.sleep(2 * NIGHT_S)
        results.append(self.swarms[0].finish())
        self.sections[-1]["end_s"] = round(time.time() - self.begun, 1)
        return results

    def wait_drained(self):
        for leaver, since, people in self.leaving:
            status = leaver.process.wait(cluster.TIMEOUT_S)
            self.drains.append({"gateway": leaver.name, "at_s": round(since - self.begun, 1), "people": people, "exit_status": status})

    def stop(self):
        self.over.set()
        for each in (*self.swarms, *self.gateways.values(), *(leaver for leaver, _, _ in self.leaving), *self.shards, *self.servers):
            each.stop()


def in_window(query):
    return query.replace("[5m]", f"[{RATE_WINDOW_S}s]").replace("WINDOW", f"{RATE_WINDOW_S}s")


def autoscaler_queries(objects):
    """What the gateways' autoscaler asks for of the whole tier, by the name of the metric."""
    rules = next(yaml.safe_load(each["data"]["config.yaml"]) for each in chart.of_kind(objects, "ConfigMap")
                 if "config.yaml" in each["data"])
    return {rule["name"]["as"]: rule["metricsQuery"] for rule in rules["externalRules"]}


def samples(day, end_s):
    """What Prometheus saw: each series' values at whole seconds of the recording, null where there is none."""
    def column(series):
        values = {round(at - day.begun): float(value) for at, value in series["values"]}
        return [round(values[at], 5) if at in values and values[at] == values[at] else None for at in range(int(end_s))]

    def ask(query):
        return day.prometheus.series(in_window(query), day.begun, day.begun + end_s, SCRAPE_S)
    table = {name: column(ask(query)[0]) for name, query in SERIES.items()}
    table["joins_per_s_within"] = {each["metric"]["le"]: column(each) for each in ask(JOIN_BUCKETS)}
    return table


def record(groups, commit=""):
    """The whole of it, as it goes into the file."""
    objects = chart.render()
    spec = next(each["spec"] for each in chart.of_kind(objects, "HorizontalPodAutoscaler") if each["metadata"]["name"].endswith("-gateway"))
    with tempfile.TemporaryDirectory(prefix="signalbox-day-") as directory:
        day = Day(pathlib.Path(directory))
        try:
            day.start()
            thread = threading.Thread(target=day.autoscale, args=(spec, autoscaler_queries(objects)))
            thread.start()
            results = day.live(groups)
            day.over.set()
            thread.join()
            if day.failure:
                raise day.failure
            table = samples(day, day.sections[-1]["end_s"])
            day.wait_drained()
        finally:
            day.stop()
    broken = [promises for promises in map(broken_promises, results) if promises]
    return {
        "recorded": time.strftime("%Y-%m-%d", time.gmtime()), "commit": commit,
        "command": "tests/deploy/record_day.py tests/deploy/recorded_day.json", "compression": COMPRESSION,
        "people": groups * GROUP_SIZE, "sections": day.sections, "replicas": day.replicas, "drains": day.drains,
        "resumes": sum(result["counters"]["resumes"] for result in results), "broken_promises": broken, "samples": table}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[2])
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--groups", type=int, default=10, help=f"of {GROUP_SIZE} people")
    options = parser.parse_args()
    commit = subprocess.run(["git", "-C", chart.ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    result = record(options.groups, commit)
    options.file.write_text(as_text(result) + "\n")
    print(f"{len(result['drains'])} drains, {result['resumes']} resumes, broken: {result['broken_promises']}", file=sys.stderr)
    return 1 if result["broken_promises"] else 0


def as_text(value, indent=""):
    """JSON with a line for each entry of a dictionary and each list on one line."""
    if not isinstance(value, dict):
        return json.dumps(value)
    entries = ",\n".join(f"{indent} {json.dumps(name)}: {as_text(part, indent + ' ')}" for name, part in value.items())
    return f"{{\n{entries}\n{indent}}}"


if __name__ == "__main__":
    sys.exit(main())
