"""A Docker engine for the tests: the one that answers already, or one of our own, started by hand and stopped again."""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

import chart_tools as chart

START_S = 60
SUITE = "bookworm"
BASE_NAME = "debian:12-slim"  # what the Dockerfiles begin with
OWN_BASE_NAME = "signalbox-test-base:12"
COMPOSE2 = "github.com/docker/compose/v2/cmd@v2.29.7"


class EngineMissing(Exception):
    """Says why there is none."""


def run(*command, check=True, **kwargs):
    try:
        done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, **kwargs)
    except subprocess.TimeoutExpired as late:
        done = subprocess.CompletedProcess(command, 124, f"not done after {late.timeout} s")
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout if check else (done.returncode, done.stdout)


class Engine:
    """Use as a context. `environment` is what makes docker and both Composes find it."""

    def __init__(self):
        # The classic builder, which every engine and Compose 1.29 have.
        self.environment = {**os.environ, "DOCKER_BUILDKIT": "0", "COMPOSE_DOCKER_CLI_BUILD": "0"}
        self.daemon = None

    def __enter__(self):
        if not shutil.which("docker"):
            raise EngineMissing("docker is not installed (Debian: docker.io)")
        if run("docker", "info", check=False, env=self.environment)[0] != 0:
            self.start()
        return self

    def start(self):
        if not shutil.which("dockerd"):
            raise EngineMissing("no engine answers, and dockerd is not installed (Debian: docker.io)")
        if os.geteuid() != 0:
            raise EngineMissing("no engine answers, and only root may start one")
        # Socket paths are short; images stay for the next run.
        self.directory = tempfile.TemporaryDirectory(prefix="signalbox-docker-")
        directory = pathlib.Path(self.directory.name)
        self.log_path = directory / "dockerd.log"
        self.had_bridge = pathlib.Path("/sys/class/net/docker0").exists()
        self.environment["DOCKER_HOST"] = f"unix://{directory}/docker.sock"
        with self.log_path.open("wb") as log:
            self.daemon = subprocess.Popen(
                ["dockerd", "--host", self.environment["DOCKER_HOST"], "--data-root", chart.BUILD / "docker", "--exec-root",
                 directory / "exec", "--pidfile", directory / "docker.pid"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        while run("docker", "info", check=False, env=self.environment)[0] != 0:
            if self.daemon.poll() is not None or time.monotonic() > deadline:
                text = self.log_path.read_text(errors="replace")[-2000:]
                self.stop()
                raise EngineMissing(f"dockerd does not start here:\n{text}")
            time.sleep(0.2)

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        if not self.daemon:
            return
        self.daemon.terminate()
        try:
            self.daemon.wait(START_S)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            self.daemon.wait()
        if not self.had_bridge:
            subprocess.run(["ip", "link", "delete", "docker0"], stderr=subprocess.DEVNULL, check=False)
        self.directory.cleanup()
        self.daemon = None

    def docker(self, *args, **kwargs):
        return run("docker", *args, env=self.environment, **kwargs)

    def inspect(self, *names):
        return json.loads(self.docker("inspect", *names))

    def add_compose2(self):
        """Makes `docker compose` work, which Debian 12 does not have: by a plugin that is compiled here."""
        if self.docker("compose", "version", check=False)[0] == 0:
            return
        version = COMPOSE2.partition("@")[2]
        config = chart.TOOLS / f"compose-{version}"
        chart.install(COMPOSE2, config / "cli-plugins" / "docker-compose",
                      f"-ldflags=-X github.com/docker/compose/v2/internal.Version={version}")
        self.environment["DOCKER_CONFIG"] = str(config)

    def base_image(self):
        """The name of a Debian 12: the official image if it is here or can be had, else one made by debootstrap."""
        for name in (BASE_NAME, OWN_BASE_NAME):
            if self.docker("image", "inspect", name, check=False)[0] == 0:
                return name
        if self.docker("pull", "--quiet", BASE_NAME, check=False, timeout=120)[0] == 0:
            return BASE_NAME
        tarball = chart.BUILD / f"{SUITE}.tar"
        if not tarball.exists():
            if not shutil.which("debootstrap") or os.geteuid() != 0:
                raise EngineMissing(f"{BASE_NAME} cannot be pulled; making it needs debootstrap and root")
            with tempfile.TemporaryDirectory(prefix="signalbox-debian-") as root:
                run("debootstrap", "--variant=minbase", SUITE, root)
                run("tar", "-C", root, "-cf", tarball.with_suffix(".new"), ".")
            tarball.with_suffix(".new").rename(tarball)
        self.docker("import", tarball, OWN_BASE_NAME)
        return OWN_BASE_NAME
