"""The chart's autoscalers over a day: a morning ramp, a reconnect storm, an evening. The day is synthetic, as DAY says; what a
connection and a join cost a gateway is what scripts/bench measured (docs/PERFORMANCE.md)."""

import copy
import json
import math
import os
import pathlib
import random
import unittest

import chart_tools as chart
import hpa

try:
    import yaml
except ImportError as missing:
    raise unittest.SkipTest(f"{missing}; scripts/test deploy installs it") from missing

HOUR_S = 3600
# People at an hour of the day, lines between; each 15 s they waver by 3%.
DAY = ((0, 3000), (7, 3000), (9, 60000), (18, 60000), (22, 3000), (24, 3000))
WAVER = 0.03
STORM_S, STORM_END_S = 10.5 * HOUR_S, 10.5 * HOUR_S + 180
STORM_SHARE = 1 / 3  # of all people lose their connection at once: a provider's network fails
CPU_S_PER_JOIN = 1.1e-3
CPU_PER_CONNECTION = 40e-6  # of a core, traffic of a call included
QUIET_JOIN_P95_S, STORM_JOIN_P95_S, STORM_FAILURES = 0.02, 1.4, 0.12
RATE_WINDOW_S = 300  # of the queries' rate()


def people_at(now_s):
    hour = now_s / HOUR_S
    for (begin, before), (end, after) in zip(DAY, DAY[1:]):
        if hour <= end:
            return before + (after - before) * (hour - begin) / (end - begin)
    return DAY[-1][1]


class Gateways:
    """Connections stay where they are; the balancer gives a new one to the gateway with the fewest."""

    def __init__(self, count):
        self.connections = [0.0] * count
        self.moved = 0.0

    def arrive(self, count):
        """Fills up the emptiest first, as leastconn does."""
        level = sorted(self.connections)
        filled, rest = 0, count
        for i in range(1, len(level) + 1):
            following = level[i] if i < len(level) else math.inf
            room = (following - level[i - 1]) * i
            filled = level[i - 1] + min(rest, room) / i
            rest -= min(rest, room)
            if rest <= 0:
                break
        self.connections = [max(each, filled) for each in self.connections]

    def leave(self, count):
        share = count / max(sum(self.connections), 1)
        self.connections = [each * (1 - share) for each in self.connections]

    def scale(self, count):
        while len(self.connections) < count:
            self.connections.append(0.0)
        while len(self.connections) > count:
            drained = self.connections.pop()
            self.moved += drained
            self.arrive(drained)


def run_day(spec, cpu_request, prefix, waver=WAVER):
    """Each sync: time, replicas, average and greatest number of connections."""
    draw = random.Random(7)
    autoscaler = hpa.Autoscaler(spec)
    gateways = Gateways(spec["minReplicas"])
    gateways.arrive(people_at(0))
    hours = []
    for now_s in range(0, 24 * HOUR_S, hpa.SYNC_S):
        people = people_at(now_s) * (1 + draw.uniform(-waver, waver))
        before = sum(gateways.connections)
        joins = max(0.0, people - before)
        if now_s == STORM_S:
            lost = before * STORM_SHARE
            gateways.leave(lost)
            gateways.arrive(lost)
            joins += lost
        if people > before:
            gateways.arrive(people - before)
        else:
            gateways.leave(before - people)
        replicas = len(gateways.connections)
        average = sum(gateways.connections) / replicas
        cpu = average * CPU_PER_CONNECTION + joins / hpa.SYNC_S / replicas * CPU_S_PER_JOIN
        stormy = STORM_S <= now_s < STORM_END_S + RATE_WINDOW_S
        replicas = autoscaler.step(now_s, replicas, {
            "active_websocket_connections": average, "cpu": 100 * cpu / cpu_request, "fanout_queue_depth": average / 100,
            f"{prefix}_join_p95_seconds": STORM_JOIN_P95_S if stormy else QUIET_JOIN_P95_S,
            f"{prefix}_reconnect_failure_ratio": STORM_FAILURES if stormy else 0.0})
        gateways.scale(replicas)
        hours.append((now_s, replicas, average, max(gateways.connections)))
    return hours, gateways


def turns(day):
    """How often growing turned into shrinking or back."""
    steps = [after[1] - before[1] for before, after in zip(day, day[1:]) if after[1] != before[1]]
    return sum((a > 0) != (b > 0) for a, b in zip(steps, steps[1:]))


class AutoscalingTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.objects = chart.render()
        cls.spec = cls.find(cls.objects, "HorizontalPodAutoscaler", "test-signalbox-gateway")["spec"]
        deployment = cls.find(cls.objects, "Deployment", "test-signalbox-gateway")
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        cls.cpu_request = hpa.quantity(container["resources"]["requests"]["cpu"])
        cls.target = next(hpa.quantity(metric["pods"]["target"]["averageValue"]) for metric in cls.spec["metrics"]
                          if metric.get("pods", {}).get("metric", {}).get("name") == "active_websocket_connections")
        cls.day, cls.gateways = run_day(cls.spec, cls.cpu_request, "test_signalbox")
        path = pathlib.Path(os.environ.get("SIGNALBOX_ARTIFACTS", chart.BUILD)) / "autoscaling.json"
        path.write_text(json.dumps([each for each in cls.day if each[0] % 60 == 0]))

    @staticmethod
    def find(objects, kind, name):
        return next(each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name)

    def replicas_at(self, hour):
        return self.day[int(hour * HOUR_S / hpa.SYNC_S)][1]

    def between(self, begin, end):
        return [each for each in self.day if begin * HOUR_S <= each[0] < end * HOUR_S]

    def changes(self, begin, end):
        part = self.between(begin, end)
        return [(after[0], after[1] - before[1]) for before, after in zip(part, part[1:]) if after[1] != before[1]]

    def test_the_night_has_the_least(self):
        self.assertEqual({each[1] for each in self.between(0, 6.9)}, {self.spec["minReplicas"]})

    def test_the_morning_is_followed(self):
        print("\n    replicas by hour: " + " ".join(f"{hour}:{self.replicas_at(hour)}" for hour in range(24)))
        self.assertTrue(all(change > 0 for _, change in self.changes(7, 10.4)))
        # From the tolerance's edge, and what arrives until the window for growing has passed.
        worst = max(each[2] for each in self.between(7, 10.4))
        self.assertLess(worst, 1.25 * self.target)
        # New gateways are empty and old ones stay full for a while: even these have room.
        self.assertLess(max(each[3] for each in self.between(7, 10.4)), 2 * self.target)
        self.assertAlmostEqual(self.replicas_at(10), 60000 / self.target, delta=0.15 * 60000 / self.target)

    def test_a_storm_adds_and_nothing_goes_soon_after(self):
        before = self.replicas_at(10.4)
        self.assertGreater(self.replicas_at((STORM_S + 120) / HOUR_S), before)
        window_s = self.spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"]
        calm_s = STORM_END_S + RATE_WINDOW_S + window_s
        self.assertTrue(all(change > 0 for _, change in self.changes(10.4, calm_s / HOUR_S - 0.01)))
        self.assertLessEqual(self.replicas_at(16), 1.15 * before)

    def test_the_evening_shrinks_one_by_one(self):
        changes = self.changes(18, 24)
        policy = self.spec["behavior"]["scaleDown"]["policies"][0]
        self.assertTrue(all(change == -policy["value"] for _, change in changes), changes)
        self.assertTrue(all(after[0] - before[0] >= policy["periodSeconds"] for before, after in zip(changes, changes[1:])))
        self.assertLess(max(each[2] for each in self.between(18, 24)), 1.25 * self.target)
        self.assertLessEqual(self.replicas_at(23.9), 1.2 * self.spec["minReplicas"])

    def test_nothing_flaps(self):
        self.assertLessEqual(turns(self.day), 1 + 1 + 1)  # up, down after the storm, perhaps up to midday's size, down

    def test_a_rule_without_patience_would_flap(self):
        hasty = copy.deepcopy(self.spec)
        hasty["behavior"] = {way: {"stabilizationWindowSeconds": 0, "selectPolicy": "Max",
                                   "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}
                             for way in ("scaleUp", "scaleDown")}
        day, _ = run_day(hasty, self.cpu_request, "test_signalbox", waver=0.15)
        self.assertGreater(turns(day), 100)

    def test_a_shard_tier_follows_its_queue_and_its_cpu(self):
        spec = self.find(self.objects, "HorizontalPodAutoscaler", "test-signalbox-shard")["spec"]
        autoscaler, replicas, counts = hpa.Autoscaler(spec), spec["minReplicas"], []
        for now_s in range(0, 4 * HOUR_S, hpa.SYNC_S):
            busy = HOUR_S <= now_s < 2 * HOUR_S  # an hour of 800 messages waiting over all shards' share of eight
            replicas = autoscaler.step(now_s, replicas, {"fanout_queue_depth": (800 if busy else 40) * 8 / replicas, "cpu": 30})
            counts.append((now_s, replicas))
        exact = 800 * 8 / 250
        self.assertTrue(exact / (1 + hpa.TOLERANCE) <= max(count for _, count in counts) <= math.ceil(exact))
        self.assertLessEqual(turns(counts), 1)

    def test_the_algorithm_is_the_documented_one(self):
        """Examples of the documentation: 200m at a target of 100m doubles, 50m halves, 1.1 stays."""
        metric = {"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "100m"}}}
        free = {way: {"stabilizationWindowSeconds": 0, "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}
                for way in ("scaleUp", "scaleDown")}
        spec = {"minReplicas": 1, "maxReplicas": 100, "metrics": [metric], "behavior": free}
        for value, replicas in ((0.2, 20), (0.05, 5), (0.11, 10), (0.0901, 10), (0.111, 12), (None, 10)):
            self.assertEqual(hpa.Autoscaler(spec).step(0, 10, {"m": value}), replicas, value)
        # "5% or 5 pods", with 60 s: 80 replicas lose 5 a minute by the greatest change, 4 by the least.
        for select, left in (("Max", 75), ("Min", 76)):
            spec["behavior"]["scaleDown"] = {"stabilizationWindowSeconds": 0, "selectPolicy": select, "policies": [
                {"type": "Pods", "value": 5, "periodSeconds": 60}, {"type": "Percent", "value": 5, "periodSeconds": 60}]}
            autoscaler = hpa.Autoscaler(spec)
            self.assertEqual(autoscaler.step(0, 80, {"m": 0.01}), left)
            self.assertEqual(autoscaler.step(15, left, {"m": 0.01}), left)
            self.assertLess(autoscaler.step(60, left, {"m": 0.01}), left)


if __name__ == "__main__":
    unittest.main()
