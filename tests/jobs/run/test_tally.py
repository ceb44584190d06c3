"""The accounting identity holds at every moment; the progress line and the bottleneck are right."""

import io
import json
import re
import time
from dataclasses import replace

import pytest
from rich.console import Console

from imgtx.models.generation import WORDS_UNKNOWN
from jobs.inspect.status import print_summary
from jobs.run import progress, tally
from jobs.run.recent import Mark, RecentSpeed
from jobs.run.tally import Tally
from pipeline.cluster.pool import Pool
from pipeline.planning.plan import (
    CLASSES,
    CURRENT,
    FAILED_BEFORE,
    LEFT_OUT,
    NEW,
    PLANNED,
    REFUSED,
    SKIPPED,
    Plan,
)
from pipeline.spec import RunSpec
from pipeline.stages.part_done import PartDone
from pipeline.tables.rows import to_table
from pipeline.tables.schemas import FAILED
from pipeline.tables.spill import Rows
from tests.support.ledger_rows import outcome, outcomes

# One model with a core, eight tasks of a quarter of a CPU each: four decode, four encode and publish.
POOL = Pool(1, 1.0, 0.0, 0.25, 1, 1, decoders=4, encoders=4)
FUSED = replace(POOL, actors=2, fused=True)


class Clock:
    """Replaces the module `time`; only the test moves it."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    time = monotonic


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(tally, "time", clock)
    return clock


def tallied(*, taken: dict[str, int] | None = None, **counts: int) -> Tally:
    """Return a tally of a plan with these counts.

    taken: the number of images that the run processes, by class; by default all that are new.
    """
    whole = dict.fromkeys(CLASSES, 0) | counts
    plan = Plan(Rows(PLANNED), Rows(LEFT_OUT), whole, dict.fromkeys(CLASSES, 0), 0)
    taken = {NEW: counts.get(NEW, 0)} if taken is None else taken
    rows = [{"key": f"{cause}{i}", "cause": cause} for cause, n in taken.items() for i in range(n)]
    return Tally.from_plan("r", plan, [to_table(rows, PLANNED)])


def started(clock: Clock, *, to_do: int = 20, **counts: int) -> Tally:
    counted = tallied(**({NEW: to_do} | counts))
    counted.start(POOL, "on this machine", ready=True)
    return counted


def good(key: str, **seconds: float) -> dict:
    return outcome(key, size=100, out_bytes=300, in_height=1000, in_width=500, **seconds)


def bad(key: str, reason: str) -> dict:
    return outcome(key, status=FAILED, stage="decode", reason=reason)


def held(counted: Tally) -> bool:
    summary = counted.summary("running")
    left = counted.to_dict("running")
    places = ("written", "current", "skipped", "failed", "pending")
    return summary.accounted and left["listed"] == sum(left[name] for name in places)


def test_every_listed_image_is_in_one_place_at_every_moment(clock):
    counts = {NEW: 6, CURRENT: 5, SKIPPED: 2, FAILED_BEFORE: 4, REFUSED: 1}
    counted = tallied(**counts)
    assert held(counted)
    assert (counted.listed, counted.pending, counted.failed_before) == (18, 6, 5)
    for rows in (
        outcomes(good("a"), bad("b", "truncated")),
        outcomes(),
        outcomes(bad("c", "empty"), good("d")),
    ):
        counted.add(rows)
        assert held(counted)
    assert (counted.written, counted.failed, counted.pending, counted.done) == (2, 2, 2, 4)
    summary = counted.summary("interrupted")
    assert (summary.failed, summary.failed_before, summary.reasons) == (7, 5, {"truncated": 1, "empty": 1})
    assert (summary.megapixels, summary.bytes_in, summary.bytes_out) == (1.0, 200, 600)
    assert summary.causes == counts
    json.dumps(summary.to_dict())


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({REFUSED: 2}, "3 failed, 2 of them unread: imgtx failures out"),
        ({FAILED_BEFORE: 1, REFUSED: 2}, "4 failed, 1 of them before, 2 of them unread: imgtx failures out"),
        ({FAILED_BEFORE: 1}, "2 failed, 1 of them before: imgtx failures out"),
        ({}, "1 failed: imgtx failures out"),
    ],
)
def test_a_first_run_has_no_failures_before(clock, counts, said):
    counted = tallied(**counts, **{NEW: 1})
    counted.add(outcomes(bad("a", "truncated")))
    text = io.StringIO()
    print_summary(counted.summary("done"), RunSpec("in", "out", model="sr-x2"), Console(file=text, width=200))
    assert said in text.getvalue()


def test_words_that_a_model_does_not_know_are_counted_and_said(clock):
    counted = tallied(**{NEW: 3})
    said = "small knows 1,000 words, and none of: "
    remarked = ({"notes": [WORDS_UNKNOWN], "message": said + words} for words in ("eiffel, paris", "paris"))
    counted.add(outcomes(*(outcome(str(n), **more) for n, more in enumerate(remarked)), outcome("plain")))
    summary = counted.summary("done")
    assert (summary.with_unknown_words, summary.unknown_words) == (2, {"paris": 2, "eiffel": 1})
    text = io.StringIO()
    print_summary(summary, RunSpec("in", "out", model="small"), Console(file=text, width=400))
    assert (
        "2 of 3 images have prompts with words that mean nothing to the model: small knows" in text.getvalue()
    )
    assert f"{said}paris, eiffel (the ledger's" in text.getvalue()


def test_retried_images_are_pending_and_not_failed(clock):
    counted = tallied(**{FAILED_BEFORE: 3, CURRENT: 1}, taken={FAILED_BEFORE: 2})
    assert (counted.failed_before, counted.pending) == (1, 2)
    assert held(counted)
    counted.add(outcomes(good("a")))
    assert (counted.written, counted.pending) == (1, 1)


def test_images_beyond_a_limit_stay_pending_in_a_run_that_is_done(clock):
    counted = tallied(**{NEW: 5, CURRENT: 1}, taken={NEW: 2})
    counted.add(outcomes(good("a"), good("b")))
    summary = counted.summary("done")
    assert (summary.pending, summary.left, summary.accounted) == (3, 3, True)


def test_a_summary_that_does_not_add_up_says_so(clock):
    counted = started(clock, to_do=2)
    assert counted.summary("interrupted").accounted
    # Two images are pending although the run was not interrupted.
    assert not counted.summary("done").accounted
    counted.add(outcomes(good("a"), good("b")))
    summary = counted.summary("done")
    assert summary.accounted
    assert replace(summary, written=1).to_dict()["accounted"] is False
    counted.add(outcomes(good("b")))
    # One image came back twice.
    assert not counted.summary("done").accounted
    assert not counted.summary("interrupted").accounted


def test_the_line_shows_progress_rate_and_failures(clock):
    counted = started(clock, to_do=2000)
    assert progress.line(counted.to_dict("running")) == "0/2000 images  waiting for the first image"
    clock.now += 100
    counted.add(
        outcomes(
            *(good(str(i)) for i in range(4)), bad("x", "truncated"), bad("y", "empty"), bad("z", "empty")
        )
    )
    counted.add(outcomes(*(good(str(i)) for i in range(10, 23))))
    expected = "20/2000 images  0.085 MP/s  ETA 2:45:00  failed 3 (empty 2, truncated 1)"
    assert progress.line(counted.to_dict("running")) == expected


def test_while_starting_the_line_says_what_is_waited_for(clock):
    counted = tallied(**{NEW: 20})

    def waits() -> str:
        return progress.line(counted.to_dict("running")).removeprefix("0/20 images  ")

    counted.engine = "local"
    assert waits() == "loading the model"
    counted.engine = "ray"
    assert waits() == "starting Ray"
    counted.start(POOL, "on Ray", ready=False)
    clock.now += 500
    assert waits() == "starting workers and loading the model"
    assert counted.seconds == 0.0
    assert tallied().waiting_for == "nothing to do"


@pytest.mark.parametrize(("fused", "expected"), [(False, 35.0), (True, 40.0)])
def test_the_clock_begins_when_the_first_worker_was_ready(clock, fused, expected):
    """The first outcomes say how long ago that was: how long their worker waited and worked since."""
    counted = tallied(**{NEW: 20})
    counted.start(replace(POOL, fused=fused), "on Ray", ready=False)
    clock.now += 100
    spent = {"seconds_decode": 5.0, "seconds_transform": 20.0, "seconds_encode": 4.0, "seconds_waited": 11.0}
    counted.add(outcomes(good("a", **spent)))
    assert counted.seconds == expected
    clock.now += 10
    counted.add(outcomes(good("b", **spent)))
    assert counted.seconds == expected + 10


def test_a_worker_is_not_ready_before_ray_is_up(clock):
    counted = tallied(**{NEW: 20})
    counted.start(POOL, "on Ray", ready=False)
    clock.now += 10
    counted.add(outcomes(good("a", seconds_transform=50.0)))
    assert counted.seconds == 10


def test_speed_and_time_left_are_those_of_the_last_minute(clock):
    counted = started(clock, to_do=1000)

    def finish(count: int, seconds: float) -> str:
        for number in range(count):
            clock.now += seconds
            counted.add(outcomes(good(f"{clock.now}-{number}")))
        return progress.line(counted.to_dict("running"))

    # 0.5 megapixels each.
    assert finish(100, 1.0) == "100/1000 images  0.5 MP/s  ETA 0:15:00"
    assert finish(30, 10.0) == "130/1000 images  0.05 MP/s  ETA 2:25:00"
    assert finish(160, 0.5) == "290/1000 images  1 MP/s  ETA 0:05:55"


def part(key: str, share: float, *, megapixels: float = 100.0, size: int = 900) -> PartDone:
    return PartDone(key, share, megapixels, size)


def test_what_is_done_of_an_image_counts_and_nothing_jumps_when_it_is_finished(clock):
    """One image of 100 megapixels takes 1000 seconds, and the speed is that of the last minute from the first on."""
    counted = started(clock, to_do=2)
    counted.in_hand.changed = counted.mark
    for second in range(1, 1000):
        clock.now += 1
        counted.in_hand.note("worker", part("large", second / 1000))
        said = counted.to_dict("running")
        assert said["megapixels_per_second"] == pytest.approx(0.1)
        assert said["seconds_left"] == 2000 - second
        assert (said["written"], said["megapixels"], said["waiting_for"]) == (0, 0.0, "")
        assert held(counted)
    clock.now += 1
    counted.add(outcomes(outcome("large", in_height=10_000, in_width=10_000)))
    said = counted.to_dict("running")
    assert said["megapixels_per_second"] == pytest.approx(0.1)
    assert (said["seconds_left"], said["megapixels"]) == (1000, 100.0)
    assert counted.in_hand.parts == []


def test_an_image_that_begins_again_counts_once(clock):
    counted = started(clock, to_do=1)
    counted.in_hand.changed = counted.mark
    for worker in ("first", "second"):
        for tenth in range(1, 10):
            clock.now += 10
            counted.in_hand.note(worker, part("large", tenth / 10))
            assert counted.in_hand.megapixels == pytest.approx(10 * tenth)
        if worker == "first":
            counted.in_hand.lose(worker)
            said = counted.to_dict("running")
            assert (said["megapixels_per_second"], said["seconds_left"]) == (0.0, None)
    # The minute counts, in which nothing was lost.
    assert counted.to_dict("running")["seconds_left"] == 10


def test_the_time_left_goes_by_the_size_of_sources(clock):
    """Of two images the one of nine tenths of all bytes is done in 90 seconds."""
    plan_rows = [{"key": "large", "cause": NEW, "size": 900}, {"key": "small", "cause": NEW, "size": 100}]
    plan = Plan(
        Rows(PLANNED), Rows(LEFT_OUT), dict.fromkeys(CLASSES, 0) | {NEW: 2}, dict.fromkeys(CLASSES, 0), 0
    )
    left = {}
    for by_size in (True, False):
        counted = Tally.from_plan("r", plan, [to_table(plan_rows, PLANNED)], by_size=by_size)
        counted.start(POOL, "on this machine", ready=True)
        clock.now += 45
        counted.in_hand.note("worker", part("large", 0.5))
        half = counted.to_dict("running")["seconds_left"]
        clock.now += 45
        counted.add(outcomes(outcome("large", size=900)))
        left[by_size] = half, counted.to_dict("running")["seconds_left"]
    assert left == {True: (55, 10), False: (135, 90)}


def test_the_line_says_that_an_image_is_read_and_that_it_is_written(clock):
    counted = started(clock, to_do=2)

    def line() -> str:
        return progress.line(counted.to_dict("running"))

    counted.in_hand.note("worker", part("folder/large.tif", 0.0, megapixels=0.0))
    assert line() == "0/2 images  reading large.tif"
    counted.in_hand.note("other", part("folder/larger.tif", 0.0, megapixels=0.0))
    assert line() == "0/2 images  reading 2 images"
    clock.now += 50
    counted.in_hand.note("worker", part("folder/large.tif", 0.5))
    assert line() == "0/2 images  1 MP/s  ETA 0:02:30"
    counted.in_hand.note("worker", part("folder/large.tif", 1.0))
    assert "ETA" in line()
    counted.in_hand.note("other", part("folder/larger.tif", 1.0))
    assert line() == "0/2 images  writing 2 images"
    counted.add(outcomes(good("folder/larger.tif")))
    assert line() == "1/2 images  writing large.tif"


def test_images_that_take_minutes_have_a_speed_too_and_a_standstill_shows(clock):
    counted = started(clock, to_do=3)
    clock.now += 200
    counted.add(outcomes(good("a")))
    assert counted.to_dict("running")["seconds_left"] == 400
    clock.now += 50
    assert counted.to_dict("running")["seconds_left"] == 500
    clock.now += 150
    counted.add(outcomes(good("b")))
    assert counted.to_dict("running")["seconds_left"] == 200


def test_marks_do_not_pile_up():
    recent = RecentSpeed()
    for number in range(5000):
        recent.add(Mark(number / 10, number, 0.5 * number))
    assert len(recent._marks) < 70
    assert recent.speed(Mark(500.0, 5000, 2500.0)) == (10.0, 5.0, 0.0)


@pytest.mark.parametrize("as_json", [False, True])
def test_lines_are_printed_at_intervals_even_if_nothing_changes(clock, capsys, monkeypatch, as_json):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.01)
    counted = started(clock)
    with progress.watcher(as_json=as_json, console=Console(force_terminal=False)) as watch:
        watch(counted)
        lines: list[str] = []
        others = ""
        while len(lines) < 2:
            time.sleep(0.01)
            printed = capsys.readouterr()
            lines += (printed.out if as_json else printed.err).splitlines()
            others += printed.err if as_json else printed.out
    if as_json:
        assert {json.loads(text)["state"] for text in lines} == {"running"}
    else:
        assert set(lines) == {"20 images on this machine", "0/20 images  waiting for the first image"}
    assert others == ""


def test_the_bar_shows_progress_and_failures(clock):
    console = Console(force_terminal=True, width=100, file=io.StringIO())
    counted = started(clock)
    with progress.watcher(as_json=False, console=console) as watch:
        counted.add(outcomes(bad("b", "truncated")))
        watch(counted)
    assert "1/20" in console.file.getvalue()
    assert "truncated 1" in console.file.getvalue()


@pytest.mark.parametrize(
    ("pool", "row", "sentence"),
    [
        (POOL, {"seconds_transform": 90.0, "seconds_waited": 5.0}, "the model limited this run (busy 95% of the time)"),
        (replace(POOL, actors=2), {"seconds_transform": 190.0}, "the 2 models limited this run (busy 100%"),
        # Four tasks decode all the time for 59% of what the model could take: 2.7 more, which get half of the new CPUs.
        (POOL, {"seconds_transform": 59.0, "seconds_decode": 390.0, "seconds_waited": 41.0},
         "the model waited 41% of the time for decode: give it 2 more CPUs, or bring the source nearer"),
        (POOL, {"seconds_transform": 50.0, "seconds_decode": 50.0, "seconds_encode": 400.0, "seconds_waited": 12.0},
         "the model waited 19% of the time for encode: give it 1 more CPU, or take --format jpeg"),
        # The model waited while the tasks that it waited for had CPUs to spare.
        (POOL, {"seconds_transform": 50.0, "seconds_decode": 100.0, "seconds_waited": 50.0}, ""),
        (FUSED, {"seconds_transform": 180.0}, "the model limited this run (90% of the time)"),
        # Downloads beside the model: the processes did not wait for them.
        (FUSED, {"seconds_transform": 180.0, "seconds_decode": 190.0}, "the model limited this run (90% of the time)"),
        (FUSED, {"seconds_transform": 20.0, "seconds_decode": 400.0, "seconds_waited": 150.0},
         "the processes waited 75% of the time for storage"),
        (FUSED, {"seconds_transform": 80.0, "seconds_encode": 100.0},
         "encode took 50% of the time: take --format jpeg"),
        (FUSED, {"seconds_transform": 80.0, "seconds_decode": 20.0}, ""),
        (None, {"seconds_transform": 20.0}, ""),
        (POOL, {}, ""),
    ],
)  # fmt: skip
def test_the_bottleneck_in_a_sentence(clock, pool, row, sentence):
    counted = started(clock)
    counted.pool = pool
    clock.now += 100
    counted.add(outcomes(good("a", **row)))
    assert counted.bottleneck().startswith(sentence)
    assert bool(sentence) == bool(counted.bottleneck())


def test_a_short_run_is_limited_by_its_start(clock):
    counted = started(clock)
    clock.now += 30
    counted.add(outcomes(good("a", seconds_transform=29.0)))
    assert counted.bottleneck() == ""


def test_the_advised_cpus_would_have_been_enough(clock):
    """With so many CPUs, decoding at the same speed keeps up with a model that never waits."""
    counted = started(clock)
    clock.now += 100
    counted.add(outcomes(good("a", seconds_transform=20.0, seconds_decode=390.0, seconds_waited=80.0)))
    found = re.search(r"waited 80% .* give it (\d+) more CPUs", counted.bottleneck())
    assert found
    decoders = POOL.decoders + int(found[1]) / POOL.task_cpus / 2
    assert decoders / POOL.decoders >= (20.0 + 80.0) / 20.0 * 390.0 / 400.0


def test_a_run_without_work_has_no_rate(clock):
    summary = tallied(current=3).summary("done")
    assert (summary.megapixels_per_second, summary.seconds_work, summary.bottleneck) == (0.0, 0.0, "")
