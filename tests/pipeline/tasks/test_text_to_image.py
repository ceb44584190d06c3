"""Rows of prompts through stages and plan: the same row gives the same picture, and which rows run again."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from imgtx.codecs import decode as decode_picture
from imgtx.errors import UsageError
from imgtx.models.weight_file import read_info
from pipeline.contact_sheet import Cell, draw_sheet
from pipeline.job import make_job
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.parts import list_parts
from pipeline.planning.plan import make_plan
from pipeline.sources import open_source
from pipeline.spec import Job, RunSpec
from pipeline.stages.all_in_one import AllStages
from pipeline.storage.store import open_store
from pipeline.tables.schemas import IMAGES, PROMPT_RECORDS, WORK
from pipeline.tasks.base import Opened
from pipeline.tasks.text_to_image import TEXT_TO_IMAGE, arrange, size_of
from tests.support.prompt_models import save_tiny_prompt_model
from tests.support.zoo import photo, saved


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return save_tiny_prompt_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


def job_of(model: str, table: Path, out: Path, **settings: Any) -> Job:
    info, digest = read_info(model)
    spec = RunSpec(str(table), str(out), "text-to-image", model, settings, format="png")
    return make_job(spec, info, digest)


def table_of(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def opened(job: Job) -> Opened:
    source = open_source(job.spec.source, TEXT_TO_IMAGE.sources)
    return Opened(source, TEXT_TO_IMAGE.open_inputs(job.spec))


def planned(job: Job) -> tuple[pa.Table, dict[str, int]]:
    listing = TEXT_TO_IMAGE.list(opened(job), job.spec, local_destination=True)
    ledger = Ledger(open_store(job.spec.destination))
    plan = make_plan(listing, ledger, recipe=job.recipe.digest, requested_format="png")
    return plan.work.slice().select(WORK.names), {name: n for name, n in plan.counts.items() if n}


def run(job: Job, work: pa.Table) -> dict[str, dict[str, Any]]:
    """Run all rows in one call of the stages and record them; return the outcomes by key."""
    tables = [*AllStages(job, "cpu")(work)]
    outcomes = pa.concat_tables(tables)
    Ledger(open_store(job.spec.destination)).append(
        outcomes.drop_columns("seconds_waited"), recipe=job.recipe.digest, run="r"
    )
    return {row["key"]: row for row in outcomes.to_pylist()}


def pixels(job: Job, row: dict[str, Any]) -> np.ndarray:
    return decode_picture(
        (Path(job.spec.destination) / IMAGES / row["output"]).read_bytes(), max_pixels=10**6
    ).pixels


def test_the_same_row_gives_the_same_picture_alone_in_a_batch_and_in_any_order(model, tmp_path):
    rows = [
        {"id": n, "prompt": f"a {['red', 'blue', 'green'][n % 3]} star", "seed": n, "steps": 3 + n % 2}
        for n in range(5)
    ]
    table = table_of(tmp_path, *rows)
    together = job_of(model, table, tmp_path / "together", key="id")
    work, _ = planned(together)
    made = run(together, work)
    assert {row["status"] for row in made.values()} == {"written"}
    backwards = job_of(model, table, tmp_path / "backwards", key="id")
    run(backwards, work.take(list(reversed(range(5)))))
    for key in made:
        alone = job_of(model, table, tmp_path / f"alone-{key}", key="id")
        (own,) = run(alone, work.filter(pa.compute.equal(work["key"], key))).values()
        for other in (pixels(alone, own), pixels(backwards, made[key])):
            assert np.abs(pixels(together, made[key]).astype(int) - other).max() <= 1
    assert len({pixels(together, row).tobytes() for row in made.values()}) == 5


def test_a_changed_prompt_runs_its_row_again_and_no_other(model, tmp_path):
    rows = [{"id": "a", "prompt": "red"}, {"id": "b", "prompt": "blue", "samples": 2}]
    job = job_of(model, table_of(tmp_path, *rows), tmp_path / "out", key="id", steps=2)
    work, counts = planned(job)
    assert counts == {"new": 3}
    run(job, work)
    assert planned(job)[1] == {"current": 3}
    table_of(tmp_path, rows[0] | {"prompt": "green"}, rows[1])
    again, counts = planned(job)
    assert (again["key"].to_pylist(), counts) == (["a"], {"changed": 1, "current": 2})
    table_of(tmp_path, rows[0], rows[1] | {"samples": 3})
    assert planned(job)[0]["key"].to_pylist() == ["b-3"]


def test_every_option_that_decides_pixels_makes_outputs_outdated(model, tmp_path):
    table = table_of(tmp_path, {"prompt": "red"})
    plain = job_of(model, table, tmp_path / "out").recipe.digest
    for settings in (
        {"steps": 2},
        {"guidance": 0.0},
        {"negative": "blue"},
        {"style": "ink"},
        {"size": "16x16"},
        {"no_metadata": True},
    ):
        assert job_of(model, table, tmp_path / "out", **settings).recipe.digest != plain, settings
    for settings in ({"sheet": "sheet.png"}, {"prompt_column": "prompt"}):
        assert job_of(model, table, tmp_path / "out", **settings).recipe.digest == plain


def test_a_png_says_how_it_was_made_unless_told_not_to(model, tmp_path):
    table = table_of(tmp_path, {"prompt": "red ● circle", "seed": 3, "negative": "blue"})
    job = job_of(model, table, tmp_path / "out", steps=2)
    (row,) = run(job, planned(job)[0]).values()
    with Image.open(tmp_path / "out/images" / row["output"]) as image:
        xmp = image.text.pop("XML:com.adobe.xmp")
        assert "/trainedAlgorithmicMedia" in xmp
        assert "red" not in xmp
        assert image.text == {
            "prompt": "red ● circle",
            "seed": "3",
            "negative": "blue",
            "steps": "2",
            "guidance": "3",
            "size": "16x16",
            "model": "tiny",
            "model_digest": job.recipe.model_digest,
        }
    bare = job_of(model, table, tmp_path / "bare", steps=2, no_metadata=True)
    (row,) = run(bare, planned(bare)[0]).values()
    with Image.open(tmp_path / "bare/images" / row["output"]) as image:
        # What made it is said apart from what was asked for: --no-provenance leaves that out.
        assert image.text.keys() == {"XML:com.adobe.xmp"}


def test_what_the_model_cannot_make_fails_in_its_row(model, tmp_path):
    rows = [
        {"id": "size", "prompt": "red", "width": 32},
        {"id": "style", "prompt": "red", "style": "oil"},
        {"id": "steps", "prompt": "red", "steps": 10**6},
        {"id": "good", "prompt": "red", "steps": 2},
        {"id": "long", "prompt": "red " * 20, "steps": 2},
    ]
    job = job_of(model, table_of(tmp_path, *rows), tmp_path / "out", key="id")
    made = run(job, planned(job)[0])
    assert {key: row["reason"] for key, row in made.items()} == {
        "size": "bad_value",
        "style": "bad_value",
        "steps": "bad_value",
        "good": "",
        "long": "",
    }
    assert "width 32: expected 16" in made["size"]["message"]
    assert "style 'oil': tiny has ink" in made["style"]["message"]
    assert (made["long"]["notes"], dict(made["long"]["measures"])) == (["prompt-cut"], {"tokens_lost": 11.0})
    assert made["good"]["notes"] == []


def test_words_that_the_model_does_not_know_are_named_in_their_row(model, tmp_path):
    rows = [
        {"id": "known", "prompt": "a red star"},
        {"id": "not", "prompt": "red Fog, fog", "negative": "mud"},
    ]
    job = job_of(model, table_of(tmp_path, *rows), tmp_path / "out", key="id", steps=2)
    made = run(job, planned(job)[0])
    assert (made["known"]["notes"], made["known"]["message"]) == ([], "")
    assert made["not"]["notes"] == ["words-unknown"]
    assert made["not"]["message"] == "tiny knows 11 words, and none of: fog, mud"
    assert dict(made["not"]["measures"]) == {"words_unknown": 2.0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "--steps 0: expected a whole number from 1"),
        ({"guidance": -1.0}, "--guidance -1.0: expected a number"),
        ({"size": "64by64"}, "--size 64by64: must be a width and a height"),
        ({"size": "32x32"}, "--size: width 32: expected 16"),
        ({"style": "oil"}, "--style 'oil': tiny has ink"),
        ({"samples": 0}, "--samples 0: must be 1 to 10000"),
        ({"seed": -1}, "--seed -1: must be 0 to"),
        ({"sheet": "sheet.gif"}, "--sheet sheet.gif: must end in"),
        ({"strength": 0.5}, "tiny takes no start pictures"),
    ],
)
def test_options_that_no_row_can_follow_are_one_line(model, tmp_path, settings, message):
    with pytest.raises(UsageError, match=message):
        job_of(model, table_of(tmp_path), tmp_path / "out", **settings)


def test_other_columns_are_kept_by_key(model, tmp_path):
    rows = [
        {"id": "a", "prompt": "red", "note": "x", "more": {"y": 1}},
        {"id": "b", "prompt": "blue", "samples": 2},
    ]
    job = job_of(model, table_of(tmp_path, *rows), tmp_path / "out", key="id")
    destination = open_store(job.spec.destination)
    for _ in range(2):
        TEXT_TO_IMAGE.keep(opened(job), job.spec, destination)
    (name,) = [key for batch in destination.list(PROMPT_RECORDS) for key in batch["key"].to_pylist()]
    kept = pq.read_table(io.BytesIO(destination.read(name))).to_pylist()
    assert [(row["key"], row["row"], row["sample"], row["note"]) for row in kept] == [
        ("a", 1, 1, "x"),
        ("b", 2, 1, None),
        ("b-2", 2, 2, None),
    ]
    assert kept[0]["more"] == '{"y": 1}'
    work, _ = planned(job)
    assert {row["key"]: row["version"] for row in kept} == dict(
        zip(work["key"].to_pylist(), work["version"].to_pylist(), strict=True)
    )
    assert list_parts(destination) == []


def test_rows_that_can_share_a_call_are_neighbours():
    asked = [{"prompt": str(n), "steps": 4 + n % 2} | ({"width": 32} if n == 3 else {}) for n in range(6)]
    work = pa.table({"conditions": [json.dumps(row) for row in asked], "key": [str(n) for n in range(6)]})
    assert arrange(work)["key"].to_pylist() == ["0", "2", "4", "1", "5", "3"]


def test_a_contact_sheet_has_every_picture_with_its_caption(tmp_path):
    cells = [
        Cell(saved(photo(20 + n, 30)), f"a caption of many words, {'long ' * 30}", "seed 1") for n in range(5)
    ]
    data = draw_sheet(cells, "5 images", "png")
    with Image.open(io.BytesIO(data)) as sheet:
        assert sheet.width > 3 * 192
        assert sheet.height > 2 * 192
    assert draw_sheet([], "0 images", "jpeg")


def test_sizes():
    assert size_of("64x48") == (64, 48)
    assert size_of(" 64 X 48") == (64, 48)
    assert size_of("64") == (64, 64)
