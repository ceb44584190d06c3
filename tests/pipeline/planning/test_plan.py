"""Plans: every class, names, superseded files, and the same result in memory and on disk."""

import uuid
from collections.abc import Iterator

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgtx.codecs import SUFFIXES
from pipeline.ledger import ledger as ledger_module
from pipeline.ledger.ledger import Ledger
from pipeline.planning import plan as plan_module
from pipeline.planning.plan import CLASSES, LEFT_OUT, PLANNED, Plan, make_plan
from pipeline.sources.images import classify
from pipeline.sources.selection import Selection
from pipeline.storage.store import open_store
from pipeline.tables import spill
from pipeline.tables.rows import to_table
from pipeline.tables.schemas import (
    FAILED,
    INVENTORY,
    LISTED,
    PENDING,
    REASONS,
    RETRIED_BY_A_PLAIN_RUN,
    SKIPPED,
)
from tests.support.ledger_rows import outcome, outcomes


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(open_store(f"memory://{uuid.uuid4().hex}/"))


def listing(*keys: str, version: str = "v1") -> Iterator[pa.RecordBatch]:
    """Yield batches of two rows, so that every test crosses a boundary."""
    for start in range(0, len(keys), 2):
        rows = [{"key": key, "size": 10, "version": version} for key in keys[start : start + 2]]
        yield classify(pa.RecordBatch.from_pylist(rows, INVENTORY), SUFFIXES, local_destination=True)


def plan(ledger: Ledger, *keys: str, recipe: str = "r1", format: str = "same", **options) -> Plan:
    return make_plan(listing(*keys), ledger, recipe=recipe, requested_format=format, **options)


def causes(made: Plan) -> dict[str, str]:
    return {row["key"]: row["cause"] for row in made.work.slice().to_pylist()}


def outputs(made: Plan) -> dict[str, tuple[str, str]]:
    rows = made.work.slice().to_pylist()
    return {row["key"]: (row["output"], row["previous_output"]) for row in rows}


def nonzero(made: Plan) -> dict[str, int]:
    assert list(made.counts) == list(CLASSES) == list(made.sizes)
    return {cause: count for cause, count in made.counts.items() if count}


def run(ledger: Ledger, made: Plan, *, recipe: str = "r1") -> None:
    """Write every planned output, as a run would."""
    rows = [
        outcome(row["key"], output=row["output"], version=row["version"])
        for row in made.work.slice().to_pylist()
    ]
    ledger.append(outcomes(*rows), recipe=recipe, run="1")


def test_an_empty_listing_and_an_empty_ledger_make_an_empty_plan(ledger):
    made = plan(ledger)
    assert made.listed == made.vanished == 0
    assert made.work.slice().equals(PLANNED.empty_table())
    assert made.left_out.slice().equals(LEFT_OUT.empty_table())


def test_everything_is_new_at_first_and_current_after_the_run(ledger):
    made = plan(ledger, "b.png", "a.jpg", "c/d.tif", format="png")
    assert nonzero(made) == {"new": 3}
    assert made.work.slice().schema == PLANNED
    assert made.work.slice()["key"].to_pylist() == ["b.png", "a.jpg", "c/d.tif"]
    assert outputs(made) == {"b.png": ("b.png", ""), "a.jpg": ("a.png", ""), "c/d.tif": ("c/d.png", "")}
    run(ledger, made)
    again = plan(ledger, "b.png", "a.jpg", "c/d.tif", format="png")
    assert nonzero(again) == {"current": 3}
    assert again.work.num_rows == 0


def test_where_models_are_chosen_a_row_is_current_by_the_recipe_for_its_quality(ledger):
    """Those made by one model for all, and by an older imgtx, run again where another is chosen now, and only there."""
    rows = {"clean.png": 100, "good.jpg": 95, "bad.jpg": 50, "older.png": -1}
    ledger.append(outcomes(*(outcome(key, quality=q) for key, q in rows.items())), recipe="sharp", run="1")
    failed = outcome("broken.jpg", status=FAILED, reason="corrupt")
    ledger.append(outcomes(failed), recipe="both", run="1")
    chosen = {"recipe": "both", "recipes_by_quality": [(90, 100, "sharp"), (0, 89, "soft")]}
    made = plan(ledger, *rows, "broken.jpg", **chosen)
    assert causes(made) == {"bad.jpg": "stale", "older.png": "stale"}
    assert nonzero(made) == {"stale": 2, "current": 2, "failed_before": 1}
    ledger.append(outcomes(outcome("bad.jpg", quality=50)), recipe="soft", run="2")
    assert causes(plan(ledger, *rows, **chosen)) == {"older.png": "stale"}
    # One model for all again: what it made is still its own.
    assert causes(plan(ledger, *rows, recipe="sharp")) == {"bad.jpg": "stale"}
    assert nonzero(plan(ledger, *rows, older_recipes=["soft"]))["older_imgtx"] == 1


def test_an_image_that_changed_at_the_source_runs_again(ledger):
    run(ledger, plan(ledger, "a.png", "b.png"))
    ledger.append(outcomes(outcome("b.png", version="v0")), recipe="r1", run="0")
    assert causes(plan(ledger, "a.png", "b.png")) == {"b.png": "changed"}


def test_another_recipe_makes_written_and_failed_rows_stale(ledger):
    ledger.append(
        outcomes(outcome("a.png"), outcome("b.png", status=FAILED, reason="corrupt")), recipe="r1", run="1"
    )
    assert causes(plan(ledger, "a.png", "b.png", recipe="r2")) == {"a.png": "stale", "b.png": "stale"}


def test_what_an_older_imgtx_made_is_counted_by_itself(ledger):
    rows = (
        outcome("a.png"),
        outcome("b.png", status=FAILED, reason="animated"),
        outcome("c.png", version="v0"),
    )
    ledger.append(outcomes(*rows), recipe="r1", run="1")
    ledger.append(outcomes(outcome("d.png")), recipe="r2", run="2")
    ledger.append(outcomes(outcome("e.png")), recipe="other", run="3")
    keys = ("a.png", "b.png", "c.png", "d.png", "e.png")
    made = plan(ledger, *keys, recipe="r3", older_recipes=("r1", "r2"))
    expected = {"a.png": "older_imgtx", "b.png": "older_imgtx", "c.png": "changed", "d.png": "older_imgtx"}
    assert causes(made) == expected | {"e.png": "stale"}
    assert nonzero(made) == {"older_imgtx": 3, "changed": 1, "stale": 1}
    assert outputs(made)["a.png"] == ("a.png", "")
    assert nonzero(plan(ledger, *keys, recipe="r2", older_recipes=("r1",)))["current"] == 1


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_a_failure_runs_again_only_if_its_reason_may_pass(ledger, reason):
    ledger.append(outcomes(outcome("a.png", status=FAILED, reason=reason)), recipe="r1", run="1")
    made = plan(ledger, "a.png")
    if reason in RETRIED_BY_A_PLAIN_RUN:
        assert causes(made) == {"a.png": "retry"}
    else:
        assert nonzero(made) == {"failed_before": 1}
        assert made.work.num_rows == 0
        assert causes(plan(ledger, "a.png", retry_failed=True)) == {"a.png": "failed_before"}


def test_truncated_images_run_again_where_damage_is_accepted(ledger):
    reasons = {"a.png": "truncated", "b.png": "unrecoverable"}
    failures = [outcome(key, status=FAILED, reason=reason) for key, reason in reasons.items()]
    ledger.append(outcomes(*failures), run="1", recipe="r1")
    assert nonzero(plan(ledger, "a.png", "b.png")) == {"failed_before": 2}
    assert causes(plan(ledger, "a.png", "b.png", accept_damage=True)) == {"a.png": "retry"}


def test_pending_rows_run_again_and_skipped_rows_are_new(ledger):
    ledger.append(outcomes(outcome("a.png", status=PENDING)), recipe="", run="1")
    ledger.append(outcomes(outcome("b.png", status=SKIPPED, reason="suffix")), recipe="r1", run="1")
    assert causes(plan(ledger, "a.png", "b.png")) == {"a.png": "retry", "b.png": "new"}


def test_left_out_rows_are_counted_and_marked_where_the_ledger_has_them(ledger):
    made = plan(ledger, "a.png", "notes.txt", "x/../b.png", "c//d.png")
    assert nonzero(made) == {"new": 1, "skipped": 1, "refused": 2}
    assert made.listed == 4
    assert made.left_out.slice().schema == LEFT_OUT
    rows = {row["key"]: row for row in made.left_out.slice().to_pylist()}
    assert (rows["notes.txt"]["status"], rows["notes.txt"]["reason"]) == ("skipped", "suffix")
    assert (rows["c//d.png"]["status"], rows["c//d.png"]["reason"]) == ("failed", "unsafe_key")
    assert rows["c//d.png"]["message"]
    assert not any(row["recorded"] for row in rows.values())
    ledger.append(outcomes(outcome("c//d.png", status=FAILED, reason="unsafe_key")), recipe="r1", run="1")
    again = {row["key"]: row["recorded"] for row in plan(ledger, *rows).left_out.slice().to_pylist()}
    assert again == {"notes.txt": False, "x/../b.png": False, "c//d.png": True}


def test_keys_no_longer_listed_are_counted_and_left_alone(ledger):
    run(ledger, plan(ledger, "a.png", "b.png", "c.png"))
    made = plan(ledger, "b.png")
    assert made.vanished == 2
    assert nonzero(made) == {"current": 1}
    assert plan(ledger).vanished == 3


def selected(ledger: Ledger, selection: Selection, *keys: str, **options) -> Plan:
    """Return the plan of a source that holds `keys`, of which a selection lists some."""
    divided = [selection.divide(batch.select(INVENTORY.names)) for batch in listing(*keys)]
    taken = [classify(batch, SUFFIXES, local_destination=True) for batch, _ in divided]
    options = {"recipe": "r1", "requested_format": "same"} | options
    return make_plan([*taken, *(rest for _, rest in divided)], ledger, selection=selection, **options)


def test_what_a_selection_leaves_out_is_neither_listed_nor_vanished(ledger):
    keys = ("a.png", "b.png", "c/d.png", "notes.txt", "._a.png")
    run(ledger, plan(ledger, *keys[:3], "gone.png"))
    made = selected(ledger, Selection(include=("a*", "new*", "gone*")), *keys, "new.png")
    assert nonzero(made) == {"current": 1, "new": 1}
    assert (made.listed, made.vanished) == (2, 1)
    assert made.not_listed == {"hidden": 1, "excluded": 3}
    assert made.left_out.num_rows == 0, "nothing of it gets a row"
    again = selected(ledger, Selection(), *keys)
    assert nonzero(again) == {"current": 3, "skipped": 1}
    assert again.not_listed == {"hidden": 1, "excluded": 0}


def test_a_selection_by_the_source_item_is_the_same_in_every_style(ledger):
    rows = [outcome(f"{style}/{key}", item=key) for style in ("ink", "oil") for key in ("a.png", "b.png")]
    ledger.append(outcomes(*rows), recipe="r1", run="1")
    assert selected(ledger, Selection(include=("a.png",))).vanished == 2
    assert selected(ledger, Selection(include=("oil/*",))).vanished == 0


def test_names_do_not_depend_on_what_is_selected(ledger):
    keys = ("a.jpg", "a.png", "b.tif")
    run(ledger, plan(ledger, *keys, format="png"))
    for only in keys:
        made = selected(ledger, Selection(include=(only,)), *keys, requested_format="png")
        assert nonzero(made) == {"current": 1}


def test_an_output_of_what_is_left_out_is_never_overwritten_or_deleted(ledger):
    first = selected(ledger, Selection(include=("a.jpg",)), "a.jpg", "a.png", requested_format="png")
    assert outputs(first) == {"a.jpg": ("a.png", "")}
    run(ledger, first)
    for format in ("png", "same"):
        made = selected(ledger, Selection(exclude=("*.jpg",)), "a.jpg", "a.png", requested_format=format)
        ((name, previous),) = outputs(made).values()
        assert name.startswith("a~")
        assert not previous
    # All at once: both get their own, and the first is made again under its new name.
    made = plan(ledger, "a.jpg", "a.png", format="png")
    assert outputs(made)["a.jpg"][1] == "a.png"


def test_a_listed_key_that_is_not_there_fails_or_has_vanished(ledger):
    run(ledger, plan(ledger, "a.png"))
    absent = [
        {"key": key, "status": FAILED, "reason": "not_found", "message": "m"} for key in ("a.png", "b.png")
    ]
    batches = to_table(absent, LISTED).to_batches()
    made = make_plan(batches, ledger, recipe="r1", requested_format="same")
    assert nonzero(made) == {"refused": 1}
    assert made.vanished == 1
    assert made.left_out.slice()["key"].to_pylist() == ["b.png"]


def test_existing_outputs_that_another_recipe_replaces_or_deletes_are_counted(ledger):
    run(ledger, plan(ledger, "a.jpg", "b.png", "c.png"))
    ledger.append(outcomes(outcome("failed.png", status=FAILED, reason="corrupt")), recipe="r1", run="1")
    keys = ("a.jpg", "b.png", "c.png", "failed.png", "new.png", "notes.txt")
    made = plan(ledger, *keys)
    assert (made.replaces, made.deletes, made.images) == (0, 0, 5)
    assert (plan(ledger, *keys, recipe="r2").replaces, plan(ledger, *keys, recipe="r2").deletes) == (3, 0)
    as_png = plan(ledger, *keys, recipe="r2", format="png", older_recipes=("r1",))
    assert (as_png.replaces, as_png.deletes) == (2, 1)
    # What changed at the source is meant to be replaced.
    ledger.append(outcomes(outcome("b.png", version="v0")), recipe="r1", run="0")
    assert plan(ledger, *keys, recipe="r2").replaces == 2
    assert plan(ledger, *keys, recipe="r2", retry_failed=True).replaces == 0


def test_skipped_keys_are_counted_by_suffix(ledger, monkeypatch):
    keys = ("a.png", "b.MOV", "c/d.mov", "x.tar.gz", "README", ".profile", "a.x/b", "z.a long story")
    assert plan(ledger, *keys).skipped_kinds == {".mov": 2, ".gz": 1, "": 3, ".profile": 1}
    monkeypatch.setattr(plan_module, "MOST_KINDS", 1)
    assert sum(plan(ledger, *keys).skipped_kinds.values()) == 7
    assert len(plan(ledger, *keys).skipped_kinds) == 2


def test_a_key_listed_twice_is_one_key(ledger):
    made = plan(ledger, "a.png", "b.png", "a.png")
    assert nonzero(made) == {"new": 2}
    assert outputs(made) == {"b.png": ("b.png", ""), "a.png": ("a.png", "")}


def test_an_inventory_is_planned_as_images(ledger):
    batch = pa.RecordBatch.from_pylist([{"key": "a.png", "size": 7, "version": "v"}], INVENTORY)
    made = make_plan([batch], ledger, recipe="r", requested_format="same")
    assert (made.counts["new"], made.sizes["new"]) == (1, 7)


def test_sizes_are_bytes_of_the_source_by_class(ledger):
    run(ledger, plan(ledger, "a.png"))
    made = plan(ledger, "a.png", "b.png", "c.png", "d.txt")
    assert {cause: size for cause, size in made.sizes.items() if size} == {
        "current": 10,
        "new": 20,
        "skipped": 10,
    }


def test_a_new_format_supersedes_the_old_file(ledger):
    run(ledger, plan(ledger, "a.jpg", "b.png", format="png"))
    made = plan(ledger, "a.jpg", "b.png", recipe="r2", format="webp")
    assert outputs(made) == {"a.jpg": ("a.webp", "a.png"), "b.png": ("b.webp", "b.png")}
    run(ledger, made, recipe="r2")
    back = plan(ledger, "a.jpg", "b.png", format="png")
    assert outputs(back) == {"a.jpg": ("a.png", "a.webp"), "b.png": ("b.png", "b.webp")}


def test_the_old_file_is_remembered_through_failures_and_compaction(ledger):
    run(ledger, plan(ledger, "a.jpg", format="png"))
    ledger.append(
        outcomes(outcome("a.jpg", output="a.webp", status=FAILED, reason="storage")), recipe="r2", run="2"
    )
    ledger.compact()
    assert outputs(plan(ledger, "a.jpg", recipe="r2", format="webp")) == {"a.jpg": ("a.webp", "a.png")}


def test_a_new_key_that_clashes_renames_both_and_deletes_no_file_of_the_other(ledger):
    run(ledger, plan(ledger, "a.jpg", format="png"))
    made = plan(ledger, "a.jpg", "a.png", format="png")
    assert causes(made) == {"a.jpg": "stale", "a.png": "new"}
    named = outputs(made)
    assert named["a.jpg"][0] != named["a.png"][0]
    assert named["a.jpg"][1] == "a.png"
    assert named["a.png"][1] == ""
    run(ledger, made)
    assert nonzero(plan(ledger, "a.jpg", "a.png", format="png")) == {"current": 2}


def test_an_old_file_whose_name_another_key_now_has_is_not_deleted(ledger):
    run(ledger, plan(ledger, "a.jpg", format="png"))
    made = plan(ledger, "a.jpg", "a.png", recipe="r2", format="same")
    assert outputs(made) == {"a.jpg": ("a.jpg", ""), "a.png": ("a.png", "")}


def test_a_file_that_another_key_has_overwritten_is_not_current(ledger):
    # a.jpg is written to a.png, which is the same file as A.PNG on a file system that ignores case.
    run(ledger, plan(ledger, "a.jpg", format="png"))
    later = make_plan(listing("A.PNG"), ledger, recipe="r2", requested_format="same")
    run(ledger, later, recipe="r2")
    assert causes(plan(ledger, "a.jpg", format="png")) == {"a.jpg": "stale"}
    assert outputs(plan(ledger, "a.jpg", recipe="r3", format="webp")) == {"a.jpg": ("a.webp", "")}


def test_an_interrupted_run_resumes_under_the_same_names(ledger):
    keys = ["a.jpg", "a.png", "A.png", "b.jpg", "b.png/c.png", "d.jpg"]
    whole = outputs(plan(ledger, *keys, format="png"))
    ledger.append(
        outcomes(*(outcome(key, output=whole[key][0]) for key in ["A.png", "b.jpg"])), recipe="r1", run="1"
    )
    rest = plan(ledger, *keys, format="png")
    assert nonzero(rest) == {"new": 4, "current": 2}
    assert outputs(rest) == {key: whole[key] for key in keys if key not in ("A.png", "b.jpg")}


def by_key(table: pa.Table) -> pa.Table:
    return table.sort_by("key")


@pytest.mark.parametrize("held", [1, 64 << 20], ids=["through disk", "in memory"])
def test_many_buckets_give_the_same_plan(ledger, monkeypatch, held):
    keys = [f"{i % 7}/k{i}.jpg" for i in range(300)]
    run(ledger, plan(ledger, *keys[:200], format="png"))
    ledger.append(
        outcomes(*(outcome(key, status=FAILED, reason="corrupt") for key in keys[:50])), recipe="r1", run="2"
    )
    ledger.append(outcomes(*(outcome(f"gone{i}") for i in range(30))), recipe="r1", run="2")
    listed = [*keys, "readme.txt"]
    expected = plan(ledger, *listed, format="png", recipe="r1", retry_failed=True)
    assert nonzero(expected) == {"new": 100, "failed_before": 50, "current": 150, "skipped": 1}
    monkeypatch.setattr(ledger_module, "BUCKET_BYTES", 3000)
    monkeypatch.setattr(spill, "HELD_BYTES", held)
    assert ledger.bucket_count() >= 4
    for _ in range(2):
        made = plan(ledger, *listed, format="png", recipe="r1", retry_failed=True)
        assert by_key(made.work.slice()).equals(by_key(expected.work.slice()))
        assert by_key(made.left_out.slice()).equals(by_key(expected.left_out.slice()))
        assert (made.counts, made.sizes, made.vanished) == (expected.counts, expected.sizes, 30)
        ledger.compact()


# Few names, so that they clash, are folders of one another, reuse one another's files and orphan them.
names_that_clash = st.lists(
    st.sampled_from(
        "a.jpg a.png A.png a.tif a.png/b.png b.bmp b.png B.jpg c/x.jpg C/x.jpg c.txt x/../y.png Straße.jpg STRASSE.png "
        f"{'é' * 125}.jpg".split(" ")
    ),
    max_size=9,
)


@settings(max_examples=6, deadline=None)
@given(
    runs=st.lists(
        st.tuples(names_that_clash, st.sampled_from(["same", "png", "webp"]), st.sampled_from(["v1", "v2"])),
        min_size=1,
        max_size=4,
    )
)
def test_a_plan_is_the_same_in_buckets_on_disk_and_whole_in_memory(runs):
    """In each of several runs some outputs are written, some fail and some stay pending."""
    ledger = Ledger(open_store(f"memory://{uuid.uuid4().hex}/"))
    for number, (keys, format, version) in enumerate(runs):
        made = [make_plan(listing(*keys, version=version), ledger, recipe=format, requested_format=format)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(spill, "HELD_BYTES", 1)
            patch.setattr(spill, "BUCKET_ROWS", 3)
            made.append(
                make_plan(listing(*keys, version=version), ledger, recipe=format, requested_format=format)
            )
            for rows in ("work", "left_out"):
                whole, cut = (by_key(getattr(plan, rows).slice()) for plan in made)
                assert whole.equals(cut)
        assert (made[0].counts, made[0].sizes, made[0].vanished) == (
            made[1].counts,
            made[1].sizes,
            made[1].vanished,
        )
        statuses = ["written", FAILED, PENDING, "written"]
        rows = [
            outcome(
                row["key"], output=row["output"], version=row["version"], status=statuses[(i + number) % 4]
            )
            for i, row in enumerate(made[0].work.slice().to_pylist())
        ]
        ledger.append(outcomes(*rows), recipe=format, run=str(number))
