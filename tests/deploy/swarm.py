"""People in rooms, whose promises signalbox-swarm checks, at the command of a test."""

import json
import os
import subprocess

import nats_cluster as cluster

TRAFFIC = ("--messages", "20", "--mutes", "10", "--signals", "30")
PROMISES = ("violations_roster", "violations_order", "violations_protocol", "sessions_lost")


class Swarm:
    def __init__(self, directory, people, urls, *options, key=cluster.API_KEY, secret=cluster.API_SECRET, name="swarm"):
        self.json_path, self.log_path = directory / f"{name}.json", directory / f"{name}.log"
        addresses = [word for url in urls for word in ("--url", url)]
        with self.log_path.open("w") as log:
            self.process = subprocess.Popen(
                [cluster.BUILD / "tests" / "load" / "signalbox-swarm", *addresses, "--participants", str(people), *TRAFFIC, "--settle", "60",
                 "--driven", "--hold", "600", "--quiet", "--json", self.json_path, *options],
                stdin=subprocess.PIPE, stdout=log, stderr=log, text=True,
                env={**os.environ, "SIGNALBOX_API_KEY": key, "SIGNALBOX_API_SECRET": secret})

    def output(self):
        return self.log_path.read_text()

    def holds(self):
        """Everybody is in, and their rosters are right."""
        assert self.process.poll() is None, self.output()
        return "phase hold\n" in self.output()

    def wait_holds(self):
        cluster.wait_for("everybody is in", self.holds, 120)

    def tell(self, word):
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def finish(self):
        """The result, after its last check of rosters and messages."""
        self.process.communicate("go\n", timeout=180)
        return json.loads(self.json_path.read_text())

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def broken_promises(result):
    """What did not hold, by name; empty: everything did."""
    broken = {name: result["counters"][name] for name in PROMISES if result["counters"][name] != 0}
    broken |= {each["name"]: each["value"] for each in result["figures"]
               if each["name"] == "participants_unconverged" and each["value"] != 0}
    return broken | ({"failure": result["failure"]} if "failure" in result else {})
