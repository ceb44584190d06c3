"""What a run counts for Prometheus, and what its destination says when the run is over."""

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
import pytest
from ray.util import metrics as ray_metrics

from jobs.run.tally import Tally
from pipeline import flow
from pipeline.cluster.metrics import METRICS, STATUS_METRICS, RunMetrics
from pipeline.planning.plan import CLASSES
from pipeline.tables.schemas import FAILED
from tests.support.archive import fill, save_tiny_model
from tests.support.commands import InProcess, complaint, imgtx, without_ray
from tests.support.ledger_rows import outcome, outcomes

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Samples:
    """What Ray was given: by metric and tags (but the common ones) the sum, or the last value of a gauge."""
    samples: Samples = {}

    def record(self: ray_metrics.Metric, value: float, tags: dict[str, str] | None = None) -> None:
        final = dict(self._get_final_tags(tags))
        self._validate_tags(final)
        assert (final.pop("destination"), final.pop("task")) == ("s3://out/", "super-resolution")
        key = (self._name, tuple(sorted(final.items())))
        samples[key] = value if isinstance(self, ray_metrics.Gauge) else samples.get(key, 0) + value

    monkeypatch.setattr(ray_metrics.Metric, "_record", record)
    return samples


def of(samples: Samples, name: str) -> dict[str, float]:
    return {
        " ".join(value for _, value in tags): amount for (n, tags), amount in samples.items() if n == name
    }


def test_outcomes_are_counted_by_what_became_of_them(recorded: Samples):
    counted = RunMetrics("s3://out/", "super-resolution")
    good = {"size": 100, "out_bytes": 300, "in_height": 1000, "in_width": 500, "seconds_transform": 2.0}
    counted.add(
        outcomes(
            outcome("a", **good),
            outcome("b", **good, seconds_decode=0.25),
            outcome("c", status=FAILED, stage="decode", reason="truncated", seconds_decode=0.5),
            outcome("d", status=FAILED, stage="encode", reason="storage", in_height=2000, in_width=500),
        )
    )
    assert of(recorded, "imgtx_images") == {"written ": 2, "failed truncated": 1, "failed storage": 1}
    assert of(recorded, "imgtx_megapixels") == {"written": 1.0, "failed": 1.0}
    assert of(recorded, "imgtx_bytes") == {"read": 200, "written": 600}
    assert of(recorded, "imgtx_stage_seconds") == {"transform": 4.0, "decode": 0.75}
    counted.retried(3)
    counted.retried(0)
    assert of(recorded, "imgtx_retried_images") == {"": 3}


def test_waiting_is_counted_once(recorded: Samples):
    counted = RunMetrics("s3://out/", "super-resolution")
    for waited in (2.0, 5.0, 5.0, 6.5):
        counted.show(pending=7, actors=2, waited=waited)
    assert of(recorded, "imgtx_model_wait_seconds") == {"": 6.5}
    assert (of(recorded, "imgtx_pending_images"), of(recorded, "imgtx_model_actors")) == ({"": 7}, {"": 2})


def test_models_wait_as_long_as_they_say():
    counted = Tally("r", 4, 0, 0, 0, 0, 4, 0, dict.fromkeys(CLASSES, 0))
    counted.add(outcomes(outcome("a", seconds_waited=3.0), outcome("b", seconds_waited=4.5)))
    assert counted.waited == pytest.approx(7.5)


def test_every_metric_is_made_and_moved_by_a_run(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """Of a run whose first pass loses the second of two images."""
    moved: dict[str, float] = {}
    monkeypatch.setattr(
        ray_metrics.Metric, "_record", lambda self, value, tags=None: moved.update({self._name: value})
    )
    without_ray(monkeypatch)
    passes: list[InProcess] = []

    class Losing(InProcess):
        def iter_batches(self, **options: Any) -> Iterator[pa.Table]:
            passes.append(self)
            came = super().iter_batches(**options)
            return came if len(passes) > 1 else islice(came, 1)

    monkeypatch.setattr(flow, "build_dataset", Losing)
    run_once(tmp_path)
    assert [a.work.num_rows for a in passes] == [2, 1]
    assert {metric.name for metric in METRICS} == moved.keys()
    assert moved["imgtx_retried_images"] == 1


def run_once(tmp_path, images: int = 2) -> str:
    from pipeline.storage.store import open_store

    (tmp_path / "in").mkdir(exist_ok=True)
    fill(open_store(str(tmp_path / "in")), images)
    model = save_tiny_model(tmp_path / "tiny.safetensors")
    out = str(tmp_path / "out")
    result = imgtx("upscale", str(tmp_path / "in"), out, "--model", model)
    assert result.exit_code == 0, result.output
    return out


def exposed(out: str) -> dict[str, Any]:
    result = imgtx("status", out, "--prometheus")
    assert result.exit_code == 0, result.output
    samples = {}
    for line in result.stdout.splitlines():
        if not line.startswith("#"):
            name, labels, value = re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line).groups()
            assert f'destination="{out}"' in labels
            status = re.search(r'status="(\w+)"', labels)
            samples[f"{name} {status[1]}" if status else name] = float(value)
    for metric in STATUS_METRICS:
        assert f"# TYPE {metric.name} {metric.kind}\n" in result.stdout
    return samples


def test_the_destination_remembers_its_last_success(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray_metrics.Metric, "_record", lambda self, value, tags=None: None)
    without_ray(monkeypatch)
    out = run_once(tmp_path)
    first = exposed(out)
    assert first["imgtx_ledger_images written"] == 2
    last = first["imgtx_last_success_timestamp_seconds"]
    # A run's id has whole seconds.
    assert first["imgtx_last_run_timestamp_seconds"] == pytest.approx(last, abs=3)
    (run,) = (tmp_path / "out" / "runs").iterdir()
    killed = run.with_name("99991231T000000-ffff")
    killed.mkdir()
    (killed / "spec.json").write_bytes((run / "spec.json").read_bytes())
    (killed / "status.json").write_text(json.dumps({"state": "running", "updated": last + 500}))
    second = exposed(out)
    assert second["imgtx_last_success_timestamp_seconds"] == last
    assert second["imgtx_last_run_timestamp_seconds"] == last + 500


def test_where_never_was_a_run_there_is_nothing_to_expose(tmp_path):
    (tmp_path / "out").mkdir()
    assert "has no imgtx run" in complaint("status", str(tmp_path / "out"), "--prometheus")
