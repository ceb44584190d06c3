"""Images and styles through stages and plan: keys, which outputs run again, and which styles are refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import imgtx
from imgtx.codecs import decode as decode_picture
from imgtx.errors import UsageError
from imgtx.models.weight_file import read_info
from jobs.cli import main
from jobs.run.prepare import Prepared, keep_inputs, plan_run, prepare
from jobs.run.spec import read_run_spec
from jobs.submit.command import check_command
from pipeline.job import make_job
from pipeline.planning.plan import CHANGED, CURRENT, NEW, SKIPPED, STALE
from pipeline.spec import Job, RunSpec
from pipeline.tables.rows import to_table
from pipeline.tables.schemas import OUTCOME, WORK
from pipeline.tasks import TASKS
from tests.pipeline.stages.test_stages import through_stages
from tests.support.ledger_rows import outcome
from tests.support.small_style import painting, save_fitted_style, save_tiny_style
from tests.support.zoo import photo, saved


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return save_tiny_style(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """A folder with `in/` of two images and a text, and `styles/` of three."""
    for name in ("in/2019", "styles"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "in/2019/a.png").write_bytes(saved(photo(40, 52)))
    (tmp_path / "in/b.png").write_bytes(saved(photo(30, 20)))
    (tmp_path / "in/notes.txt").write_text("none")
    for number, name in enumerate(("monet.png", "Munch.jpg", "seurat.png")):
        kind = "JPEG" if name.endswith("jpg") else "PNG"
        (tmp_path / "styles" / name).write_bytes(saved(painting(number), kind))
    return tmp_path


def spec_of(folders: Path, model: str, **settings: Any) -> RunSpec:
    return RunSpec(str(folders / "in"), str(folders / "out"), "style-transfer", model, settings)


def one_style(folders: Path, model: str, **settings: Any) -> RunSpec:
    return spec_of(folders, model, style=str(folders / "styles/monet.png"), **settings)


def all_styles(folders: Path, model: str, **settings: Any) -> RunSpec:
    return spec_of(folders, model, styles=str(folders / "styles"), **settings)


def work_of(run: Prepared) -> list[dict[str, Any]]:
    return [row for table in plan_run(run).work.tables(100) for row in table.to_pylist()]


def classes(run: Prepared) -> dict[str, int]:
    return {name: count for name, count in plan_run(run).counts.items() if count}


def record(run: Prepared) -> None:
    """Write ledger rows as if the whole plan had been run."""
    rows = [
        outcome(
            row["key"], version=row["version"], output=row["output"], inputs=row["inputs"], item=row["item"]
        )
        for row in work_of(run)
    ]
    run.ledger.append(to_table(rows, OUTCOME), recipe=run.job.recipe.digest, run="r1")


def made(job: Job, key: str) -> np.ndarray:
    data = (Path(job.spec.destination) / "images" / key).read_bytes()
    picture = decode_picture(data, max_pixels=10**7)
    return picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])


def through(run: Prepared) -> list[dict[str, Any]]:
    rows = [{name: row[name] for name in WORK.names} for row in work_of(run)]
    return through_stages(run.job, to_table(rows, WORK))


class TestOneStyle:
    def test_outputs_mirror_the_source_and_name_their_style(self, folders, model):
        run = prepare(one_style(folders, model, strength=0.5))
        rows = {row["key"]: row for row in through(run)}
        assert {key: row["status"] for key, row in rows.items()} == {
            "2019/a.png": "written",
            "b.png": "written",
        }
        (style,) = rows["b.png"]["inputs"]
        assert (style["role"], style["key"]) == ("style", "monet.png")
        assert rows["b.png"]["version"].endswith(f" style {style['version']}")
        expected = imgtx.load(model)(photo(40, 52), style=painting(0), strength=0.5)
        np.testing.assert_array_equal(made(run.job, "2019/a.png"), expected)

    @pytest.mark.parametrize(("channels", "depth"), [(1, 8), (1, 16), (2, 8), (4, 8)])
    @pytest.mark.parametrize("preserve", [False, True])
    def test_forms_of_images(self, folders, model, channels, depth, preserve):
        image = photo(40, 52, channels, depth)
        (folders / "in/b.png").write_bytes(saved(image))
        run = prepare(one_style(folders, model, preserve_color=preserve))
        assert {row["message"] for row in through(run)} == {""}
        expected = imgtx.load(model)(image, style=painting(0), preserve_color=preserve)
        np.testing.assert_array_equal(made(run.job, "b.png").squeeze(), expected)

    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_a_picture_too_large_for_memory_gives_the_same_pixels(self, folders, model, channels):
        (folders / "in/b.png").write_bytes(saved(photo(300, 340, channels)))
        run = prepare(one_style(folders, model))
        through(run)
        usual = made(run.job, "b.png")
        assert usual.shape[2] == max(3, channels)
        shutil.rmtree(folders / "out/images")
        large = replace(run, job=replace(run.job, spec=replace(run.job.spec, stream_megapixels=0.01)))
        assert {row["message"] for row in through(large)} == {""}
        np.testing.assert_array_equal(made(run.job, "b.png"), usual)

    def test_no_strength_gives_the_source_bit_by_bit(self, folders, model):
        run = prepare(one_style(folders, model, strength=0.0))
        through(run)
        np.testing.assert_array_equal(made(run.job, "b.png"), photo(30, 20))

    def test_a_local_style_is_copied_and_the_copy_is_the_same_style(self, folders, model):
        run = prepare(one_style(folders, model))
        kept = keep_inputs(run)
        record(kept)
        copy = Path(kept.job.spec.settings["style"])
        assert copy.parts[-3] == "inputs"
        assert copy.read_bytes() == (folders / "styles/monet.png").read_bytes()
        shutil.rmtree(folders / "styles")
        assert classes(prepare(kept.job.spec)) == {CURRENT: 2, SKIPPED: 1}

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({}, CURRENT),
            ({"strength": 0.7}, STALE),
            ({"strength": 0.0}, STALE),
            ({"strength": 1}, CURRENT),
            ({"preserve_color": True}, STALE),
            ({"style_size": 512}, STALE),
            ({"style_size": 256}, CURRENT),
        ],
    )
    def test_settings_that_change_pixels_are_in_the_recipe(self, folders, model, change, expected):
        record(prepare(one_style(folders, model)))
        assert classes(prepare(one_style(folders, model, **change))) == {expected: 2, SKIPPED: 1}

    def test_a_style_of_the_same_bytes_under_another_name_changes_nothing(self, folders, model):
        record(prepare(one_style(folders, model)))
        shutil.copy(folders / "styles/monet.png", folders / "other.png")
        assert classes(prepare(spec_of(folders, model, style=str(folders / "other.png"))))[CURRENT] == 2


class TestWeightsFittedToAStyle:
    @pytest.fixture
    def fitted(self, tmp_path) -> str:
        return save_fitted_style(tmp_path / "fitted.safetensors")

    def test_need_no_other_style(self, folders, model, fitted):
        run = prepare(spec_of(folders, fitted, strength=0.8))
        rows = through(run)
        assert {row["status"] for row in rows} == {"written"}
        assert rows[0]["inputs"] == []
        expected = imgtx.load(model)(photo(30, 20), style=painting(0), strength=0.8)
        np.testing.assert_array_equal(made(run.job, "b.png"), expected)
        np.testing.assert_array_equal(imgtx.load(fitted)(photo(30, 20), strength=0.8), expected)

    def test_refuse_another_that_is_given(self, folders, fitted):
        with pytest.raises(UsageError, match=r"--style .*seurat\.png: .* was fitted to one style, monet"):
            prepare(spec_of(folders, fitted, style=str(folders / "styles/seurat.png")))
        with pytest.raises(UsageError, match="was fitted to one style, monet, and paints no other"):
            imgtx.load(fitted)(photo(30, 20), style=painting(2))


class TestSeveralStyles:
    def test_every_image_is_made_in_every_style(self, folders, model):
        run = prepare(all_styles(folders, model))
        rows = {row["key"]: row for row in through(run)}
        assert sorted(rows) == [
            f"{style}/{key}" for style in ("Munch", "monet", "seurat") for key in ("2019/a.png", "b.png")
        ]
        assert {row["status"] for row in rows.values()} == {"written"}
        assert rows["seurat/2019/a.png"]["item"] == "2019/a.png"
        assert [s["key"] for s in rows["seurat/2019/a.png"]["inputs"]] == ["seurat.png"]
        for number, style in ((0, "monet"), (2, "seurat")):
            expected = imgtx.load(model)(photo(30, 20), style=painting(number))
            np.testing.assert_array_equal(made(run.job, f"{style}/b.png"), expected)

    def test_a_changed_style_runs_its_own_images_again(self, folders, model):
        record(prepare(all_styles(folders, model)))
        (folders / "styles/seurat.png").write_bytes(saved(painting(9)))
        run = prepare(all_styles(folders, model))
        assert classes(run) == {CURRENT: 4, CHANGED: 2, SKIPPED: 1}
        assert sorted(row["key"] for row in work_of(run)) == ["seurat/2019/a.png", "seurat/b.png"]
        (folders / "styles/new.png").write_bytes(saved(painting(10)))
        assert classes(prepare(all_styles(folders, model))) == {CURRENT: 4, CHANGED: 2, NEW: 2, SKIPPED: 1}

    def test_a_changed_image_runs_again_in_every_style(self, folders, model):
        record(prepare(all_styles(folders, model)))
        (folders / "in/b.png").write_bytes(saved(photo(30, 21)))
        assert classes(prepare(all_styles(folders, model))) == {CURRENT: 3, CHANGED: 3, SKIPPED: 1}

    def test_a_style_that_changes_under_a_run_fails_its_rows_for_now(self, folders, model):
        run = prepare(all_styles(folders, model))
        rows = [{name: row[name] for name in WORK.names} for row in work_of(run)]
        (folders / "styles/monet.png").write_bytes(saved(painting(9)))
        done = through_stages(run.job, to_table(rows, WORK))
        reasons = {row["key"]: row["reason"] for row in done}
        assert {key for key, reason in reasons.items() if reason == "changed"} == {
            "monet/2019/a.png",
            "monet/b.png",
        }
        assert [*reasons.values()].count("") == 4

    def test_names_in_folders_are_joined_and_pairs_that_share_one_are_refused(self, folders, model):
        (folders / "styles/old").mkdir()
        # A space behind a suffix is no part of the name.
        shutil.move(folders / "styles/Munch.jpg", folders / "styles/old/Munch.jpg ")
        keys = {row["key"] for row in work_of(prepare(all_styles(folders, model)))}
        assert "old-Munch/2019/a.png" in keys
        shutil.copy(folders / "styles/monet.png", folders / "styles/MONET.webp")
        with pytest.raises(
            UsageError, match=r"MONET.webp and monet.png would both give outputs under .*rename one"
        ):
            prepare(all_styles(folders, model))


class TestRefusals:
    @pytest.mark.parametrize(
        ("settings", "complaint"),
        [
            ({}, "no style is given: write --style FILE"),
            ({"style": "a.png", "styles": "b/"}, "--style a.png and --styles b/: give only one"),
            ({"style": "a.png", "strength": 1.5}, "--strength 1.5: must be 0"),
            ({"style": "a.png", "strength": float("nan")}, "--strength nan: must be 0"),
            ({"style": "a.png", "style_size": 300}, "--style-size 300: must be one of 128, 256, 384, 512"),
        ],
    )
    def test_settings_that_cannot_be(self, folders, model, settings, complaint):
        with pytest.raises(UsageError, match=complaint):
            make_job(spec_of(folders, model, **settings), *read_info(model))

    @pytest.mark.parametrize(
        ("data", "complaint"),
        [
            (None, "--style bad.png cannot be read: .*there must be a file with this name"),
            (b"a text", "--style bad.png cannot be used .not_an_image"),
            (saved(painting(1))[:-40], "--style bad.png cannot be used .truncated"),
            (saved(painting(1, 32, 32)), "--style bad.png is 32 x 32: a style picture has 64"),
            (saved(np.full((90, 90, 3), 7, np.uint8)), "--style bad.png is of one colour"),
            (
                saved(Image.new("1", (30000, 10000))),
                "--style bad.png is 30000 x 10000: a style picture has 200 megapixels at most",
            ),
        ],
        ids=["missing", "text", "truncated", "small", "flat", "huge"],
    )
    def test_a_picture_that_cannot_be_a_style(self, folders, model, data, complaint):
        path = folders / "bad.png"
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(UsageError, match=complaint) as refusal:
            prepare(spec_of(folders, model, style=str(path)))
        assert "\n" not in str(refusal.value)
        assert not (folders / "out").exists()

    def test_one_broken_style_among_several_is_named(self, folders, model):
        (folders / "styles/broken.png").write_bytes(b"a text")
        with pytest.raises(UsageError, match=r"--styles broken.png cannot be used .not_an_image"):
            prepare(all_styles(folders, model))
        (folders / "styles/small.png").write_bytes(saved(painting(1, 20, 20)))
        with pytest.raises(UsageError, match=r"--styles broken.png .* .and 1 more in "):
            prepare(all_styles(folders, model))

    def test_folders(self, folders, model):
        with pytest.raises(UsageError, match=r"--style .*styles is a folder: give one picture"):
            prepare(spec_of(folders, model, style=str(folders / "styles")))
        with pytest.raises(UsageError, match="--styles cannot be read: there is no folder"):
            prepare(spec_of(folders, model, styles=str(folders / "none")))
        (folders / "empty").mkdir()
        with pytest.raises(UsageError, match=r"--styles .*empty holds no picture"):
            prepare(spec_of(folders, model, styles=str(folders / "empty")))


class TestSubmit:
    def test_a_local_style_travels_with_the_code(self, folders):
        path = str(folders / "styles/monet.png")
        given = (
            "stylize",
            "s3://in/",
            "s3://out/",
            "--model",
            "s3://models/style.safetensors",
            "--style",
            path,
        )
        command = check_command(given, main)
        assert command.files == {"inputs/0/monet.png": Path(path)}
        assert command.arguments == (*given[:-1], "inputs/0/monet.png")

    def test_a_local_folder_of_styles_does_not(self, folders):
        given = ("stylize", "s3://in/", "s3://out/", "--model", "s3://models/style.safetensors", "--styles")
        with pytest.raises(
            UsageError, match=r"--styles .* is a path of this machine, which the cluster does not see"
        ):
            check_command((*given, str(folders / "styles")), main)
        assert check_command((*given, "s3://styles/"), main).files == {}


def test_the_options_become_settings(tmp_path):
    options = {"style": "a.png", "strength": None, "preserve_color": True, "spec_file": None, "settings": ()}
    spec = read_run_spec("in", "out", "stylize", options)
    assert (spec.task, spec.model, spec.settings) == (
        "style-transfer",
        "style",
        {"style": "a.png", "preserve_color": True},
    )
    assert TASKS["style-transfer"].command == "stylize"
    json.dumps(spec.to_dict())
