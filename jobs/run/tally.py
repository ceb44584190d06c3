"""Count a run's images: the accounting identity, rates, and what limited it.

listed = written + current + skipped + failed + pending, at every moment.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from imgtx.models.generation import WORDS_UNKNOWN, unknown_in
from jobs.run.recent import Mark, RecentSpeed, Speed
from pipeline.cluster.pool import Pool
from pipeline.engines.base import LOCAL
from pipeline.engines.in_hand import InHand
from pipeline.planning.plan import CURRENT, FAILED_BEFORE, REFUSED, RUN, Plan
from pipeline.stages.part_done import PartDone
from pipeline.tables.rows import counts_of
from pipeline.tables.schemas import FAILED, SKIPPED, WAITED, WRITTEN

# In shorter runs start-up is what limits.
SHORT_SECONDS = 60.0
# Share of the models' time spent waiting below which the models are what limits.
MIN_WAITING_SHARE = 0.15
# Share of a stage's tasks busy on average above which it lacks CPUs.
SATURATED_SHARE = 0.75
# Words that a model does not know: so many are counted, and so many are in the summary.
MOST_WORDS, SHOWN_WORDS = 10_000, 20
STAGE_SECONDS = ("decode", "transform", "encode")


@dataclass
class Tally:
    """Counts of one run while it runs; megapixels are input megapixels, seconds are summed over workers.

    vanished: keys of the ledger that are no longer in the source.
    not_listed, skipped_kinds: as in a Plan.
    failed_before: images that would fail again, and names that no output can have.
    left: images that the plan includes and this run does not process: beyond --limit, or not selected by retry.
    in_hand: what is done of images that are not finished.
    size_to_do: bytes of the sources of those to do; 0 where bytes say nothing of the time that an image takes.
    size_done: bytes of the sources of those that are done.
    engine: who processes the images; "" where there are none.
    pool: None until the engine has started; place: where it runs, for the user.
    waited: seconds that actors were without an image or could not hand one over, summed over them.
    started: when the run began; started_engine: when its engine was up; started_work: when the first worker had loaded
        the model. Seconds of `time.monotonic`, 0 for what is not known yet.
    """

    run: str
    listed: int
    vanished: int
    current: int
    skipped: int
    failed_before: int
    to_do: int
    left: int
    causes: dict[str, int]
    not_listed: dict[str, int] = field(default_factory=dict)
    skipped_kinds: dict[str, int] = field(default_factory=dict)
    written: int = 0
    failed: int = 0
    # Of those to do, by their size.
    skipped_now: int = 0
    megapixels: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    in_hand: InHand = field(default_factory=InHand)
    size_to_do: int = 0
    size_done: int = 0
    engine: str = ""
    pool: Pool | None = None
    place: str = ""
    reasons: Counter[str] = field(default_factory=Counter)
    # Images by each word of their prompts that the model does not know, and how many images have any.
    unknown_words: Counter[str] = field(default_factory=Counter)
    with_unknown_words: int = 0
    # How many words the model knows, as a sentence that the unknown ones end; "" while there are none.
    model_knows: str = ""
    # Written images of each model.
    models: Counter[str] = field(default_factory=Counter)
    stage_seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGE_SECONDS, 0.0))
    waited: float = 0.0
    started: float = field(default_factory=time.monotonic)
    started_engine: float = 0.0
    started_work: float = 0.0
    recent: RecentSpeed = field(default_factory=RecentSpeed)

    @classmethod
    def from_plan(cls, run: str, plan: Plan, work: Iterable[pa.Table], *, by_size: bool = True) -> "Tally":
        """Return the tally before the first image; `work` is the rows of the plan that this run processes.

        by_size: a source of more bytes takes longer, as a picture does and a prompt does not.
        """
        counts, taken, size = plan.counts, Counter[str](), 0
        for rows in work:
            taken.update(counts_of(rows["cause"]))
            size += pc.sum(rows["size"]).as_py() or 0
        failed_before = counts[FAILED_BEFORE] - taken[FAILED_BEFORE] + counts[REFUSED]
        left = sum(counts[cause] - taken[cause] for cause in RUN)
        causes = {name: n for name, n in counts.items() if n}
        return cls(
            run,
            plan.listed,
            plan.vanished,
            counts[CURRENT],
            counts[SKIPPED],
            failed_before,
            taken.total(),
            left,
            causes,
            plan.not_listed,
            plan.skipped_kinds,
            size_to_do=size if by_size else 0,
        )

    @property
    def done(self) -> int:
        """Images that this run has finished: written, failed, or skipped for their size."""
        return self.written + self.failed + self.skipped_now

    @property
    def pending(self) -> int:
        """Images not processed, or not yet. Negative where more images came back than were sent."""
        return self.to_do - self.done + self.left

    @property
    def seconds(self) -> float:
        """Wall seconds since the first worker was ready; 0 before, and until that is known."""
        return time.monotonic() - self.started_work if self.started_work else 0.0

    @property
    def actors(self) -> int:
        return self.pool.actors if self.pool else 0

    @property
    def waiting_for(self) -> str:
        """What the run waits for before the model has begun, and when it has done all; "" between them."""
        parts = self.in_hand.parts
        if not self.to_do:
            return "nothing to do"
        if self.done or any(part.share for part in parts):
            left = self.to_do - self.done
            is_last = 0 < left <= len(parts) and all(part.share == 1.0 for part in parts)
            return f"writing {_names(parts)}" if is_last else ""
        if parts:
            return f"reading {_names(parts)}"
        if not self.started_engine:
            return "loading the model" if self.engine == LOCAL else "starting Ray"
        if self.started_work:
            return "waiting for the first image"
        return "starting workers and loading the model"

    def start(self, pool: Pool, place: str, *, ready: bool) -> None:
        """Note that the engine is up; ready: one of its workers has loaded the model too."""
        self.pool, self.place = pool, place
        self.started_engine = time.monotonic()
        if ready:
            self.worker_is_ready()

    def worker_is_ready(self) -> None:
        """Note that a worker has loaded the model; any but the first time changes nothing."""
        if not self.started_work:
            self._start_work(time.monotonic())

    def _start_work(self, when: float) -> None:
        self.started_work = when
        self.recent.add(Mark(when, 0, 0.0))

    def _ready_since(self, outcomes: pa.Table) -> float:
        """Return when the worker was ready that made the first outcomes, by the seconds that it has waited and worked.

        Durations, because the clocks of two machines differ.
        """
        fused = self.pool is not None and self.pool.fused
        columns = [WAITED.name, "seconds_transform", "seconds_encode", *(["seconds_decode"] if fused else [])]
        spent = sum(
            pc.sum(outcomes[name]).as_py() or 0.0 for name in columns if name in outcomes.column_names
        )
        return max(self.started_engine, time.monotonic() - spent)

    def add(self, outcomes: pa.Table) -> None:
        """Count FINISHED rows."""
        if not self.started_work and outcomes.num_rows:
            self._start_work(self._ready_since(outcomes))
        written = outcomes.filter(pc.equal(outcomes["status"], WRITTEN))
        failed = outcomes.filter(pc.equal(outcomes["status"], FAILED))
        self.written += written.num_rows
        self.failed += failed.num_rows
        self.skipped_now += outcomes.num_rows - written.num_rows - failed.num_rows
        self.reasons.update(failed["reason"].to_pylist())
        self.models.update(counts_of(written["model"]))
        self._count_unknown_words(written)
        height, width = (written[c].cast(pa.float64()) for c in ("in_height", "in_width"))
        self.megapixels += (pc.sum(pc.multiply(height, width)).as_py() or 0) / 1e6
        self.bytes_in += pc.sum(written["size"]).as_py() or 0
        self.bytes_out += pc.sum(written["out_bytes"]).as_py() or 0
        for stage in STAGE_SECONDS:
            self.stage_seconds[stage] += pc.sum(outcomes[f"seconds_{stage}"]).as_py() or 0.0
        # Rows that the driver made itself lack this column.
        if WAITED.name in outcomes.column_names:
            self.waited += pc.sum(outcomes[WAITED.name]).as_py() or 0.0
        self.size_done += pc.sum(outcomes["size"]).as_py() or 0
        self.in_hand.finish(outcomes["key"])
        self.mark()

    def mark(self) -> None:
        """Note for the speed what is done by now."""
        if self.started_work:
            self.recent.add(self._mark())

    def _count_unknown_words(self, written: pa.Table) -> None:
        remarked = written.filter(pc.not_equal(written["message"], "")).select(["notes", "message"])
        for row in remarked.to_pylist():
            if WORDS_UNKNOWN in row["notes"]:
                self.with_unknown_words += 1
                self.model_knows, words = unknown_in(row["message"])
                room = len(self.unknown_words) < MOST_WORDS
                self.unknown_words.update(word for word in words if room or word in self.unknown_words)

    def _mark(self) -> Mark:
        parts = self.in_hand
        done, megapixels, size = self.done, self.megapixels, self.size_done
        return Mark(time.monotonic(), done + parts.images, megapixels + parts.megapixels, size + parts.size)

    def _seconds_left(self, now: Mark, speed: Speed) -> int | None:
        """Return the seconds that the rest takes at this speed; None where that is not known."""
        if not speed.images or (self.waiting_for and self.done < self.to_do):
            return None
        if self.size_to_do and speed.size:
            return round(max(0.0, self.size_to_do - now.size) / speed.size)
        return round(max(0.0, self.to_do - now.images) / speed.images)

    def to_dict(self, state: str) -> dict[str, Any]:
        """Return the content of `status.json`; the speed and the time left are those of the last minute."""
        now = self._mark()
        speed = self.recent.speed(now)
        return {
            "run": self.run,
            "state": state,
            "engine": self.engine,
            "listed": self.listed,
            "to_do": self.to_do,
            "written": self.written,
            "current": self.current,
            "skipped": self.skipped + self.skipped_now,
            "skipped_kinds": self.skipped_kinds,
            "not_listed": self.not_listed,
            "failed": self.failed + self.failed_before,
            "failed_before": self.failed_before,
            "pending": self.pending,
            "left": self.left,
            "reasons": dict(self.reasons),
            "megapixels": round(self.megapixels, 2),
            "seconds": round(self.seconds, 1),
            "waiting_for": self.waiting_for,
            "megapixels_per_second": round(speed.megapixels, 4),
            "images_per_second": round(speed.images, 4),
            "seconds_left": self._seconds_left(now, speed),
            "updated": time.time(),
        }

    def summary(self, state: str) -> "Summary":
        """Return the counts of a run that ended in `state`."""
        seconds = self.seconds
        return Summary(
            run=self.run,
            state=state,
            listed=self.listed,
            vanished=self.vanished,
            written=self.written,
            current=self.current,
            skipped=self.skipped + self.skipped_now,
            failed=self.failed + self.failed_before,
            failed_before=self.failed_before,
            pending=self.pending,
            left=self.left,
            causes=self.causes,
            reasons=dict(self.reasons),
            megapixels=round(self.megapixels, 3),
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            seconds_total=round(time.monotonic() - self.started, 2),
            seconds_work=round(seconds, 2),
            megapixels_per_second=round(self.megapixels / seconds, 4) if seconds else 0.0,
            stage_seconds={k: round(v, 2) for k, v in self.stage_seconds.items()},
            seconds_waited=round(self.waited, 2),
            bottleneck=self.bottleneck(),
            models=dict(self.models),
            model_knows=self.model_knows,
            with_unknown_words=self.with_unknown_words,
            unknown_words=dict(self.unknown_words.most_common(SHOWN_WORDS)),
            not_listed=self.not_listed,
            skipped_kinds=self.skipped_kinds,
        )

    def bottleneck(self) -> str:
        """Return what limited the run and what would help, in a sentence; "" where nothing clearly did.

        Derived from how long the actors worked and waited, and from how many codec tasks were busy meanwhile.
        """
        worked = self.stage_seconds["transform"]
        if self.pool is None or self.seconds < SHORT_SECONDS or not worked:
            return ""
        if self.pool.fused:
            return self._slowest_part(worked)
        waiting = self.waited / (worked + self.waited)
        models = "model" if self.actors == 1 else f"{self.actors} models"
        if waiting < MIN_WAITING_SHARE:
            return f"the {models} limited this run (busy {1 - waiting:.0%} of the time): more or faster devices help"
        slots = {"decode": self.pool.decoders, "encode": self.pool.encoders}
        at_work = {stage: self.stage_seconds[stage] / self.seconds for stage in slots}
        stage = max(slots, key=lambda stage: at_work[stage] / slots[stage])
        if at_work[stage] < SATURATED_SHARE * slots[stage]:
            # Both stages had CPUs to spare: the models waited for something else, such as Ray or other programs.
            return ""
        # How many more tasks would keep the models from waiting.
        lacking = at_work[stage] * self.waited / worked
        # The share of new CPUs that this stage would get.
        share = slots[stage] / sum(slots.values())
        more = math.ceil(lacking * self.pool.task_cpus / share)
        remedy = {"decode": "bring the source nearer", "encode": "take --format jpeg"}[stage]
        return (
            f"the {models} waited {waiting:.0%} of the time for {stage}: give it {more} more CPU{'s' * (more > 1)}, or "
            f"{remedy}"
        )

    def _slowest_part(self, worked: float) -> str:
        """Return what limited processes that run all stages themselves.

        They fetch and publish beside the model, so that the seconds of the stages overlap: waiting is counted apart.
        """
        whole = self.seconds * self.actors
        if worked / whole >= 1 - MIN_WAITING_SHARE:
            return f"the model limited this run ({worked / whole:.0%} of the time): more or faster cores help"
        if self.waited / whole >= MIN_WAITING_SHARE:
            return (
                f"the processes waited {self.waited / whole:.0%} of the time for storage: bring source and destination "
                "nearer, or take more --workers"
            )
        remedy = {"decode": "", "encode": "take --format jpeg, or "}
        stage = max(remedy, key=lambda stage: self.stage_seconds[stage])
        share = self.stage_seconds[stage] / whole
        if not MIN_WAITING_SHARE <= share <= 1:
            return ""
        return f"{stage} took {share:.0%} of the time: {remedy[stage]}give the run more cores"


def _names(parts: Sequence[PartDone]) -> str:
    """Return which images these are, in few words."""
    return parts[0].key.rpartition("/")[2] if len(parts) == 1 else f"{len(parts)} images"


@dataclass(frozen=True)
class Summary:
    """How a run ended; the content of `summary.json`. `seconds_work` leaves start-up out."""

    run: str
    state: str
    listed: int
    vanished: int
    written: int
    current: int
    skipped: int
    failed: int
    failed_before: int
    pending: int
    left: int
    causes: dict[str, int]
    reasons: dict[str, int]
    megapixels: float
    bytes_in: int
    bytes_out: int
    seconds_total: float
    seconds_work: float
    megapixels_per_second: float
    stage_seconds: dict[str, float]
    seconds_waited: float
    bottleneck: str
    models: dict[str, int] = field(default_factory=dict)
    not_listed: dict[str, int] = field(default_factory=dict)
    skipped_kinds: dict[str, int] = field(default_factory=dict)
    # As in a Tally; the most frequent words.
    model_knows: str = ""
    with_unknown_words: int = 0
    unknown_words: dict[str, int] = field(default_factory=dict)

    @property
    def accounted(self) -> bool:
        """Return whether every listed image is counted exactly once, and none of a finished run is pending."""
        places = self.written + self.current + self.skipped + self.failed + self.pending
        waiting = self.pending - self.left
        return self.listed == places and (waiting == 0 if self.state == "done" else waiting >= 0)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"accounted": self.accounted}


# Called with the tally whenever it has changed.
Watcher = Callable[[Tally], None]
