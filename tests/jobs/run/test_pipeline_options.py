"""LoRAs, offloading and tiles as options of `imgtx generate`: part of the model's reference, copied with the run."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from imgtx.errors import UsageError
from imgtx.models.references import files_of
from jobs.cli import main
from jobs.run.prepare import keep_inputs, prepare
from jobs.run.spec import read_run_spec
from jobs.submit.command import check_command
from pipeline.runs import last_spec
from pipeline.spec import RunSpec
from tests.support.tiny_pipelines import save_pipeline

needs_diffusers = pytest.mark.skipif(
    importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed"
)


def spec_of(table: Any, out: Any, file: Path | None = None, **options: Any) -> RunSpec:
    return read_run_spec(
        str(table), str(out), "generate", {"spec_file": file, "settings": (), "lora": ()} | options
    )


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    (tmp_path / "ink.safetensors").write_bytes(b"weights")
    return tmp_path / "ink.safetensors"


def test_flags_are_part_of_the_models_reference_and_no_settings(tmp_path: Path):
    model = "diffusers:s3://bucket/sana"
    spec = spec_of(
        "p.csv",
        "out",
        model=model,
        lora=("ink.safetensors:0.8", "s3://b/two.safetensors"),
        vae_tiles=True,
        seed=3,
    )
    assert spec.model == f"{model}?lora=ink.safetensors:0.8&lora=s3://b/two.safetensors&vae_tiles=1"
    assert spec.settings == {"seed": 3}
    file = tmp_path / "spec.toml"
    file.write_text(f'model = "{model}?vae_tiles=1"\nlora = ["ink.safetensors"]\noffload = true\n')
    assert spec_of("p.csv", "out", file).model == f"{model}?lora=ink.safetensors&offload=1&vae_tiles=1"
    assert spec_of("p.csv", "out", model="s3://bucket/sana/", offload=True).model == (
        "diffusers:s3://bucket/sana/?offload=1"
    )
    assert spec_of("p.csv", "out", model=model).model == model


@pytest.mark.parametrize("flag", [{"lora": ("ink.safetensors",)}, {"offload": True}, {"vae_tiles": True}])
def test_a_model_of_another_kind_takes_none_in_one_line(flag: dict[str, Any]):
    with pytest.raises(
        UsageError, match=r"^--(lora|offload|vae-tiles) with --model text-to-image: only"
    ) as caught:
        spec_of("p.csv", "out", **flag)
    assert "\n" not in str(caught.value)


@needs_diffusers
def test_a_local_lora_is_copied_to_the_destination_where_workers_and_retry_find_it(
    lora: Path, tmp_path: Path
):
    folder = save_pipeline("stable-diffusion", tmp_path / "sd")
    table = tmp_path / "p.csv"
    table.write_text("prompt\ndog\n")
    run = prepare(spec_of(table, tmp_path / "out", model=str(folder), lora=(f"{lora}:0.5",), gpus=0))
    kept = keep_inputs(run).job
    (copy,) = files_of(kept.spec.model)
    assert copy.startswith(f"{tmp_path}/out/inputs/")
    assert Path(copy).read_bytes() == b"weights"
    assert kept.spec.model == f"diffusers:{folder}?lora={copy}:0.5"
    assert kept.recipe == run.job.recipe
    record = tmp_path / "out" / "runs" / "20260101T000000-abcd" / "spec.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps(kept.spec.to_dict()))
    (tmp_path / "out").rename(tmp_path / "moved")
    lora.unlink()
    (copy,) = files_of(last_spec(str(tmp_path / "moved"), None).model)
    assert Path(copy).read_bytes() == b"weights"


@needs_diffusers
def test_offloading_without_a_gpu_is_refused_before_anything_starts(tmp_path: Path):
    folder = save_pipeline("stable-diffusion", tmp_path / "sd")
    table = tmp_path / "p.csv"
    table.write_text("prompt\ndog\n")
    with pytest.raises(UsageError, match="this run has no GPU: leave it out"):
        prepare(spec_of(table, tmp_path / "out", model=str(folder), offload=True, gpus=0))


@pytest.mark.parametrize("form", ["{}", "{}:0.8"])
def test_a_submitted_command_takes_its_local_loras_along(lora: Path, form: str):
    given, sent = form.format(lora), form.format("inputs/0/ink.safetensors")
    ends = ("s3://out/", "-p", "is that a dog? lora=1")
    model = "diffusers:s3://bucket/sana"
    command = check_command(("generate", *ends, "--model", model, "--lora", given), main)
    assert command.files == {"inputs/0/ink.safetensors": lora}
    assert command.arguments == ("generate", *ends, "--model", model, "--lora", sent)
    command = check_command(("generate", *ends, f"--model={model}?lora={given}"), main)
    assert command.arguments == ("generate", *ends, f"--model={model}?lora={sent}")


def test_a_relative_path_travels_whichever_way_it_is_written(lora: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(lora.parent)
    Path("prompts.csv").write_text("prompt\ndog\n")
    model = ("--model", "diffusers:s3://bucket/sana")
    command = check_command(
        ("generate", "./prompts.csv", "s3://out/", *model, "--lora=./ink.safetensors:2"), main
    )
    assert command.arguments == (
        *("generate", "inputs/0/prompts.csv", "s3://out/", *model),
        "--lora=inputs/1/ink.safetensors:2",
    )
