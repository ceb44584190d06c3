"""From options, file and settings to a checked job: which value wins, and one line for each mistake."""

from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgtx.errors import UsageError
from imgtx.inference import processor
from imgtx.models.info import ModelInfo
from imgtx.settings import merge, parse_settings, read_toml
from jobs.run.spec import read_run_spec
from pipeline.job import make_job
from pipeline.spec import Recipe, RunSpec
from pipeline.tasks import options_of

INFO = ModelInfo("sr-x2", "super-resolution", scale=2, multiple=16, halo=32)
OPTIONS = {
    f.name: None for f in fields(RunSpec) if f.name not in ("source", "destination", "task", "settings")
}


def read(*set_now: str, file: Path | None = None, **options: Any) -> RunSpec:
    given = OPTIONS | options | {"spec_file": file, "settings": set_now}
    return read_run_spec("in", "out", "upscale", given)


def complaint(work, *arguments: Any, **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        work(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_then_file_then_options_then_settings(tmp_path):
    file = tmp_path / "spec.toml"
    file.write_text('quality = 50\nformat = "jpeg"\nlimit = 7\nmodel = "sr-x2"')
    assert read().quality == 92
    assert read(file=file).quality == 50
    assert read(file=file, quality=60).quality == 60
    assert read("quality=70", file=file, quality=60).quality == 70
    assert (read("quality=70", file=file).format, read(file=file).limit) == ("jpeg", 7)


def test_the_shipped_specs_name_exactly_the_settings_that_have_a_default():
    upscale, clean = (
        Path(__file__).parents[3] / "jobs" / "specs" / f"{name}.toml" for name in ("upscale", "clean")
    )
    common = {f.name for f in fields(RunSpec) if f.default not in (MISSING, None)} - {"task", "settings"}
    own = {option.name for option in options_of("restore") if option.default is not None}
    assert {*read_toml(upscale)} == common
    assert {*read_toml(clean)} == own
    assert read(file=upscale) == read()
    assert read(file=upscale) == RunSpec("in", "out")
    given = {"masks": "masks", "settings": ()}
    plain, full = (read_run_spec("in", "out", "restore", given | {"spec_file": f}) for f in (None, clean))
    assert [option.of(plain) for option in options_of("restore")] == [
        option.of(full) for option in options_of("restore")
    ]


def test_masks_choose_the_model_and_the_task():
    options = {"spec_file": None, "settings": ()}
    plain = read_run_spec("in", "out", "restore", options | {"masks": None})
    assert (plain.task, plain.model) == ("restoration", "restore")
    for holes in ({"masks": "masks"}, {"mask_color": "#ff00ff"}):
        spec = read_run_spec("in", "out", "restore", options | holes)
        assert (spec.task, spec.model) == ("inpainting", "inpaint")


HOLES = ModelInfo("fills", "inpainting", 1, 16, 16, 4, masks=True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "--model x fills holes: give their place by --masks or --mask-color"),
        ({"masks": "m", "mask_color": "#000000"}, "give only one of them"),
        ({"mask_color": "magenta"}, "--mask-color magenta: must be a colour like '#ff00ff'"),
        ({"masks": "m", "missing_mask": "fail"}, "--missing-mask fail: must be one of skip, no-hole"),
        ({"masks": "m", "mask_tolerance": 256}, "mask_tolerance=256: must be 0 to 255"),
    ],
)
def test_holes_must_be_given_in_one_way(fields, message):
    with pytest.raises(UsageError) as error:
        make_job(RunSpec("in", "out", "inpainting", "x", fields), HOLES, "d")
    assert message in str(error.value)


def test_masks_are_for_models_that_take_them_and_the_colour_decides_pixels():
    info = ModelInfo("restores", "restoration", 1, 16, 16)
    with pytest.raises(UsageError, match="fills no holes"):
        make_job(
            RunSpec("in", "out", "inpainting", "x", {"masks": "m"}), replace(info, task="inpainting"), "d"
        )
    plain = make_job(RunSpec("in", "out", "restoration", "x"), info, "d").recipe
    assert not plain.settings
    colours = [
        RunSpec("in", "out", "inpainting", "x", {"mask_color": c, "mask_tolerance": t})
        for c, t in (("#FF00ff", 8), ("#ff00ff", 8), ("#ff00ff", 9), ("#ff00fe", 8))
    ]
    digests = [make_job(spec, HOLES, "d").recipe.digest for spec in colours]
    assert digests[0] == digests[1]
    assert len({*digests}) == 3


def test_the_scale_chooses_the_packaged_model():
    assert read().model == read(scale=4).model == read(kind="auto").model == "auto"
    assert read(scale=2, kind="clean").model == "sr-x2"
    assert (read(kind="photo").model, read(scale=4, kind="photo").model) == ("sr-x2-archive", "sr-x4-archive")
    assert read(scale=2, model="other.safetensors").model == "other.safetensors"
    assert read(long_side=100, kind="photo").model == read(max_megapixels_out=1.5).model == "auto"
    assert read(scale=3.0, kind="photo").model == "sr-x4-archive"
    for scale in (0, 1, 7, -2):
        assert f"--scale {scale}: the packaged models enlarge by" in complaint(read, scale=scale)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("quality=high", "--set: quality = 'high' is text: must be a whole number"),
        ("limit=1.5", "limit = 1.5 is a number: must be a whole number"),
        ("limit=true", "limit = True is true or false: must be a whole number"),
        ("model=3", "model = 3 is a whole number: must be text"),
        ("gpus=all", "gpus = 'all' is text: must be a number"),
        ("quallity=3", "did you mean 'quality'?"),
        ("quality.deep=3", "quality = {'deep': 3} is a table"),
        ("source=elsewhere", "unknown field 'source'"),
        ("quality", "give NAME=VALUE"),
        ("=3", "give NAME=VALUE"),
        ("a..b=3", "give NAME=VALUE"),
    ],
)
def test_a_bad_setting_ends_in_one_line(setting, named):
    assert named in complaint(read, setting)


def test_a_bad_file_ends_in_one_line(tmp_path):
    assert "no spec at" in complaint(read, file=tmp_path / "none.toml")
    assert "cannot be read" in complaint(read, file=tmp_path)
    file = tmp_path / "spec.toml"
    for text, named in (("quality = ", "not valid TOML"), ("qualty = 3", "did you mean 'quality'?")):
        file.write_text(text)
        assert named in complaint(read, file=file)
    file.write_bytes(b"\xff\xfe")
    assert "not valid TOML" in complaint(read, file=file)


def test_a_count_of_failures_may_be_a_number(tmp_path):
    assert read("max_failed=20").failures_allowed(1000) == 20
    assert read("max_failed=5%").failures_allowed(1000) == 50
    assert read(max_failed="0").failures_allowed(1000) == 0
    (tmp_path / "spec.toml").write_text("max_failed = 3")
    assert read(file=tmp_path / "spec.toml").max_failed == "3"


def test_settings_can_name_fields_of_tables_and_bare_words_are_text():
    assert parse_settings(("a=1", "b.c=two", "b.d=[1, 2]", "e='x=y'", "b.c=three")) == {
        "a": 1,
        "b": {"c": "three", "d": [1, 2]},
        "e": "x=y",
    }
    assert parse_settings(("a=1", "a.b=2")) == {"a": {"b": 2}}


TABLES = st.recursive(
    st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=8
).filter(lambda value: isinstance(value, dict))


@settings(max_examples=60)
@given(TABLES, TABLES)
def test_merging_keeps_what_is_not_changed(values, changes):
    merged = merge(values, changes)
    assert merge(merged, changes) == merged
    assert set(merged) == set(values) | set(changes)
    assert all(merged[name] == values[name] for name in set(values) - set(changes))
    assert merge(values, {}) == values
    assert merge({}, changes) == changes


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"format": "gif"}, "--format gif: must be one of same, png, jpeg"),
        ({"quality": 0}, "--quality 0: must be 1 to 100"),
        ({"quality": 101}, "--quality 101"),
        ({"precision": "double"}, "--precision double: must be one of float32"),
        ({"precision": "float16"}, "--precision float16 was not measured"),
        ({"limit": 0}, "--limit 0: give a number greater than 0"),
        ({"workers": -1}, "--workers -1"),
        ({"gpus": -1.0}, "--gpus -1.0"),
        ({"max_megapixels": 0.0}, "--set max_megapixels=0.0"),
        ({"stream_megapixels": float("nan")}, "--set stream_megapixels=nan"),
        ({"max_failed": "some"}, "--max-failed some: give a share such as 1% or a count such as 20"),
        ({"max_failed": "-1"}, "--max-failed -1"),
        ({"max_failed": "inf%"}, "--max-failed inf%"),
        ({"max_failed": "nan%"}, "--max-failed nan%"),
        ({"max_failed": ""}, "--max-failed"),
        (
            {"settings": {"scale": 4}, "model": "sr-x2"},
            "--scale 4 contradicts --model sr-x2, which enlarges x2: give --model sr-x4 for x4, or leave one out",
        ),
        (
            {"settings": {"scale": 4}, "model": "sr-x2-archive"},
            "which enlarges x2: give --model sr-x4-archive for x4, or leave one out",
        ),
        ({"settings": {"scale": 3}, "model": "own.safetensors"}, "which enlarges x2: leave one out"),
        ({"settings": {"scale": 2.5}, "model": "sr-x2"}, "give --model sr-x3 for x2.5, or leave one out"),
        (
            {"settings": {"scale": 3}, "model": "sr-x2-archive"},
            "give --model sr-x4-archive for x3, or leave one out",
        ),
        ({"settings": {"kind": "photos"}}, "--kind photos: must be one of auto, photo, clean"),
        ({"task": "restoration"}, "is for super-resolution, this command does restoration"),
    ],
)
def test_an_impossible_job_ends_in_one_line(change, named):
    assert named in complaint(make_job, replace(RunSpec("in", "out"), **change), INFO, "d")


def test_a_job_records_what_decides_its_pixels():
    job = make_job(RunSpec("in", "out", settings={"scale": 2}, quality=80), INFO, "digest")
    assert job.recipe == Recipe("super-resolution", "digest", 2, "same", 80, "float32")
    assert job.recipe.digest == make_job(RunSpec("other", "else", quality=80), INFO, "digest").recipe.digest
    assert make_job(RunSpec("in", "out", self_ensemble=True), INFO, "digest").recipe.self_ensemble
    assert make_job(RunSpec("in", "out", provenance=False), INFO, "digest").recipe.unmarked


@pytest.mark.parametrize(
    "change",
    [{"model_digest": "e"}, {"scale": 3}, {"format": "png"}, {"quality": 91}, {"precision": "bfloat16"},
     {"pixel_version": 99}, {"task": "restoration"}, {"compiled": True}, {"self_ensemble": True},
     {"unmarked": True},     {"settings": {"mask_color": "#ff00ff 8"}}],
)  # fmt: skip
def test_everything_that_changes_pixels_changes_the_recipe(change):
    recipe = Recipe("super-resolution", "d", 2, "same", 92, "float32")
    assert replace(recipe, **change).digest != recipe.digest


def test_outputs_of_an_older_imgtx_are_known_as_such():
    recipe = Recipe("super-resolution", "d", 2, "same", 92, "float32", pixel_version=3)
    older = [replace(recipe, pixel_version=version).digest for version in (1, 2)]
    assert recipe.older_digests == tuple(older)
    assert recipe.digest not in older
    assert replace(recipe, pixel_version=1).older_digests == ()


def test_ledgers_of_earlier_versions_are_understood():
    """Digests that the first version of pixels has, for default runs and for a run with every option."""

    def digest(command: str, info: ModelInfo, *set_now: str, **options: Any) -> str:
        given = {"spec_file": None, "settings": set_now} | options
        recipe = make_job(read_run_spec("in", "out", command, given), info, "0" * 64).recipe
        return replace(recipe, pixel_version=1).digest

    x4 = replace(INFO, name="sr-x4", scale=4)
    every = replace(
        HOLES,
        untiled=10**6,
        dtypes=("float32", "bfloat16"),
        fast="bfloat16",
        compiled_tile=128,
        compiled_gain=2.0,
    )
    options = {"mask_color": "#FF00ff", "format": "png", "quality": 90, "precision": "auto"}
    options |= {"self_ensemble": True, "compile": True}
    assert digest("upscale", INFO) == "3d3935aca51f00ab"
    assert digest("upscale", x4, scale=4) == "20b188cb97c7c51e"
    assert digest("restore", ModelInfo("restore", "restoration", 1, 16, 16)) == "08b2989fafaf5a14"
    assert digest("restore", HOLES, masks="m/") == "dd3cf4b4526608c5"
    assert digest("restore", every, "mask_tolerance=12", **options) == "2606c57496c53e38"


class TestEmulatedPrecisions:
    """This machine's processor emulates bfloat16; the model was measured to be fastest in it, elsewhere."""

    FAST = replace(INFO, dtypes=("float32", "bfloat16"), fast="bfloat16")

    @pytest.fixture(autouse=True)
    def old_processor(self, tmp_path, monkeypatch):
        (tmp_path / "cpuinfo").write_text("model name\t: Xeon\nflags\t\t: avx2\n")
        monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
        monkeypatch.setattr("pipeline.engines.choice.gpu_in_sight", lambda: False)
        monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def precision(self, **options: Any) -> str:
        return make_job(RunSpec("in", "out", **options), self.FAST, "d").recipe.precision

    def test_one_that_is_asked_for_is_refused(self):
        message = complaint(self.precision, precision="bfloat16")
        assert message.startswith("--precision bfloat16: the processor here, Xeon (avx2), emulates it")
        assert message.endswith("use float32, or auto")

    def test_auto_takes_float32(self):
        assert self.precision(precision="auto") == "float32"

    @pytest.mark.parametrize("precision", ["auto", "bfloat16"])
    @pytest.mark.parametrize("elsewhere", [{"gpus": 1.0}, {"address": "auto"}])
    def test_models_on_gpus_and_on_a_cluster_are_not_concerned(self, precision, elsewhere):
        assert self.precision(precision=precision, **elsewhere) == "bfloat16"

    def test_a_gpu_of_this_machine_is_found_without_being_named(self, monkeypatch):
        monkeypatch.setattr("pipeline.engines.choice.gpu_in_sight", lambda: True)
        assert self.precision(precision="bfloat16") == "bfloat16"
        assert complaint(self.precision, precision="bfloat16", gpus=0.0)


def test_a_spec_survives_json_and_pickle():
    import json
    import pickle

    spec = RunSpec("in", "out", limit=3, gpus=0.5, settings={"scale": 2})
    assert RunSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    job = make_job(spec, INFO, "d")
    assert pickle.loads(pickle.dumps(job)) == job
