"""The alerts, told of hours of a cluster that is well, ill in one way, or well again: which of them fire. The chart's rules, evaluated by
promtool over made-up metrics; test_queries.py shows that real processes have these."""

import pathlib
import subprocess
import tempfile
import unittest

import chart_tools as chart

try:
    import yaml
except ImportError as missing:
    raise unittest.SkipTest(f"{missing}; scripts/test deploy installs it") from missing

MINUTES = 420  # more than the longest look back
PODS = {"gateway": ("gateway-5d8c7b9f44-x2x9z", "gateway-5d8c7b9f44-k7m2p"), "shard": ("shard-0", "shard-1")}
PAGE, TICKET = "page", "ticket"


def per_minute(count, until=MINUTES):
    """A counter that stands still after a time."""
    return f"0+{count}x{until} {count * until}x{MINUTES - until}"


def steady(value):
    return f"{value}x{MINUTES}"


# What each pod of a tier has while all is well; 1,000 joins, 100 returns and 600 turns of the loop a minute.
HEALTHY = {
    "gateway": {
        'signalbox_joins_total{outcome="joined"}': per_minute(1000),
        'signalbox_joins_total{outcome="timeout"}': per_minute(0),
        'signalbox_join_latency_seconds_bucket{le="1"}': per_minute(1000),
        "signalbox_join_latency_seconds_count": per_minute(1000),
        'signalbox_reconnects_total{outcome="recovered"}': per_minute(90),
        'signalbox_reconnects_total{outcome="resumed"}': per_minute(10),
        'signalbox_reconnects_total{outcome="abandoned"}': per_minute(50),
        'signalbox_reconnects_total{outcome="window_over"}': per_minute(0),
    },
    "shard": {
        'signalbox_absence_seconds_bucket{le="10"}': per_minute(100),
        "signalbox_absence_seconds_count": per_minute(100),
    },
    "both": {
        "signalbox_bus_up": steady(1),
        "signalbox_view_sequence": steady(12),
        "signalbox_view_shards": steady(2),
        "fanout_queue_depth": steady(20),
        'signalbox_loop_lag_seconds_bucket{le="0.001"}': per_minute(600),
        'signalbox_loop_lag_seconds_bucket{le="0.5"}': per_minute(600),
        'signalbox_loop_lag_seconds_bucket{le="+Inf"}': per_minute(600),
        'rtc_room_updates_dropped_total{class="p3_membership"}': per_minute(0),
        'rtc_room_updates_dropped_total{class="p4_ephemeral"}': per_minute(300),
        "process_open_fds": steady(9000),
        "process_max_fds": steady(20000),
    },
}
TIMEOUTS = 'signalbox_joins_total{outcome="timeout"}'
FAST_JOINS = 'signalbox_join_latency_seconds_bucket{le="1"}'
NO_RETURN = 'signalbox_reconnects_total{outcome="window_over"}'
SOON_BACK = 'signalbox_absence_seconds_bucket{le="10"}'
SHORT_LAGS = 'signalbox_loop_lag_seconds_bucket{le="0.001"}'
DROPPED = 'rtc_room_updates_dropped_total{class="p3_membership"}'

# What differs, by series, and what fires after seven hours of it. A service level's budget burns at 14.4 times its pace for a page
# and at 6 times for a ticket.
STORIES = {
    "all is well": ({}, set()),
    "a few joins without an answer": ({TIMEOUTS: per_minute(0.9)}, set()),
    "0.8% of the joins without an answer": ({TIMEOUTS: per_minute(8)}, {("JoinsUnanswered", TICKET)}),
    "2% of the joins without an answer": ({TIMEOUTS: per_minute(20)}, {("JoinsUnanswered", TICKET), ("JoinsUnanswered", PAGE)}),
    "the same, over for ten minutes": ({TIMEOUTS: per_minute(20, MINUTES - 10)}, {("JoinsUnanswered", TICKET)}),
    "the same, over for forty minutes": ({TIMEOUTS: per_minute(20, MINUTES - 40)}, set()),
    "5% of the joins slow": ({FAST_JOINS: per_minute(950)}, set()),
    "8% of the joins slow": ({FAST_JOINS: per_minute(920)}, {("JoinsSlow", TICKET)}),
    "20% of the joins slow": ({FAST_JOINS: per_minute(800)}, {("JoinsSlow", TICKET), ("JoinsSlow", PAGE)}),
    "4% of the returns fail": ({NO_RETURN: per_minute(4)}, set()),
    "9% of the returns fail": ({NO_RETURN: per_minute(10)}, {("ResumesFail", TICKET), ("ReconnectsFail", PAGE)}),
    "20% of the returns fail": ({NO_RETURN: per_minute(25)},
                                {("ResumesFail", TICKET), ("ResumesFail", PAGE), ("ReconnectsFail", PAGE)}),
    "20% are away for long": ({SOON_BACK: per_minute(80)}, set()),
    "40% are away for long": ({SOON_BACK: per_minute(60)}, {("AwayLong", TICKET)}),
    "80% are away for long": ({SOON_BACK: per_minute(20)}, {("AwayLong", TICKET), ("AwayLong", PAGE)}),
    "processes without NATS": ({"signalbox_bus_up": steady(0)}, {("BusDown", PAGE)}),
    "long queues": ({"fanout_queue_depth": steady(1500)}, {("Queueing", TICKET)}),
    "a busy core": ({SHORT_LAGS: per_minute(500)}, {("LoopLags", TICKET)}),
    "updates of rooms dropped": ({DROPPED: per_minute(1)}, {("UpdatesDropped", TICKET)}),
    "descriptors nearly used up": ({"process_open_fds": steady(19000)}, {("DescriptorsShort", TICKET)}),
}


def series_of(changes, namespace="calls", release="test-signalbox"):
    """As Prometheus would have them of all pods."""
    series = []
    for tier, metrics in HEALTHY.items():
        for pod in PODS["gateway"] + PODS["shard"] if tier == "both" else PODS[tier]:
            for name, values in metrics.items():
                metric, _, labels = name.rstrip("}").partition("{")
                own = f'namespace="{namespace}",pod="{release}-{pod}"'
                series.append({"series": f"{metric}{{{own}{',' + labels if labels else ''}}}", "values": changes.get(name, values)})
    return series


def story_of(name, series, expected):
    return {"name": name, "interval": "1m", "input_series": series, "promql_expr_test": [{
        "expr": 'group by (alertname, severity) (ALERTS{alertstate="firing"})', "eval_time": f"{MINUTES}m",
        "exp_samples": [{"labels": f'{{alertname="Signalbox{alert}",severity="{severity}"}}', "value": 1} for alert, severity in expected]}]}


class AlertsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        objects = chart.render("--set", "monitoring.rules=true")
        cls.rules = next(each["spec"] for each in objects if each["kind"] == "PrometheusRule")

    def evaluate(self, stories):
        with tempfile.TemporaryDirectory(prefix="signalbox-deploy-") as directory:
            (pathlib.Path(directory) / "rules.yaml").write_text(yaml.safe_dump(self.rules))
            path = pathlib.Path(directory) / "stories.yaml"
            path.write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "5m", "tests": stories}))
            done = subprocess.run([chart.promtool_path(), "test", "rules", path], capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def test_what_fires(self):
        stories = [story_of(name, series_of(changes), expected) for name, (changes, expected) in STORIES.items()]
        ahead = [each | {"values": steady(14)} if "shard-0" in each["series"] and "view_sequence" in each["series"] else each
                 for each in series_of({})]
        stories.append(story_of("one is ahead of the others", ahead, {("ViewsDiffer", TICKET)}))
        stories.append(story_of("nothing is scraped", [], {("Absent", PAGE)}))
        status, output = self.evaluate(stories)
        self.assertEqual(status, 0, output)
        # Each has its story, and it can fail.
        fired = {f"Signalbox{alert}" for _, expected in STORIES.values() for alert, _ in expected}
        self.assertEqual({rule["alert"] for group in self.rules["groups"] for rule in group["rules"]} - fired,
                         {"SignalboxViewsDiffer", "SignalboxAbsent"})
        status, output = self.evaluate([story_of("wrong", series_of({TIMEOUTS: per_minute(20)}), set())])
        self.assertNotEqual(status, 0, output)

    def test_what_is_not_this_release_s_is_not_its_business(self):
        ill = {name: values for changes, _ in STORIES.values() for name, values in changes.items()}
        stories = [story_of(f"{namespace} {release}", series_of({}) + series_of(ill, namespace, release), set())
                   for namespace, release in (("others", "test-signalbox"), ("calls", "second-signalbox"))]
        status, output = self.evaluate(stories)
        self.assertEqual(status, 0, output)


if __name__ == "__main__":
    unittest.main()
