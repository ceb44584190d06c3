"""A Ray cluster over hosts: a head without CPUs, workers that join and leave, `imgtx upscale` on the head.

The hosts have only what docs/guides/cluster.md requires of a cluster: the packages, and credentials of their
own. The command gives the address of storage; code and model come through Ray and through storage.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.end_to_end.cluster.hosts import GATEWAY, Host, Network
from tests.end_to_end.cluster.s3proxy import Proxy

ROOT = Path(__file__).resolve().parents[3]
S3_PORT, GCS_PORT, METRICS_PORT = 9000, 6379, 8080
# Seconds after which a step counts as hanging.
WITHIN = 240.0
# Ray's name for busy processes.
MODEL_ACTOR, CODEC = "ray::MapWorker", "ray::MapBatches"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
}
SETTINGS = {
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "/usr/bin:/bin")]),
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "a-token-for-tests-only-0123456789abcdef",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    # Long enough for a busy machine.
    "RAY_agent_register_timeout_ms": "180000",
    "RAY_raylet_start_wait_time_s": "180",
    # A lost machine is noticed after 5 s, not after Ray's 30: the tests wait for it.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}


@dataclass
class Node:
    """A host that runs `ray start --block`."""

    host: Host
    process: subprocess.Popen
    log: Path

    @property
    def up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return "Ray runtime started" in self.log.read_text()

    def start(self, *command: str, log: Path) -> subprocess.Popen:
        """A `ray` command on the machine."""
        ray = [sys.executable, "-m", "ray.scripts.scripts", *command]
        return self.host.start(ray, log, SETTINGS | CREDENTIALS)

    def terminate(self) -> None:
        """Send SIGTERM to `ray start`, as a machine's shutdown or Kubernetes does."""
        # nsenter is the process between them.
        (ray,) = psutil.Process(self.process.pid).children()
        ray.send_signal(signal.SIGTERM)

    @property
    def ray_id(self) -> str:
        """Return Ray's id of the node, from its raylet's arguments."""
        (raylet,) = self.processes("raylet/raylet")
        (given,) = [word for word in raylet.cmdline() if word.startswith("--node_id=")]
        return given.partition("=")[2]

    def processes(self, title: str) -> list[psutil.Process]:
        return [process for process in self.host.processes() if title in titled(process)]


@dataclass
class Run:
    """A running `imgtx upscale`. `since` is the proxy's count of requests when it began."""

    process: subprocess.Popen
    source: str
    destination: str
    log: Path
    proxy: Proxy
    since: int
    began: float = field(default_factory=time.monotonic)
    # Seconds of the run, once it has ended.
    seconds: float = 0.0

    def finish(self) -> int:
        code = self.process.wait(WITHIN)
        self.seconds = time.monotonic() - self.began
        return code

    def summary(self) -> dict:
        return json.loads(self.log.read_text().splitlines()[-1])

    def asked(self, method: str, uri: str, *, by: str | None = None) -> Counter[str]:
        """Count this run's successful GET or PUT requests per object under a URI, optionally of one machine."""
        return self.proxy.asked(method, uri.removeprefix("s3://"), by=by, since=self.since)

    def asks_for_model(self, node: Node) -> bool:
        """Return whether a model was created on a machine; one that has the file already asks only for its version."""
        return bool(self.asked("HEAD", "s3://models/", by=node.host.address))

    @property
    def put(self) -> int:
        """Return how many outputs at the destination are this run's."""
        return len(self.asked("PUT", f"s3://{self.destination}/images/"))

    @property
    def put_twice(self) -> int:
        return sum(n - 1 for n in self.asked("PUT", f"s3://{self.destination}/images/").values())

    @property
    def fetched_twice(self) -> int:
        return sum(n - 1 for n in self.asked("GET", f"s3://{self.source}/").values())

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Poll until the condition is true; the run must not end before."""
        deadline = time.monotonic() + WITHIN
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, f"nothing within {WITHIN} s: {self.log.read_text()}"
            time.sleep(0.02)


@dataclass
class Cluster:
    """The head and the nodes of a cluster."""

    net: Network
    proxy: Proxy
    logs: Path
    nodes: dict[str, Node] = field(default_factory=dict)
    # Of storage: a command reads them and forwards them to the machines.
    settings: dict[str, str] = field(default_factory=lambda: {"AWS_DEFAULT_REGION": "us-east-1"})

    def begin(self, name: str, *, cpus: int, gpus: int = 0, head: bool = False) -> Node:
        """Start a node; `up` returns when it has joined. GPUs are Ray's logical ones."""
        host = self.net.add(name)
        role = ("--head", f"--port={GCS_PORT}", "--include-dashboard=false")
        join = (f"--address={self.nodes['head'].host.address}:{GCS_PORT}",) if not head else ()
        given = (f"--num-cpus={cpus}", f"--num-gpus={gpus}", f"--object-store-memory={200 << 20}")
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
        where = (f"--node-ip-address={host.address}", f"--metrics-export-port={METRICS_PORT}")
        log = self.logs / f"{name}.log"
        process = host.start([*ray, *where, *(role if head else join), *given], log, SETTINGS | CREDENTIALS)
        self.nodes[name] = Node(host, process, log)
        return self.nodes[name]

    def wait(self, *names: str) -> None:
        deadline = time.monotonic() + WITHIN
        while not all(self.nodes[name].up for name in names):
            assert time.monotonic() < deadline, [self.nodes[name].log.read_text() for name in names]
            time.sleep(0.1)

    def add(self, name: str, *, cpus: int, gpus: int = 0) -> Node:
        """Add a node and wait until it has joined."""
        node = self.begin(name, cpus=cpus, gpus=gpus)
        self.wait(name)
        return node

    def remove(self, name: str) -> None:
        """Send SIGKILL to everything on a machine."""
        node = self.nodes.pop(name)
        node.host.kill()
        node.process.wait(30)

    def unplug(self, name: str) -> Node:
        """Cut a machine's network; packets to it are dropped, as beyond a router."""
        node = self.nodes.pop(name)
        for other in self.nodes.values():
            other.host.cut(node.host.address)
        node.host.unplug()
        return node

    def preempt(self, name: str, seconds: int) -> None:
        """Notify Ray that a machine will be removed, as a watcher of a cloud's notices does."""
        node = ("--node-id", self.nodes[name].ray_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION")
        where = ("--address", f"{self.nodes['head'].host.address}:{GCS_PORT}")
        until = ("--reason-message", "spot", "--deadline-remaining-seconds", str(seconds))
        log = self.logs / f"preempt-{name}.log"
        asking = self.nodes["head"].start("drain-node", *where, *node, *until, log=log)
        assert asking.wait(WITHIN) == 0, log.read_text()

    def upscale(self, source: str, destination: str, *options: str) -> Run:
        since = len(self.proxy.requests)
        log = self.logs / f"{destination}-{since}.log"
        given = (f"s3://{source}", f"s3://{destination}", "--json", *options)
        return Run(self.command("upscale", *given, log=log), source, destination, log, self.proxy, since)

    def command(self, *given: str, log: Path) -> subprocess.Popen:
        """Start `imgtx` on the head, connected to the cluster."""
        head = self.nodes["head"].host
        environment = SETTINGS | CREDENTIALS | {"PYTHONPATH": str(ROOT)} | self.settings
        environment["AWS_ENDPOINT_URL"] = f"http://{GATEWAY}:{S3_PORT}"
        joined = (*given, "--address", f"{head.address}:{GCS_PORT}")
        return head.start([sys.executable, "-m", "jobs.cli", *joined], log, environment)


def titled(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
