"""The metrics that a run exports to Prometheus, and the class that updates them.

Only the driver counts: every outcome row passes through it, with its seconds, sizes and reason, so workers need
nothing. Ray exports the series with the prefix `ray_`, and counters with the suffix `_total`, at the ports that
`ray start` opens for it, if `ray[default]` is installed; elsewhere counting costs nothing. The series end with the
run: what has to outlast it is read from the destination, by `imgtx status --prometheus`.
`make docs` writes docs/reference/metrics.md from it.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.tables.schemas import WRITTEN

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"


@dataclass(frozen=True)
class Metric:
    """A metric's name, kind, tags besides COMMON_TAGS, and meaning."""

    name: str
    kind: str
    tags: tuple[str, ...]
    meaning: str

    @property
    def exported(self) -> tuple[str, ...]:
        """The names of its series in Prometheus."""
        endings = {COUNTER: ("_total",), GAUGE: ("",), HISTOGRAM: ("_bucket", "_sum", "_count")}
        return tuple(f"ray_{self.name}{ending}" for ending in endings[self.kind])


COMMON_TAGS = ("destination", "task")

METRICS = (
    Metric(
        "imgtx_images",
        COUNTER,
        ("outcome", "reason"),
        "images that were `written`, or `failed` for one of the ledger's reasons",
    ),
    Metric("imgtx_megapixels", COUNTER, ("outcome",), "their input pixels, in millions, if known"),
    Metric(
        "imgtx_bytes", COUNTER, ("direction",), "bytes of the images that were written: `read` and `written`"
    ),
    Metric(
        "imgtx_stage_seconds",
        HISTOGRAM,
        ("stage",),
        "seconds that an image spent in `decode` (with its download), `transform`, `encode` (with its upload)",
    ),
    Metric(
        "imgtx_model_wait_seconds",
        COUNTER,
        (),
        "seconds that model actors waited for work, or to hand over their results; the sum over all actors",
    ),
    Metric("imgtx_retried_images", COUNTER, (), "images that ran again because their worker ended"),
    Metric("imgtx_pending_images", GAUGE, (), "images that this run has not processed yet"),
    Metric("imgtx_model_actors", GAUGE, (), "model actors of this run"),
)

# What `imgtx status --prometheus` prints, from the destination alone; these have no prefix.
STATUS_METRICS = (
    Metric(
        "imgtx_last_success_timestamp_seconds",
        GAUGE,
        ("destination",),
        "when the last successful run ended: one that finished and accounted for every image",
    ),
    Metric("imgtx_last_run_timestamp_seconds", GAUGE, ("destination",), "when the last run last reported"),
    Metric("imgtx_ledger_images", GAUGE, ("destination", "status"), "images of the ledger by status"),
)

SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
STAGES = ("decode", "transform", "encode")


class RunMetrics:
    """The metrics of one run; the driver calls the methods, once Ray has started."""

    def __init__(self, destination: str, task: str):
        from ray.util import metrics

        kinds = {COUNTER: metrics.Counter, GAUGE: metrics.Gauge}
        common = {"destination": destination, "task": task}
        self.series: dict[str, Any] = {}
        for metric in METRICS:
            tags = COMMON_TAGS + metric.tags
            if metric.kind == HISTOGRAM:
                made = metrics.Histogram(metric.name, metric.meaning, list(SECONDS), tags)
            else:
                made = kinds[metric.kind](metric.name, metric.meaning, tags)
            made.set_default_tags(common)
            self.series[metric.name] = made
        self.waited = 0.0

    def add(self, outcomes: pa.Table) -> None:
        """Count OUTCOME rows."""
        rows = outcomes.select(_COUNTED).to_pylist()
        images, pixels, moved = Counter[tuple[str, str]](), Counter[str](), Counter[str]()
        for row in rows:
            images[row["status"], row["reason"]] += 1
            pixels[row["status"]] += row["in_height"] * row["in_width"]
            if row["status"] == WRITTEN:
                moved["read"] += row["size"]
                moved["written"] += row["out_bytes"]
            for stage in STAGES:
                if seconds := row[f"seconds_{stage}"]:
                    self.series["imgtx_stage_seconds"].observe(seconds, {"stage": stage})
        for (outcome, reason), count in images.items():
            self._count("imgtx_images", count, outcome=outcome, reason=reason)
        for outcome, count in pixels.items():
            self._count("imgtx_megapixels", count / 1e6, outcome=outcome)
        for direction, count in moved.items():
            self._count("imgtx_bytes", count, direction=direction)

    def retried(self, images: int) -> None:
        """Count images that run again."""
        self._count("imgtx_retried_images", images)

    def show(self, *, pending: int, actors: int, waited: float) -> None:
        """Set the state of the run; `waited` is the seconds that its actors have waited so far, summed over them."""
        self.series["imgtx_pending_images"].set(pending)
        self.series["imgtx_model_actors"].set(actors)
        self._count("imgtx_model_wait_seconds", waited - self.waited)
        self.waited = waited

    def _count(self, name: str, amount: float, **tags: str) -> None:
        # Ray refuses 0.
        if amount > 0:
            self.series[name].inc(amount, tags)


_COUNTED = [
    "status",
    "reason",
    "size",
    "out_bytes",
    "in_height",
    "in_width",
    *(f"seconds_{s}" for s in STAGES),
]
