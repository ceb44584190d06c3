"""The dashboard's queries, sent to a Prometheus that watches a run: every panel has data.

Needs, on Debian: apt-get install --no-install-recommends prometheus
"""

import importlib.util
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.end_to_end.cluster.conftest import COUNT, DELAY, Undisturbed, begin
from tests.end_to_end.cluster.hosts import Host
from tests.end_to_end.cluster.nodes import METRICS_PORT, MODEL_ACTOR, ROOT, SETTINGS, WITHIN, Cluster
from tests.end_to_end.cluster.s3proxy import Answer, Request
from tests.support.commands import imgtx

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not (shutil.which("prometheus") and shutil.which("promtool")), reason="prometheus is not installed"
    ),
    pytest.mark.skipif(
        not importlib.util.find_spec("opencensus"),
        reason="ray[default] is not installed: it shows the metrics",
    ),
]

MODELS = 1
STATUS_PORT = 9100
BROKEN = "0/image-0000.jpg"
DASHBOARD = json.loads((ROOT / "infra/grafana/imgtx.json").read_text())


@dataclass(frozen=True)
class Prometheus:
    """Prometheus on a host, with its configuration and data in a folder."""

    host: Host
    folder: Path
    url: str = "http://127.0.0.1:9090"

    def start(self, targets: dict[str, list[str]]) -> subprocess.Popen:
        jobs = [
            {"job_name": path.strip("/"), "metrics_path": path, "static_configs": [{"targets": addresses}]}
            for path, addresses in targets.items()
        ]
        config = self.folder / "prometheus.yaml"
        config.write_text(yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}))
        data = f"--storage.tsdb.path={self.folder / 'data'}"
        command = ["prometheus", f"--config.file={config}", data, "--web.listen-address=127.0.0.1:9090"]
        return self.host.start(command, self.folder / "prometheus.log", SETTINGS)

    def answers(self, expression: str) -> bool:
        """Return whether there is a sample now."""
        log = self.folder / "answer"
        log.unlink(missing_ok=True)
        asking = self.host.start(
            ["promtool", "query", "instant", "--format=json", self.url, expression], log, SETTINGS
        )
        return asking.wait(WITHIN) == 0 and json.loads(log.read_text()) != []


def expressions() -> list[str]:
    """Return the expressions of all panels, and of the variable behind `label_values`."""
    shown = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    (variable,) = [v["query"]["query"] for v in DASHBOARD["templating"]["list"] if v["name"] == "destination"]
    selector = variable.removeprefix("label_values(").rpartition(",")[0]
    return [expr.replace("$destination", ".*") for expr in (*shown, selector)]


def gone(request: Request) -> Answer | None:
    return (404, "NoSuchKey", "The specified key does not exist.") if request.key.endswith(BROKEN) else None


def test_every_panel_has_data(cluster: Cluster, undisturbed: Undisturbed, tmp_path: Path):
    status = imgtx("status", "s3://undisturbed", "--prometheus")
    assert status.exit_code == 0, status.output
    (tmp_path / "status").write_text(status.stdout)
    head = cluster.nodes["head"].host
    at = ("--directory", str(tmp_path), "--bind", "127.0.0.1")
    head.start([sys.executable, "-m", "http.server", *at, str(STATUS_PORT)], tmp_path / "http.log", SETTINGS)
    prometheus = Prometheus(head, tmp_path)
    nodes = [f"{node.host.address}:{METRICS_PORT}" for node in cluster.nodes.values()]
    prometheus.start({"/metrics": nodes, "/status": [f"127.0.0.1:{STATUS_PORT}"]})

    # For the panel of failures.
    cluster.proxy.answers = gone
    run = begin(cluster, "watched")
    run.wait_for(lambda: run.put >= COUNT // 6)
    # For the panel of retries.
    cluster.nodes["gpu-1"].processes(MODEL_ACTOR)[0].kill()
    run.wait_for(lambda: "running them alone" in run.log.read_text())
    # It must run as long as Prometheus is queried.
    cluster.proxy.delay = 10 * DELAY
    began, empty = time.monotonic(), expressions()
    while empty and time.monotonic() - began < WITHIN:
        assert run.process.poll() is None, f"the run is over, and empty are still: {empty}"
        empty = [expression for expression in empty if not prometheus.answers(expression)]
    cluster.proxy.delay, cluster.proxy.answers = DELAY, None
    assert empty == []
    print(f"\nafter {time.monotonic() - began:.0f} s of the second pass every panel has shown something")
    run.finish()
    assert run.summary()["accounted"]
    assert run.summary()["failed"] == 1
