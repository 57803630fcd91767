"""signalbox-swarm, driven: it fills a fleet with participants, who talk until they are told to stop, and leaves behind the
history of everything that they sent, received and saw."""
import json
import os
import subprocess
import threading

from fleet import API_KEY, API_SECRET, now_us
from history import Run

PHASE_TIMEOUT_S = 120


class Swarm:
    """`with Swarm(...) as swarm:` everybody has joined and talks; at the end they are checked and leave."""

    def __init__(self, fleet, directory, participants, *, room_size=4, messages_per_min=60, mutes_per_min=3, join_rate=400,
                 gateways=None, settle_s=45, processes=2):
        self.fleet, self.directory, self.participants = fleet, directory, participants
        directory.mkdir(parents=True, exist_ok=True)
        for old in directory.glob("history-*.bin"):
            old.unlink()
        self.marks = []
        self.phase = ""
        self.changed = threading.Condition()
        self.result = None
        command = [fleet.build / "tests" / "load" / "signalbox-swarm", "--participants", participants, "--processes", processes,
                   "--room-size", room_size, "--join-rate", join_rate, "--messages", messages_per_min, "--mutes", mutes_per_min,
                   "--settle", settle_s, "--hold", 3600, "--steady", "--driven", "--quiet", "--history", directory, "--json",
                   directory / "swarm.json", "--ca", fleet.directory / "ca.pem"]
        for name in gateways or fleet.gateway_names:
            command += ["--url", f"wss://127.0.0.1:{fleet.ports[name]}"]
        self.log = open(directory / "swarm.log", "wb")
        self.popen = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=self.log, text=True, bufsize=1,
                                      env=dict(os.environ, SIGNALBOX_API_KEY=API_KEY, SIGNALBOX_API_SECRET=API_SECRET))
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.popen.stdout:
            if line.startswith("phase "):
                self.set_phase(line.split()[1])
        self.set_phase("ended")

    def set_phase(self, phase):
        with self.changed:
            self.phase = phase
            self.changed.notify_all()

    def wait_phase(self, phase, timeout_s=PHASE_TIMEOUT_S):
        with self.changed:
            if not self.changed.wait_for(lambda: self.phase in (phase, "ended"), timeout_s) or self.phase != phase:
                raise RuntimeError(f"signalbox-swarm did not reach '{phase}', it is at '{self.phase}'; {self.log.name}")

    def __enter__(self):
        try:
            self.wait_phase("hold")
        except BaseException:
            self.abandon()
            raise
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None:
            self.abandon()
        else:
            self.finish()

    def mark(self, text):
        """Notes that something is done to the cluster now."""
        self.marks.append((now_us(), text))
        return self.marks[-1][0]

    def say(self, word):
        self.popen.stdin.write(word + "\n")

    def renew(self):
        """Those of odd seats have another network."""
        self.mark("odd seats change their network")
        self.say("renew")

    def finish(self):
        self.mark("the traffic stops")
        self.say("go")
        try:
            self.popen.wait(PHASE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.abandon()
            raise RuntimeError(f"signalbox-swarm did not come to its end; {self.log.name}") from None
        self.reader.join()
        self.log.close()
        self.result = json.loads((self.directory / "swarm.json").read_text())

    def abandon(self):
        self.popen.kill()
        self.popen.wait()
        self.log.close()

    def judged(self):
        return Run(self.directory, self.marks)
