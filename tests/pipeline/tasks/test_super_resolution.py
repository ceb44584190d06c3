"""Which packaged model enlarges a picture, in memory and through local disk, and what the ledger says of it."""

from pathlib import Path

import numpy as np
import pytest

import imgtx
from imgtx.codecs import decode as decode_picture
from imgtx.errors import ModelError, UsageError
from imgtx.models.choice import NETWORKS
from imgtx.models.weight_file import read_info
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
    "web.webp": ("WEBP", {"quality": 80}, "photo", 0),
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
    assert {row["key"] for row in work_of(prepared(folder))} == {"web.jpg", "web.webp"}


def test_weights_without_a_counterpart_serve_both_kinds(folder):
    job = prepared(folder, settings={"scale": 3}).job
    assert [choice.job.spec.model for choice in job.choices] == ["sr-x3", "sr-x3"]
    assert job.info == read_info("sr-x3")[0]


def test_a_kind_and_a_model_contradict_each_other(folder):
    for kind, model in (("photo", "sr-x2"), ("clean", "sr-x2-archive"), ("auto", "sr-x2")):
        with pytest.raises(UsageError, match=f"--kind {kind} chooses among .* --model {model} is one model"):
            prepared(folder, model=model, settings={"kind": kind})
