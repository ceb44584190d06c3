"""Compiled models: one is really compiled by the command; refusals, judgement and tiling are tested without."""

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import imgtx
from imgtx.errors import ModelError, UsageError
from imgtx.inference.compiled import Compiled, why_not
from imgtx.inference.predictor import Predictor
from imgtx.inference.tiling import plan_for_model
from imgtx.models.info import ModelInfo
from imgtx.models.references import load_model, read_info
from imgtx.models.sidecar import write_sidecar
from imgtx.probing import compile_trial
from imgtx.probing.compile_trial import Trial, judged, measure, side_to_compile
from jobs.cli import main
from pipeline.cluster.session import check_compiles
from pipeline.job import make_job
from pipeline.spec import RunSpec
from tests.conformance.architectures import save
from tests.conformance.conftest import save_torchscript, without_spandrel
from tests.support.archive import save_tiny_model
from tests.support.small_models import Nearest, Windows, noise

INFO = ModelInfo("fake", "super-resolution", scale=2, multiple=4, halo=4)
MEASURED = replace(INFO, compiled_tile=64, compiled_gain=2.0)
FOUND = {"tile": 256, "levels": 0.01, "exact_db": 99.9, "seconds_per_megapixel": 1.0}
FOUND |= {"eager_seconds_per_megapixel": 2.0}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "compiled-cache"))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)


@without_spandrel
# Takes some 40 s of a core, more on a busy machine.
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="there is no C++ compiler")
def test_a_compiled_model_is_cached_and_equals_the_original(tmp_path: Path, monkeypatch):
    """From the measurement to a predictor that uses what it left in the cache."""
    model = save("Compact", tmp_path)
    info, digest = read_info(model)
    info = replace(info, halo=16, compiled_tile=96)
    found = measure(Trial(str(model), info, "cpu", 800), noise(96, 96, 3), {}, lambda seconds: None)
    assert found["levels"] < 0.5, found
    assert found["compile_work_seconds"] > 0
    assert found["seconds_per_megapixel"] > 0
    measured = judged(info, found | {"seconds_per_megapixel": found["eager_seconds_per_megapixel"] / 4})
    assert (measured.compiled_tile, measured.compiled_gain) == (96, 4.0)
    write_sidecar(model, digest, measured, {})

    started = time.process_time()
    predictor = imgtx.load(model, device="cpu", compiled=True)
    assert time.process_time() - started < found["compile_work_seconds"]
    graphs = torch._dynamo.utils.counters["stats"]
    assert graphs["unique_graphs"] == 1
    image = noise(190, 260, 3)
    cut = predictor.plan_for(190, 260)
    assert (cut.tile_height, cut.tile_width) == (96, 96)
    job = make_job(RunSpec("in", "out", model=str(model), compile=True), *read_info(model))
    assert plan_for_model(job.info, 190, 260) == cut
    plain = imgtx.load(model, device="cpu")
    assert plain.plan_for(190, 260).count == 1
    assert np.abs(predictor(image).astype(int) - plain(image)).max() <= 1
    small = noise(40, 51, 3)
    np.testing.assert_array_equal(predictor(small), plain(small))
    # Not the size that it was compiled for.
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        predictor.model(torch.rand(1, 3, 96, 96), None)
    assert graphs["unique_graphs"] == 1
    eight = imgtx.load(model, device="cpu", compiled=True, self_ensemble=True)
    gap = eight(image).astype(int) - imgtx.load(model, device="cpu", self_ensemble=True)(image)
    assert np.abs(gap).max() <= 1
    # All eight views use the one compiled program.
    assert graphs["unique_graphs"] == 1


def test_the_command_measures_reports_and_stores_the_speedup(tmp_path, monkeypatch):
    """The compiler's result is made up here: the test above has a real one."""
    asked: list[Trial] = []

    def answer(trial: Trial, photo: np.ndarray, environment: Any, watch: Any) -> dict[str, Any]:
        asked.append(trial)
        watch(1.0)
        assert photo.shape == (trial.info.compiled_tile, trial.info.compiled_tile, 3)
        assert environment["OMP_NUM_THREADS"] == "1"
        more = {"compile_work_seconds": 30.0, "again_seconds": 4.0, "pays_from_megapixels": 30.0}
        return FOUND | more | {"tile": trial.info.compiled_tile}

    monkeypatch.setattr(compile_trial, "measure", answer)
    path = Path(save_tiny_model(tmp_path / "own.safetensors"))
    command = ["models", "probe", str(path), "--device", "cpu", "--compile", "--compile-limit", "77"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.stderr
    printed = " ".join(done.stdout.replace("│", " ").split())
    assert "1.0 s a megapixel instead of 2.0, in tiles of" in printed
    assert "pays from 30.0 megapixels an actor on" in printed
    assert f"written to {path}.imgtx.json" in printed
    (trial,) = asked
    info, _ = read_info(path)
    assert (trial.limit, trial.info.fast, trial.device) == (77, info.fast, "cpu")
    assert (info.compiled_tile, info.compiled_gain) == (side_to_compile(info), 2.0)
    shown = json.loads(CliRunner().invoke(main, ["models", "show", str(path)]).stdout)
    assert shown["probe"]["compiled"]["pays_from_megapixels"] == 30.0


def test_an_invalid_time_limit_is_one_line():
    done = CliRunner().invoke(main, ["models", "probe", "sr-x2", "--compile-limit", "0"])
    assert (done.exit_code, done.stderr) == (
        2,
        "imgtx: --compile-limit 0.0: give a number of seconds, above 0\n",
    )


def test_only_whole_tiles_go_through_the_compiler_one_by_one(monkeypatch, tmp_path):
    seen: list[tuple[int, ...]] = []

    def compile_it(model: Any, dynamic: bool) -> Any:
        def call(batch: torch.Tensor, state: Any) -> torch.Tensor:
            seen.append(tuple(batch.shape))
            return model(batch, state)

        return call

    monkeypatch.setattr(torch, "compile", compile_it)
    model: Any = Nearest(MEASURED)
    model.digest = "0" * 64
    predictor = Predictor(Compiled(model), batch=3)
    image = noise(150, 200, 3)
    np.testing.assert_array_equal(predictor(image), image.repeat(2, 0).repeat(2, 1))
    assert set(seen) == {(1, 3, 64, 64)}
    assert len(seen) == predictor.plan_for(150, 200).count
    predictor(noise(63, 30, 3))
    batch = torch.rand(2, 3, 64, 64)
    assert torch.equal(predictor.model(batch, None), model(batch, None))
    assert len(seen) == predictor.plan_for(150, 200).count + 2
    assert predictor.digest == model.digest


def test_a_compiler_that_fails_is_one_line(monkeypatch):
    def refuse(model: Any, dynamic: bool) -> Any:
        def call(batch: torch.Tensor, state: Any) -> torch.Tensor:
            raise RuntimeError("\n  no such architecture\nmore")

        return call

    monkeypatch.setattr(torch, "compile", refuse)
    model: Any = Nearest(MEASURED)
    model.digest = "0" * 64
    with pytest.raises(
        ModelError, match=r"--compile: torch.compile failed .*no such architecture more\): leave"
    ) as caught:
        Predictor(Compiled(model))(noise(64, 64, 3))
    assert "\n" not in str(caught.value)


def test_a_compilation_over_the_time_limit_is_killed(tmp_path):
    model = save_tiny_model(tmp_path / "own.safetensors")
    trial = Trial(str(model), replace(read_info(model)[0], compiled_tile=64), "cpu", 0.4)
    reported: list[float] = []
    started = time.monotonic()
    found = measure(trial, noise(64, 64, 3), {}, reported.append)
    assert found == {"fails": "torch.compile was given up after 0.4 s"}
    assert time.monotonic() - started < 10
    assert reported[0] < 0.4
    assert judged(INFO, found).not_compiled == found["fails"]


def test_a_child_that_ends_without_an_answer_is_reported_with_its_last_output(monkeypatch):
    monkeypatch.setattr(compile_trial.sys, "executable", shutil.which("false"))
    found = measure(Trial("sr-x2", MEASURED, "cpu", 30), noise(64, 64, 3), {}, lambda seconds: None)
    assert found == {"fails": "torch.compile ended with 1 (no output)"}


def test_a_model_that_the_child_cannot_load_is_reported(tmp_path):
    found = measure(Trial("no.pth", MEASURED, "cpu", 60), noise(64, 64, 3), {}, lambda seconds: None)
    assert "no model file at no.pth" in found["fails"]


@pytest.mark.parametrize(
    ("change", "fast", "why"),
    [
        ({}, "float32", ""),
        ({"levels": 0.6}, "float32", "it moves a pixel by 0.6 of 255 levels (limit: 0.5)"),
        ({"levels": 3.0, "exact_db": 55.0}, "bfloat16", ""),
        ({"exact_db": 49.9}, "bfloat16", "it is 49.9 dB off float32 (target: 50)"),
        ({"seconds_per_megapixel": 1.9}, "float32", "it is 1.05 times as fast (target: 1.1)"),
        ({"fails": "no word"}, "float32", "no word"),
    ],
)
def test_a_compiled_model_must_be_exact_and_faster(change, fast, why):
    info = judged(replace(INFO, fast=fast), FOUND | change)
    assert info.not_compiled == why
    assert (info.compiled_tile, info.compiled_gain) == ((0, 0.0) if why else (256, 2.0))


def test_the_probe_reports_a_model_that_cannot_be_compiled(tmp_path):
    class Bare:
        info, prepare = INFO, None

    bare: Any = Bare()
    assert why_not(bare) == "it is not a torch module"
    assert why_not(Windows()) == ""
    assert "fill holes" in why_not(Windows(replace(INFO, masks=True)))
    assert "every image whole" in why_not(Windows(replace(INFO, untiled=10**6)))
    program = save_torchscript(tmp_path / "sharpen.ts")
    done = CliRunner().invoke(main, ["models", "probe", program, "--device", "cpu", "--compile", "--json"])
    assert done.exit_code == 0, done.stderr
    assert "TorchScript" in json.loads(done.stdout)["compiled"]["fails"]
    info, digest = read_info(program)
    with pytest.raises(
        UsageError, match=r"is not for torchscript:.* is a TorchScript program.*; leave it out"
    ):
        make_job(RunSpec("in", "out", model=program, compile=True), info, digest)


def test_the_tile_is_on_the_models_grid_and_leaves_room_beside_its_halos():
    for multiple, halo, largest in [
        (1, 16, 4096),
        (1, 128, 4096),
        (48, 32, 4096),
        (64, 64, 384),
        (4, 4, 384),
    ]:
        info = replace(INFO, multiple=multiple, halo=halo, largest=largest)
        side = side_to_compile(info)
        assert side % multiple == 0
        assert side >= 2 * halo + multiple
        assert Predictor(Nearest(replace(info, compiled_tile=side))).tile >= side


def spec(**more: Any) -> RunSpec:
    return RunSpec("in", "out", model="m.pth", compile=True, **more)


def test_a_run_may_compile_only_where_the_probe_found_it_exact():
    job = make_job(spec(), MEASURED, "d")
    assert job.info == MEASURED
    for change, complaint in [
        ({"compiled_tile": 0}, "was not measured for m.pth: imgtx models probe 'm.pth' --compile does"),
        ({"compiled_tile": 0, "not_compiled": "it is slow"}, "is not for m.pth: it is slow; leave it out"),
        (
            {"fast": "bfloat16"},
            "measured for m.pth in bfloat16 only, and this is float32: give --precision auto",
        ),
    ]:
        with pytest.raises(UsageError, match=complaint):
            make_job(spec(), replace(MEASURED, **change), "d")
    assert (
        make_job(spec(precision="auto"), replace(MEASURED, fast="bfloat16"), "d").recipe.precision
        == "bfloat16"
    )


def test_compiling_changes_the_recipe_and_leaves_other_outputs_current():
    plain = make_job(replace(spec(), compile=False), MEASURED, "d")
    assert plain.info.compiled_tile == 0
    assert plain.recipe.digest == make_job(replace(spec(), compile=False), INFO, "d").recipe.digest
    assert plain.recipe.digest != make_job(spec(), MEASURED, "d").recipe.digest


def test_compiling_is_set_by_the_option_or_the_spec(tmp_path):
    """Without the option the file's value applies."""
    from jobs.run.spec import read_run_spec

    file = tmp_path / "spec.toml"
    file.write_text("compile = true\n")
    options = {"spec_file": file, "settings": (), "compile": None}
    assert read_run_spec("in", "out", "upscale", options).compile
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").touch()
    arguments = ["upscale", str(tmp_path / "in"), str(tmp_path / "out"), "--dry-run"]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    done = CliRunner().invoke(main, [*arguments, "--compile"])
    assert done.exit_code == 2
    assert done.stderr == (
        "imgtx: --compile was not measured for sr-x2: imgtx models probe 'sr-x2' --compile does, or leave it out\n"
    )


def test_packaged_weights_take_only_the_speed_from_the_sidecar(tmp_path):
    path = Path(save_tiny_model(tmp_path / "own.safetensors"))
    info, digest = read_info(path)
    measured = replace(info, halo=99, fast="bfloat16", compiled_tile=256, compiled_gain=1.5)
    write_sidecar(path, digest, measured, {"seams": "measured"})
    assert read_info(path) == (replace(measured, halo=info.halo), digest)
    # Nothing is compiled unless asked for.
    assert load_model(path).info == info
    assert load_model(path, read_info(path)[0]).info.compiled_tile == 256
    shown = json.loads(CliRunner().invoke(main, ["models", "show", str(path)]).stdout)
    assert (shown["compiled_tile"], shown["probe"]) == (256, {"seams": "measured"})


def test_a_missing_compiler_is_reported_before_the_run_starts(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UsageError, match=r"needs a C\+\+ compiler .* no-such-compiler is not found here"):
        check_compiles(spec(gpus=0))
    # The workers' compiler counts, not this machine's.
    check_compiles(spec(gpus=0, address="head:6379"))
    check_compiles(replace(spec(), compile=False))
    model = save_tiny_model(tmp_path / "own.safetensors")
    done = CliRunner().invoke(main, ["models", "probe", str(model), "--device", "cpu", "--compile"])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert not (tmp_path / "own.safetensors.imgtx.json").exists()


def test_a_cache_that_cannot_be_written_is_one_line(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    model: Any = Nearest(MEASURED)
    model.digest = "0" * 64
    with pytest.raises(ModelError, match=r"--compile: .* cannot be written .*: make room"):
        Predictor(Compiled(model))(noise(64, 64, 3))
