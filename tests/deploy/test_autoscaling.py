"""The chart's autoscalers over a day: a morning ramp, a reconnect storm, an evening. What a real, small cluster had in an hour per
minute (recorded_day.json, by record_day.py) is scaled up and stretched to a day; a worse storm than the recorded one, in which
joins are slow and returns fail, is made up. With --all a day is recorded anew, in small, and judged as it passes."""

import copy
import functools
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

    import record_day
except ImportError as missing:
    raise unittest.SkipTest(f"{missing}; scripts/test deploy installs it") from missing

HOUR_S = 3600
RECORDING = pathlib.Path(__file__).with_name("recorded_day.json")
PEOPLE = 60000  # at noon
# When the recording's sections end in the day. The storm takes as long as it took, everything else is stretched.
SECTIONS_END_H = {"night": 7, "morning": 8.5, "forenoon": 10.5, "storm": None, "afternoon": 18, "evening": 19.5, "late": 24}
RATE_WINDOW_S = 300  # of the queries' rate()
GRACE_S = 600  # in which replicas have followed what changed
WORSE_JOIN_P95_S, WORSE_FAILURES = 1.4, 0.12  # of the storm that is made up


class RecordedDay:
    """The recording as a day of PEOPLE: signals at any second of it, of the whole tier."""

    def __init__(self, recording):
        self.samples = recording["samples"]
        self.scale = PEOPLE / recording["people"]
        self.spans = []  # begin and end in the day, begin and end in the recording
        begin_s = 0
        for section in recording["sections"]:
            length_s = section["end_s"] - section["begin_s"]
            end_h = SECTIONS_END_H[section["name"]]
            end_s = begin_s + length_s if end_h is None else end_h * HOUR_S
            self.spans.append((begin_s, end_s, section["begin_s"], section["end_s"]))
            if section["name"] == "storm":
                self.storm_s = begin_s
            begin_s = end_s

    def position(self, now_s):
        """The second of the recording."""
        begin_s, end_s, from_s, to_s = next(span for span in self.spans if now_s < span[1] or span is self.spans[-1])
        position = int(from_s + (now_s - begin_s) / (end_s - begin_s) * (to_s - from_s))
        return min(position, len(self.samples["connections"]) - 1)

    def at(self, name, now_s):
        """The tier's sum: PEOPLE have so much more of it than those of the recording. The last known, where Prometheus had none."""
        known = (value for value in self.samples[name][self.position(now_s)::-1] if value is not None)
        return next(known, 0.0) * self.scale

    def people(self, now_s):
        return self.at("connections", now_s)

    def window(self, now_s):
        """What the queries look back on: seconds of the recording."""
        return tuple(self.position(at) for at in range(int(max(0, now_s - RATE_WINDOW_S)), int(now_s) + 1, hpa.SYNC_S))

    @staticmethod
    def average(column, window):
        return sum(column[at] or 0.0 for at in window) / len(window)

    def join_p95_s(self, now_s):
        return self.join_p95_of(self.window(now_s))

    def reconnect_failures(self, now_s):
        return self.reconnect_failures_of(self.window(now_s))

    @functools.cache
    def join_p95_of(self, window):
        """As histogram_quantile(0.95, ...) has it; 0 while nobody joins."""
        buckets = sorted((float(le), self.average(column, window)) for le, column in self.samples["joins_per_s_within"].items())
        total = buckets[-1][1]
        if total == 0:
            return 0.0
        below_s = below = 0.0
        for le_s, count in buckets:
            if count >= 0.95 * total:
                return below_s if math.isinf(le_s) else below_s + (le_s - below_s) * (0.95 * total - below) / (count - below)
            below_s, below = le_s, count
        return below_s

    @functools.cache
    def reconnect_failures_of(self, window):
        decided = self.average(self.samples["decided_per_s"], window)
        return max(0.0, 1 - self.average(self.samples["returned_per_s"], window) / decided) if decided else 0.0


class WorseDay(RecordedDay):
    """Joins are slow and returns fail from the storm on, for three minutes and as long as the queries look back."""

    def is_worse(self, now_s):
        return self.storm_s <= now_s < self.storm_s + 180 + RATE_WINDOW_S

    def join_p95_s(self, now_s):
        return WORSE_JOIN_P95_S if self.is_worse(now_s) else super().join_p95_s(now_s)

    def reconnect_failures(self, now_s):
        return WORSE_FAILURES if self.is_worse(now_s) else super().reconnect_failures(now_s)


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


def run_day(spec, day, cpu_request, prefix):
    """Each sync: time, replicas, average and greatest number of connections."""
    autoscaler = hpa.Autoscaler(spec)
    gateways = Gateways(spec["minReplicas"])
    hours = []
    for now_s in range(0, 24 * HOUR_S, hpa.SYNC_S):
        people, before = day.people(now_s), sum(gateways.connections)
        if people > before:
            gateways.arrive(people - before)
        else:
            gateways.leave(before - people)
        replicas = len(gateways.connections)
        average = sum(gateways.connections) / replicas
        replicas = autoscaler.step(now_s, replicas, {
            "active_websocket_connections": average,
            "fanout_queue_depth": day.at("gateway_queue", now_s) / replicas,
            "cpu": 100 * day.at("gateway_cpu_cores", now_s) / replicas / cpu_request,
            f"{prefix}_join_p95_seconds": day.join_p95_s(now_s),
            f"{prefix}_reconnect_failure_ratio": day.reconnect_failures(now_s)})
        gateways.scale(replicas)
        hours.append((now_s, replicas, average, max(gateways.connections)))
    return hours, gateways


def turns(day):
    """How often growing turned into shrinking or back."""
    steps = [after[1] - before[1] for before, after in zip(day, day[1:]) if after[1] != before[1]]
    return sum((a > 0) != (b > 0) for a, b in zip(steps, steps[1:]))


class WaveringDay(RecordedDay):
    """People who come and go all the time."""

    def __init__(self, recording):
        super().__init__(recording)
        self.draw = random.Random(7)

    def people(self, now_s):
        return super().people(now_s) * (1 + self.draw.uniform(-0.15, 0.15))


class AutoscalingTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.objects = chart.render()
        cls.spec = cls.find(cls.objects, "HorizontalPodAutoscaler", "test-signalbox-gateway")["spec"]
        cls.target = next(hpa.quantity(metric["pods"]["target"]["averageValue"]) for metric in cls.spec["metrics"]
                          if metric.get("pods", {}).get("metric", {}).get("name") == "active_websocket_connections")
        cls.recording = json.loads(RECORDING.read_text())
        cls.recorded = RecordedDay(cls.recording)
        cls.day, cls.gateways = cls.run_day(cls.recorded, cls.spec)
        cls.worse_day, _ = cls.run_day(WorseDay(cls.recording), cls.spec)
        path = pathlib.Path(os.environ.get("SIGNALBOX_ARTIFACTS", chart.BUILD)) / "autoscaling.json"
        path.write_text(json.dumps({"recorded": cls.day[::4], "worse": cls.worse_day[::4]}))

    @staticmethod
    def find(objects, kind, name):
        return next(each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name)

    @classmethod
    def cpu_request(cls, kind, name):
        container = cls.find(cls.objects, kind, name)["spec"]["template"]["spec"]["containers"][0]
        return hpa.quantity(container["resources"]["requests"]["cpu"])

    @classmethod
    def run_day(cls, day, spec):
        return run_day(spec, day, cls.cpu_request("Deployment", "test-signalbox-gateway"), "test_signalbox")

    @staticmethod
    def replicas_at(day, hour):
        return day[int(hour * HOUR_S / hpa.SYNC_S)][1]

    @staticmethod
    def between(day, begin, end):
        return [each for each in day if begin * HOUR_S <= each[0] < end * HOUR_S]

    def changes(self, day, begin, end):
        part = self.between(day, begin, end)
        return [(after[0], after[1] - before[1]) for before, after in zip(part, part[1:]) if after[1] != before[1]]

    def test_the_recording_is_of_a_day_in_which_nobody_lost_anything(self):
        recording = self.recording
        self.assertEqual(recording["broken_promises"], [])
        self.assertEqual(max(value or 0 for value in recording["samples"]["connections"]), recording["people"])
        counts = [count for _, count in recording["replicas"]]
        self.assertEqual((counts[0], counts[-1]), (record_day.GATEWAYS_MIN, record_day.GATEWAYS_MIN))
        self.assert_followed(recording)
        # Every step down was a drain, and there were people in most.
        self.assertEqual(len(recording["drains"]), max(counts) - record_day.GATEWAYS_MIN)
        self.assertGreater(sum(drain["people"] for drain in recording["drains"]), 0)
        self.assertEqual({drain["exit_status"] for drain in recording["drains"]}, {0})

    def assert_followed(self, recording):
        """As many gateways as there were people for, and none more: up in the morning, down in the evening, whatever the storm did."""
        counts = [count for _, count in recording["replicas"]]
        self.assertEqual(max(counts), math.ceil(recording["people"] / record_day.CONNECTIONS_TARGET), recording["replicas"])
        self.assertLessEqual(turns([[None, count] for count in counts]), 1, recording["replicas"])

    def test_the_night_has_the_least(self):
        self.assertEqual({each[1] for each in self.between(self.day, 0, 6.9)}, {self.spec["minReplicas"]})

    def test_the_morning_is_followed(self):
        for name, day in (("recorded", self.day), ("worse storm", self.worse_day)):
            print(f"\n    replicas by hour, {name}: " + " ".join(f"{hour}:{self.replicas_at(day, hour)}" for hour in range(24)), end="")
        # Slow joins may call for more than there are people for, once: that goes again at the pace of shrinking.
        self.assertLessEqual(turns(self.between(self.day, 7, 10.4)), 1)
        # From the tolerance's edge, and what arrives until the window for growing has passed.
        morning = self.between(self.day, 7, 10.4)
        self.assertLess(max(each[2] for each in morning), 1.25 * self.target)
        # New gateways are empty and old ones stay full for a while: even these have room.
        self.assertLess(max(each[3] for each in morning), 2 * self.target)
        self.assertAlmostEqual(self.replicas_at(self.day, 10), PEOPLE / self.target, delta=0.15 * PEOPLE / self.target)

    def test_a_storm_takes_nothing_away(self):
        """People who lost their gateway are back before anybody thinks that they have gone."""
        before = self.replicas_at(self.day, 10.4)
        storm = [self.recorded.storm_s + at for at in range(60)]
        self.assertGreater(sum(self.recorded.at("returned_per_s", now_s) for now_s in storm), 0.3 * PEOPLE)
        window_s = self.spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"]
        self.assertTrue(all(change > 0 for _, change in self.changes(self.day, 10.4, (self.recorded.storm_s + window_s) / HOUR_S)))
        self.assertLessEqual(self.replicas_at(self.day, 16), 1.15 * before)

    def test_a_worse_storm_adds_and_nothing_goes_soon_after(self):
        before, storm_s = self.replicas_at(self.worse_day, 10.4), self.recorded.storm_s
        self.assertGreater(self.replicas_at(self.worse_day, (storm_s + 120) / HOUR_S), before)
        window_s = self.spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"]
        calm_s = storm_s + 180 + RATE_WINDOW_S + window_s
        self.assertTrue(all(change > 0 for _, change in self.changes(self.worse_day, 10.4, calm_s / HOUR_S - 0.01)))
        self.assertLessEqual(self.replicas_at(self.worse_day, 16), 1.15 * before)

    def test_the_evening_shrinks_one_by_one(self):
        changes = self.changes(self.day, 18, 24)
        policy = self.spec["behavior"]["scaleDown"]["policies"][0]
        self.assertTrue(all(change == -policy["value"] for _, change in changes), changes)
        self.assertTrue(all(after[0] - before[0] >= policy["periodSeconds"] for before, after in zip(changes, changes[1:])))
        self.assertLess(max(each[2] for each in self.between(self.day, 18, 24)), 1.25 * self.target)
        self.assertLessEqual(self.replicas_at(self.day, 23.9), 1.2 * self.spec["minReplicas"])

    def test_nothing_flaps(self):
        self.assertLessEqual(turns(self.day), 1)  # up in the morning, down in the evening
        self.assertLessEqual(turns(self.worse_day), 3)  # up, down after the storm, perhaps up to midday's size, down

    def test_a_rule_without_patience_would_flap(self):
        hasty = copy.deepcopy(self.spec)
        hasty["behavior"] = {way: {"stabilizationWindowSeconds": 0, "selectPolicy": "Max",
                                   "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}
                             for way in ("scaleUp", "scaleDown")}
        self.assertGreater(turns(self.run_day(WaveringDay(self.recording), hasty)[0]), 100)
        self.assertLessEqual(turns(self.run_day(WaveringDay(self.recording), self.spec)[0]), 3)

    def test_a_shard_tier_follows_its_queue_and_its_cpu(self):
        name = "test-signalbox-shard"
        spec, request = self.find(self.objects, "HorizontalPodAutoscaler", name)["spec"], self.cpu_request("StatefulSet", name)
        # Of the recording, with one that has ten times the work.
        for factor, most in ((1, 64), (10, 64)):
            autoscaler, replicas, counts = hpa.Autoscaler(spec), spec["minReplicas"], []
            for now_s in range(0, 24 * HOUR_S, hpa.SYNC_S):
                cores = self.recorded.at("shard_cpu_cores", now_s) * factor
                replicas = autoscaler.step(now_s, replicas, {
                    "fanout_queue_depth": self.recorded.at("shard_queue", now_s) * factor / replicas,
                    "cpu": 100 * cores / replicas / request})
                counts.append((now_s, replicas, cores))
            print(f"    shards at {factor} times the work: {min(count for _, count, _ in counts)} to {max(count for _, count, _ in counts)}")
            self.assertLessEqual(turns(counts), 3)

    @unittest.skipUnless(os.environ.get("SIGNALBOX_TEST_ALL"), "takes three minutes: with --all")
    def test_a_day_anew(self):
        """People come, a gateway is killed, people go, and each step down of a live autoscaler is a drain."""
        recording = record_day.record(6)
        self.assertEqual(recording["broken_promises"], [])
        self.assert_followed(recording)
        self.assertGreater(len(recording["drains"]), 0)
        self.assertEqual({drain["exit_status"] for drain in recording["drains"]}, {0})

    def test_the_algorithm_is_the_documented_one(self):
        """Examples of the documentation: 200m at a target of 100m doubles, 50m halves, 1.1 stays."""
        metric = {"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "100m"}}}
        free = {way: {"stabilizationWindowSeconds": 0, "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}
                for way in ("scaleUp", "scaleDown")}
        spec = {"minReplicas": 1, "maxReplicas": 100, "metrics": [metric], "behavior": free}
        for value, replicas in ((0.2, 20), (0.05, 5), (0.11, 10), (0.0901, 10), (0.111, 12), (None, 10)):
            self.assertEqual(hpa.Autoscaler(spec).step(0, 10, {"m": value}), replicas, value)
        # Five of ten pods have a value: the others have 0 where it would grow, 100m where it would shrink.
        for values, replicas in (([0.3] * 5, 15), ([0.2] * 5, 10), ([0.15] * 5, 10), ([0.05] * 5, 8), ([], 10)):
            self.assertEqual(hpa.Autoscaler(spec).step(0, 10, {"m": values}), replicas, values)
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
