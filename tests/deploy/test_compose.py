"""deploy/compose: the cluster built from the checkout, running, loaded, scaled, broken, watched by its own Prometheus.

One cluster for all tests; their names have their order. All of it by Compose 1.29, and with --all once more by Compose 2. Official
images of NATS, HAProxy, coturn and Prometheus are replaced by tests/deploy/compose/Dockerfile; Grafana's is left out, because
Debian has none."""

import json
import math
import os
import pathlib
import re
import sys
import time
import unittest

import chart_tools as chart
import dashboard
import engine as engines
import nats_cluster as cluster
from prometheus import Prometheus
from swarm import Swarm, broken_promises

COMPOSE = chart.ROOT / "deploy" / "compose"
GUIDE = chart.ROOT / "docs" / "OPERATIONS.md"
SERVICES = ("nats", "shard", "gateway", "balancer", "turn", "prometheus")  # all but grafana
TEST_IMAGE = "signalbox-test-services"
TIER_SIZE, TIER_SIZE_LARGE = 2, 4
PEOPLE = 120
IMAGE_MAX_BYTES = 20_000_000
HEALTHY_S, SETTLED_S = 90, 60
STEP_S = 5  # of the picture: as often as Prometheus looks
PORT, TURN_PORT = cluster.free_port(), cluster.free_port()
PROMETHEUS = Prometheus(cluster.free_port())


class Compose1Test(unittest.TestCase):
    COMMAND, VERSION = ["docker-compose"], "1.29."

    @classmethod
    def setUpClass(cls):
        artifacts = pathlib.Path(os.environ.get("SIGNALBOX_ARTIFACTS", chart.BUILD / "compose-test"))
        cls.directory = (artifacts / f"compose-{cls.VERSION[0]}").absolute()
        cls.directory.mkdir(parents=True, exist_ok=True)
        cls.engine = engines.Engine()
        try:
            cls.engine.__enter__()
            cls.addClassCleanup(cls.engine.stop)
            base = cls.engine.base_image()
            cls.find_compose()
        except engines.EngineMissing as reason:
            print(f"\nNOT TESTED: the Compose cluster. There is no Docker engine: {reason}", file=sys.stderr)
            raise unittest.SkipTest(str(reason)) from reason
        state = cls.directory / "state"
        engines.run(COMPOSE / "init", state)
        cls.settings = dict(line.split("=", 1) for line in (state / ".env").read_text().splitlines()
                            if "=" in line and not line.startswith("#"))
        cls.env_file = state / ".env"
        own = {"SIGNALBOX_PORT": PORT, "PROMETHEUS_PORT": PROMETHEUS.port, "TURN_PORT": TURN_PORT, "BASE_IMAGE": base,
               **{name: TEST_IMAGE for name in ("NATS_IMAGE", "HAPROXY_IMAGE", "COTURN_IMAGE", "PROMETHEUS_IMAGE")},
               "SIGNALBOX_IMAGE": "signalbox-test", "COMPOSE_PROJECT_NAME": "signalbox-test"}
        cls.environment = {**cls.engine.environment, **{name: str(value) for name, value in own.items()}}
        cls.engine.docker("build", "-t", TEST_IMAGE, "--build-arg", f"BASE_IMAGE={base}",
                          chart.ROOT / "tests" / "deploy" / "compose")
        cls.addClassCleanup(cls.clean_up)
        cls.compose("down", "--volumes", "--timeout", "1")
        cls.compose("build", "nats", "gateway", "shard")
        cls.scale(TIER_SIZE, TIER_SIZE)

    @classmethod
    def find_compose(cls):
        """There are no settings yet."""
        status, version = engines.run(*cls.COMMAND, "version", "--short", check=False, env=cls.engine.environment)
        assert (status, version[:len(cls.VERSION)]) == (0, cls.VERSION), f"{' '.join(cls.COMMAND)} is not {cls.VERSION}x (Debian 12's is 1.29.2): {version}"

    @classmethod
    def clean_up(cls):
        (cls.directory / "compose.log").write_text(cls.compose("logs", "--no-color", check=False)[1])
        cls.compose("down", "--volumes", "--timeout", "1")

    @classmethod
    def compose(cls, *args, **kwargs):
        command = [*cls.COMMAND, "--env-file", cls.env_file, "-f", COMPOSE / "docker-compose.yml", *args]
        return engines.run(*command, env=cls.environment, **kwargs)

    @classmethod
    def scale(cls, gateways, shards):
        """Returns when everything that should be there is healthy, and nothing else is left."""
        cls.compose("up", "-d", "--scale", f"gateway={gateways}", "--scale", f"shard={shards}", *SERVICES)
        cls.wait_healthy(len(SERVICES) - 2 + gateways + shards)
        cls.wait_view(gateways, shards)

    @classmethod
    def containers(cls, *services):
        names = cls.compose("ps", "-q", *services).split()
        return cls.engine.inspect(*names) if names else []

    @classmethod
    def wait_healthy(cls, count):
        def all_healthy():
            states = [each["State"] for each in cls.containers()]
            return len(states) == count and all(
                state["Running"] and state["Health"]["Status"] == "healthy" for state in states)
        cluster.wait_for(f"{count} healthy containers", all_healthy, HEALTHY_S)

    @classmethod
    def wait_view(cls, gateways, shards):
        """Every process that is up agrees that these are all."""
        cluster.wait_for(f"a view of {gateways} gateways and {shards} shards", lambda: (
            set(PROMETHEUS.ask('signalbox_view_gateways and on (instance) up == 1')) == {gateways}
            and set(PROMETHEUS.ask('signalbox_view_shards and on (instance) up == 1')) == {shards}
            and len(PROMETHEUS.ask('signalbox_view_shards and on (instance) up == 1')) == gateways + shards), SETTLED_S)

    def ctl(self, *args):
        return self.compose("run", "--rm", "-T", "ctl", *args).strip().splitlines()[-1]

    # --- as it was built ------------------------------------------------------------------------------------------------

    def test_1_the_file_is_read_as_it_is_meant(self):
        config = chart.yaml.safe_load(self.compose("--profile", "tools", "config"))
        self.assertEqual(set(config["services"]), {*SERVICES, "grafana", "ctl"})
        self.assertEqual({name: config["services"][name]["scale"] for name in ("gateway", "shard")}, {"gateway": 2, "shard": 3})

    def test_1_every_setting_is_documented(self):
        """In what init makes .env of, with an explanation above it; and nothing is there that changes nothing."""
        used = set(re.findall(r"\$\{(\w+)", (COMPOSE / "docker-compose.yml").read_text()))
        self.assertEqual(used, set(self.settings) - {"COMPOSE_PROJECT_NAME"})
        paragraphs = self.env_file.read_text().split("\n\n")
        self.assertEqual([text for text in paragraphs if not text.startswith("#")], ["COMPOSE_PROJECT_NAME=signalbox"])

    def test_1_without_settings_it_says_what_to_do(self):
        empty = self.directory / "empty.env"
        empty.write_text("")
        command = [*self.COMMAND, "--env-file", empty, "-f", COMPOSE / "docker-compose.yml", "config"]
        status, output = engines.run(*command, check=False, env=self.engine.environment)
        self.assertNotEqual(status, 0)
        self.assertIn("run deploy/compose/init first", output)

    def test_1_containers_are_hardened(self):
        for container in self.containers():
            name, config, host = container["Name"], container["Config"], container["HostConfig"]
            self.assertRegex(config["User"], r"^[1-9]\d*", f"{name} runs as root")
            self.assertTrue(host["ReadonlyRootfs"], name)
            self.assertEqual([cap.upper() for cap in host["CapDrop"]], ["ALL"], name)
            self.assertIn(host["CapAdd"], (None, [], ["NET_BIND_SERVICE"], ["CAP_NET_BIND_SERVICE"]), name)
            self.assertIn("no-new-privileges:true", host["SecurityOpt"], name)
            self.assertFalse(host["Privileged"], name)
            for binding in (each for bindings in (host["PortBindings"] or {}).values() for each in bindings):
                self.assertEqual(binding["HostIp"], "127.0.0.1", name)

    def test_1_the_image_is_small_and_has_no_shell(self):
        image = self.engine.inspect("signalbox-test")[0]
        self.assertLess(image["Size"], IMAGE_MAX_BYTES)
        self.assertEqual(image["Config"]["User"], "65532:65532")
        for program in ("signalbox-gateway", "signalbox-shard", "signalboxctl"):
            self.assertIn(program, self.engine.docker("run", "--rm", "signalbox-test", program, "--version"))
        status, _ = self.engine.docker("run", "--rm", "signalbox-test", "sh", "-c", "true", check=False)
        self.assertNotEqual(status, 0)

    def test_1_stopping_waits_for_the_drain(self):
        for tier, key in (("gateway", "deadline_ms"), ("shard", "drain_deadline_ms")):
            defaults = self.engine.docker("run", "--rm", "signalbox-test", f"signalbox-{tier}", "--print-config")
            deadline_s = int(re.search(rf"^ *{key} = (\d+)", defaults, re.MULTILINE)[1]) / 1000
            for container in self.containers(tier):
                self.assertGreater(container["Config"]["StopTimeout"], deadline_s + 5, tier)

    def test_1_a_health_check_can_fail(self):
        gateway = self.containers("gateway")[0]["Id"]
        status, output = self.engine.docker("exec", gateway, "signalboxctl", "health", "127.0.0.1:9600", check=False)
        self.assertEqual((status, output.strip()), (0, "ready"))
        status, output = self.engine.docker("exec", gateway, "signalboxctl", "health", "127.0.0.1:1", check=False)
        self.assertEqual(status, 1)
        self.assertIn("nothing answers", output)

    # --- as a cluster ---------------------------------------------------------------------------------------------------

    def test_2_a_call_in_browsers(self):
        invitation = self.ctl("token", "--invite", "--room", "browser-test")
        screenshots = self.directory / "screenshots"
        environment = {**os.environ, "SIGNALBOX_INVITE": invitation, "SIGNALBOX_ROOM": "browser-test",
                       "SIGNALBOX_ARTIFACTS": str(screenshots)}
        environment.pop("SIGNALBOX_RUN", None)  # its cluster has no processes of scripts/up to kill
        browser = chart.ROOT / "tests" / "browser"
        self.assertTrue((browser / "node_modules").exists(), f"npm ci in {browser} first; scripts/test does so")
        output = engines.run("node", browser / "main.mjs", f"https://localhost:{PORT}", env=environment)
        self.assertRegex(output, r"\d+ passed, 0 failed")

    def test_2_turn_lets_in_whom_the_gateways_send(self):
        token = self.ctl("token", "--room", "turn", "--identity", "ann")
        client = cluster.JsonClient(PORT, tls=True)
        self.addCleanup(client.close)
        client.send({"hello": {"token": token, "join": {"room": "turn"}}})
        servers = client.receive_until("helloOk")["iceServers"]
        server = next(each for each in servers if each.get("username"))
        self.assertTrue(any(f":{TURN_PORT}" in url for url in server["urls"]), server)
        turn = self.containers("turn")[0]["Id"]

        def relay(password):
            return self.engine.docker("exec", turn, "turnutils_uclient", "-y", "-n", "2", "-m", "1", "-p", "3478", "-u", server["username"],
                                      "-w", password, "127.0.0.1", check=False, timeout=30)
        status, output = relay(server["credential"])
        self.assertEqual(status, 0, output[-2000:])
        self.assertNotEqual(relay("wrong")[0], 0)

    def test_3_scaling_and_deaths_lose_nothing(self):
        """Each tier from 2 to 4 and back, then one container of each killed, under people who talk; and every question
        that dashboard, alerts and autoscalers put to Prometheus has an answer meanwhile."""
        begun, marks = time.time(), []
        mark = lambda what: marks.append((time.time(), what))
        swarm = Swarm(self.directory, PEOPLE, [f"wss://127.0.0.1:{PORT}"], "--join-rate", "40", "--churn", "20",
                      key=self.settings["SIGNALBOX_API_KEY"], secret=self.settings["SIGNALBOX_API_SECRET"])
        self.addCleanup(swarm.stop)
        swarm.wait_holds()
        mark("4 gateways")
        self.scale(TIER_SIZE_LARGE, TIER_SIZE)
        mark("4 shards")
        self.scale(TIER_SIZE_LARGE, TIER_SIZE_LARGE)
        # One at a time, as the autoscalers do; each gateway sends its people to the others.
        mark("back to 2 gateways, one by one")
        for gateways in range(TIER_SIZE_LARGE - 1, TIER_SIZE - 1, -1):
            self.scale(gateways, TIER_SIZE_LARGE)
            self.assertEqual(len(self.containers("gateway")), gateways)
        self.assert_questions_answered()
        mark("back to 2 shards")
        for shards in range(TIER_SIZE_LARGE - 1, TIER_SIZE - 1, -1):
            self.scale(TIER_SIZE, shards)
        for tier in ("shard", "gateway", "nats"):
            victim = self.containers(tier)[0]
            mark(f"{tier} killed")
            os.kill(victim["State"]["Pid"], 9)
            cluster.wait_for(f"{tier} is started again", lambda: (
                self.engine.inspect(victim["Id"])[0]["RestartCount"] > victim["RestartCount"]), HEALTHY_S)
            self.wait_healthy(len(SERVICES) - 2 + 2 * TIER_SIZE)
            self.wait_view(TIER_SIZE, TIER_SIZE)
        result = swarm.finish()
        # Whoever looks at the picture sees a cluster that is whole again.
        cluster.wait_for("every process is back on the bus", lambda: set(PROMETHEUS.ask("signalbox_bus_up and on (instance) up == 1")) == {1})
        self.draw(begun, marks)
        totals = result["counters"]
        print(f"    swarm: {json.dumps(totals)}", file=sys.stderr)
        self.assertEqual(broken_promises(result), {}, swarm.output())
        # It could have failed: people were moved, and came back to the same sessions.
        self.assertGreater(totals["resumes"], PEOPLE * 0.4)

    def assert_questions_answered(self):
        questions = {f"{title}: {name}": query for title, panel in dashboard.panels() for name, query in panel}
        for group in chart.yaml.safe_load(chart.compose_alerts().split("\n", 1)[1])["groups"]:
            for rule in group["rules"]:
                if not rule["expr"].startswith("absent("):
                    questions[f"{rule['alert']} {rule['labels']['severity']}"] = dashboard.bare(rule["expr"])
        for scaler in chart.render(release="signalbox", namespace="compose"):
            for rule in chart.yaml.safe_load(scaler.get("data", {}).get("config.yaml", "{}")).get("externalRules", []):
                questions[rule["name"]["as"]] = dashboard.bare(rule["metricsQuery"])
        for signal in ("active_websocket_connections", "fanout_queue_depth"):
            questions[signal] = signal + '{namespace="compose",pod=~"signalbox-.+"}'
        self.assertGreater(len(questions), 45)

        def all_answered():
            for name, query in list(questions.items()):
                if any(value == value for value in PROMETHEUS.ask(query)):
                    del questions[name]
            return not questions
        try:
            cluster.wait_for("answers", all_answered, SETTLED_S)
        except TimeoutError:
            self.fail("no answer to:\n" + "\n".join(f"{name}: {query}" for name, query in questions.items()))
        self.assertGreater(len(PROMETHEUS.rules()), 10)

    def draw(self, begun, marks):
        """The dashboard's picture, of Prometheus's answers."""
        end = time.time()
        story = dashboard.Story(end - STEP_S * math.ceil((end - begun) / STEP_S), end, marks)  # the last step is the present
        picture = dashboard.draw(lambda query: PROMETHEUS.series(query, story.begin, story.end, STEP_S), story)
        self.assertGreater(picture.count("<polyline"), 30)
        (self.directory / "dashboard.svg").write_text(picture)

    def test_4_alerts_are_the_chart_s(self):
        self.assertEqual((COMPOSE / "prometheus" / "alerts.yml").read_text(), chart.compose_alerts(),
                         "python3 tests/deploy/chart_tools.py writes it anew")
        self.assertNotIn("SignalboxAbsent", {rule["name"] for rule in PROMETHEUS.rules() if rule["state"] == "firing"})

    # --- as the guide has it --------------------------------------------------------------------------------------------

    def test_5_every_command_of_the_guide_works_as_printed(self):
        """In the order of docs/OPERATIONS.md; settings come from the environment in the place of .env."""
        self.wait_view(TIER_SIZE, TIER_SIZE)
        blocks = re.findall(r"^```sh\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
        self.assertGreater(len(blocks), 20)
        environment = {**self.settings, **self.environment}
        # As the guide says of Compose 2.
        prefix = f'docker-compose() {{ command {" ".join(self.COMMAND)} "$@"; }}\n'
        for block in blocks:
            status, output = engines.run("bash", "-euo", "pipefail", "-c", prefix + block, check=False, cwd=COMPOSE, env=environment)
            self.assertEqual(status, 0, f"{block}\n{output}")
            last = block.strip().splitlines()[-1]
            if "rate(" not in last and "ALERTS" not in last:
                self.assertTrue(output.strip(), f"{block}\nsays nothing")
        self.wait_view(2, 3)

    def test_5_the_guide_has_a_runbook_for_each_alert(self):
        alerts = {rule["alert"] for group in chart.yaml.safe_load((COMPOSE / "prometheus" / "alerts.yml").read_text())["groups"]
                  for rule in group["rules"]}
        self.assertEqual(alerts, set(re.findall(r"^### (Signalbox\w+)", GUIDE.read_text(), re.MULTILINE)))

    def test_6_logs_tell_no_secrets(self):
        """After all of the above, in which sessions came, went and were resumed with tokens."""
        log = self.compose("logs", "--no-color", "gateway", "shard", "nats")
        self.assertIn("gateway", log)
        secrets = {name: self.settings[name] for name in re.findall(r"^(\w+)=$", (COMPOSE / "env.example").read_text(), re.MULTILINE)}
        self.assertGreater(len(secrets), 7)
        self.assertEqual([name for name, value in secrets.items() if value in log], [])
        self.assertNotIn("eyJ", log)  # how a JSON Web Token begins


class Compose2Test(Compose1Test):
    COMMAND, VERSION = ["docker", "compose"], "2."

    @classmethod
    def setUpClass(cls):
        if not os.environ.get("SIGNALBOX_TEST_ALL"):
            raise unittest.SkipTest("all of it once more, by Compose 2: with --all")
        super().setUpClass()

    @classmethod
    def find_compose(cls):
        cls.engine.add_compose2()
        super().find_compose()


if __name__ == "__main__":
    unittest.main()
