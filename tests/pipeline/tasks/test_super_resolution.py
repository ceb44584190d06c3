"""Which packaged model enlarges a picture, in memory and through local disk, and what the ledger says of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import imgtx
from imgtx.codecs import decode as decode_picture
from imgtx.errors import ModelError, UsageError
from imgtx.imageops.resize import imresize
from imgtx.models.choice import NETWORKS
from jobs.run.prepare import Prepared, plan_run, prepare
from pipeline.spec import RunSpec
from pipeline.stages.transform import Transform
from pipeline.tables.rows import to_table
from pipeline.tables.schemas import OUTCOME, WORK
from pipeline.tasks import images as tasks_images
from tests.pipeline.stages.test_stages import through_stages
from tests.support.metadata import properties, xmp_in
from tests.support.zoo import photo, saved

FILES = {
    "clean.png": ("PNG", {}, "clean", 100),
    "good.jpg": ("JPEG", {"quality": 95}, "clean", 95),
    "web.jpg": ("JPEG", {"quality": 75}, "photo", 75),
    "web.tif": ("TIFF", {"compression": "jpeg"}, "photo", 0),
}


@pytest.fixture
def folder(tmp_path) -> Path:
    source = tmp_path / "in"
    source.mkdir()
    for name, (format, settings, _, _) in FILES.items():
        (source / name).write_bytes(saved(photo(20, 28), format, **settings))
    return tmp_path


def prepared(folder: Path, *, model: str = "auto", settings: dict | None = None, **fields) -> Prepared:
    return prepare(
        RunSpec(
            str(folder / "in"),
            str(folder / "out"),
            model=model,
            settings=settings or {},
            format="png",
            **fields,
        )
    )


def work_of(run: Prepared) -> list[dict]:
    return [row for table in plan_run(run).work.tables(50_000) for row in table.to_pylist()]


def processed(run: Prepared) -> dict[str, dict]:
    """Run what the plan asks for through the stages, record it, and return its rows by key."""
    work = to_table([{name: row[name] for name in WORK.names} for row in work_of(run)], WORK)
    rows = through_stages(run.job, work)
    recipes = {choice.job.spec.model: choice.job.recipe.digest for choice in run.job.choices}
    run.ledger.append(to_table(rows, OUTCOME), recipe=run.job.recipe.digest, run="r", recipes=recipes)
    return {row["key"]: row for row in rows}


@pytest.mark.parametrize("how", ["in memory", "through local disk", "never in memory"])
def test_the_header_chooses_and_the_ledger_names_the_model(folder, how, monkeypatch):
    if how == "never in memory":
        monkeypatch.setattr(tasks_images, "MAX_BYTES", 0)
    run = prepared(folder, stream_megapixels=50.0 if how == "in memory" else 1e-6)
    rows = processed(run)
    for key, (_, _, kind, quality) in FILES.items():
        row, name = rows[key], NETWORKS[kind][2]
        assert (row["status"], row["model"], row["quality"]) == ("written", name, quality), row["message"]
        source = decode_picture((folder / "in" / key).read_bytes(), max_pixels=10**6)
        data = (folder / "out" / "images" / row["output"]).read_bytes()
        made = decode_picture(data, max_pixels=10**6)
        assert properties(xmp_in(data))["imgtx:Model"] == name
        assert np.array_equal(made.pixels, imgtx.load(name, device="cpu")(source.pixels))
    assert work_of(prepared(folder)) == []


def test_a_model_is_loaded_when_a_picture_needs_it_and_checked_before(folder):
    run = prepared(folder)
    transform = Transform(run.job, "cpu")
    assert [*transform._predictors] == ["sr-x2"]
    for key in FILES:
        (row,) = through_stages(
            run.job,
            to_table([{name: r[name] for name in WORK.names} for r in work_of(run) if r["key"] == key], WORK),
            transform=transform,
        )
        assert row["model"] in transform._predictors
    assert [*transform._predictors] == ["sr-x2", "sr-x2-archive"]
    # Another file of the second model on this machine.
    import pipeline.stages.transform as stage

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "read_info", lambda name: (None, "0" * 64))
        with pytest.raises(ModelError, match="put the same file on every machine"):
            Transform(run.job, "cpu")


def test_a_fixed_kind_makes_again_what_the_choice_made_otherwise(folder):
    processed(prepared(folder))
    assert work_of(prepared(folder)) == []
    for kind in ("clean", "photo"):
        fixed = prepared(folder, model=NETWORKS[kind][2], settings={"kind": kind})
        assert {row["key"] for row in work_of(fixed)} == {
            key for key, (*_, own, _) in FILES.items() if own != kind
        }
        # The recipe is that of the model itself.
        assert fixed.job.recipe.digest == prepared(folder, model=NETWORKS[kind][2]).job.recipe.digest
    processed(prepared(folder, model="sr-x2"))
    assert {row["key"] for row in work_of(prepared(folder))} == {"web.jpg", "web.tif"}


def test_a_factor_takes_the_next_larger_model_of_each_kind(folder):
    for scale, names in (
        (2, "sr-x2 sr-x2-archive"),
        (3, "sr-x3 sr-x4-archive"),
        (2.5, "sr-x3 sr-x4-archive"),
    ):
        job = prepared(folder, settings={"scale": float(scale)}).job
        assert " ".join(choice.job.spec.model for choice in job.choices) == names
    # The model's own scale is no setting of its own.
    plain = [
        prepared(folder, model="sr-x4", settings=asked).job.recipe.digest for asked in ({}, {"scale": 4.0})
    ]
    assert plain[0] == plain[1] != prepared(folder, model="sr-x4", settings={"scale": 3.5}).job.recipe.digest


@pytest.mark.parametrize("how", ["in memory", "through local disk"])
def test_a_factor_is_the_model_and_an_exact_reduction(folder, how):
    megapixels = 50.0 if how == "in memory" else 1e-6
    rgba = photo(21, 33, 4)
    (folder / "in" / "alpha.png").write_bytes(saved(rgba))
    rows = processed(prepared(folder, settings={"scale": 3.5}, stream_megapixels=megapixels))
    assert (rows["web.jpg"]["model"], rows["clean.png"]["model"]) == ("sr-x4-archive", "sr-x4")
    size = (74, 116)
    assert (rows["alpha.png"]["out_height"], rows["alpha.png"]["out_width"]) == size
    made = decode_picture((folder / "out" / "images" / "alpha.png").read_bytes(), max_pixels=10**6)
    whole = imresize(imgtx.load("sr-x4", device="cpu")(rgba), size=size)
    assert np.array_equal(np.dstack([made.pixels, made.alpha]), whole)
    assert work_of(prepared(folder, settings={"scale": 3.5})) == []


@pytest.mark.parametrize(
    ("settings", "size", "model"),
    [
        ({"long_side": 40}, (29, 40), "sr-x2"),
        ({"long_side": 56}, (40, 56), "sr-x2"),
        ({"long_side": 57}, (41, 57), "sr-x3"),
        ({"long_side": 100}, (71, 100), "sr-x4"),
        ({"long_side": 1000}, (80, 112), "sr-x4"),
        ({"long_side": 100, "scale": 2.0}, (40, 56), "sr-x2"),
        ({"long_side": 28}, (20, 28), "none"),
        ({"long_side": 7}, (20, 28), "none"),
        ({"max_megapixels_out": 0.0020}, (37, 52), "sr-x2"),
        ({"max_megapixels_out": 0.0001}, (20, 28), "none"),
        ({"max_megapixels_out": 1.0}, (80, 112), "sr-x4"),
    ],
)
def test_the_size_asked_for_chooses_the_model(folder, settings, size, model):
    """A picture of 20 x 28 pixels; on disk the same, to the byte."""
    for name in FILES:
        if name != "clean.png":
            (folder / "in" / name).unlink()
    made = []
    for megapixels in (50.0, 1e-6):
        run = prepared(folder, settings=settings, stream_megapixels=megapixels)
        (row,) = processed(run).values()
        assert (row["status"], row["out_height"], row["out_width"], row["model"]) == ("written", *size, model)
        # Where nothing enlarges enough; not where the user said by how much at most.
        assert ("below-long-side" in row["notes"]) == (settings == {"long_side": 1000})
        made.append((folder / "out" / "images" / "clean.png").read_bytes())
        assert work_of(prepared(folder, settings=settings)) == []
        run.ledger.append(to_table([row | {"status": "pending"}], OUTCOME), recipe="", run="again")
    assert made[0] == made[1]
    if model == "none":
        assert made[0] == (folder / "in" / "clean.png").read_bytes()


@pytest.mark.parametrize("how", ["in memory", "never in memory"])
def test_what_is_large_enough_is_copied_or_only_converted(folder, how, monkeypatch):
    if how == "never in memory":
        monkeypatch.setattr(tasks_images, "MAX_BYTES", 0)
    rows = processed(prepared(folder, settings={"long_side": 28}))
    assert {row["model"] for row in rows.values()} == {"none"}
    source = decode_picture((folder / "in" / "web.jpg").read_bytes(), max_pixels=10**6)
    made = decode_picture(
        (folder / "out" / "images" / rows["web.jpg"]["output"]).read_bytes(), max_pixels=10**6
    )
    assert np.array_equal(made.pixels, source.pixels)
    same = replace(prepared(folder).job.spec, format="same", settings={"long_side": 28})
    for row in processed(prepare(same)).values():
        assert (folder / "out" / "images" / row["output"]).read_bytes() == (
            folder / "in" / row["key"]
        ).read_bytes()


@pytest.mark.parametrize("how", ["in memory", "never in memory"])
def test_pictures_above_a_size_are_skipped_and_stay_so(folder, how, monkeypatch):
    if how == "never in memory":
        monkeypatch.setattr(tasks_images, "MAX_BYTES", 0)
    (folder / "in" / "large.png").write_bytes(saved(photo(20, 29)))
    limited = {"skip_larger_than": 28}
    rows = processed(prepared(folder, settings=limited))
    assert (rows["large.png"]["status"], rows["large.png"]["reason"]) == ("skipped", "large_enough")
    assert {row["status"] for key, row in rows.items() if key != "large.png"} == {"written"}
    plan = plan_run(prepared(folder, settings=limited))
    assert (plan.counts["skipped"], plan.counts["current"], plan.work.num_rows) == (1, len(FILES), 0)
    # The option decides no pixel: what is written stays current, and what fits now is new.
    assert [row["key"] for row in work_of(prepared(folder))] == ["large.png"]
    assert [row["key"] for row in work_of(prepared(folder, settings={"skip_larger_than": 29}))] == [
        "large.png"
    ]
    assert work_of(prepared(folder, settings={"skip_larger_than": 5})) == []


def test_sizes_that_cannot_be_are_refused(folder):
    for settings, message in (
        ({"long_side": 0}, "--long-side 0: give a number greater than 0"),
        ({"max_megapixels_out": float("nan")}, "--max-megapixels-out nan: give a number greater than 0"),
        ({"skip_larger_than": -1}, "--skip-larger-than -1: give a number greater than 0"),
        ({"scale": 0.5}, "--scale 0.5: give a number greater than 1"),
    ):
        with pytest.raises(UsageError, match=message):
            prepared(folder, model="sr-x2", settings=settings)


def test_a_kind_and_a_model_contradict_each_other(folder):
    for kind, model in (("photo", "sr-x2"), ("clean", "sr-x2-archive"), ("auto", "sr-x2")):
        with pytest.raises(UsageError, match=f"--kind {kind} chooses among .* --model {model} is one model"):
            prepared(folder, model=model, settings={"kind": kind})
