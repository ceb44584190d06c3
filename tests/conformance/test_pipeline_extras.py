"""What a reference adds to a pipeline of diffusers: a LoRA, an autoencoder that decodes in tiles, offloading."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import imgtx
from imgtx.errors import ModelError, UsageError
from imgtx.models.references import (
    absolute,
    declaring,
    digest_of,
    files_of,
    find_source,
    load_model,
    read_info,
    with_files,
)
from pipeline.models.resolve import resolve_model
from pipeline.storage.store import open_store
from tests.support.tiny_pipelines import save_pipeline

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("diffusers") is None or importlib.util.find_spec("peft") is None,
    reason="diffusers or peft is not installed",
)

LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_v"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline("stable-diffusion", tmp_path_factory.mktemp("extras") / "sd")


@pytest.fixture
def lora(folder: Path, tmp_path: Path) -> Callable[..., str]:
    """Save a LoRA for a layer and return the reference of the pipeline with it."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")

    def saved(layer: str = LAYER, more: str = "") -> str:
        shape = weights[LAYER.removeprefix("unet.") + ".weight"].shape
        drawn = torch.Generator().manual_seed(0)
        tensors = {
            f"{layer}.lora_A.weight": torch.randn(2, shape[1], generator=drawn),
            f"{layer}.lora_B.weight": torch.randn(shape[0], 2, generator=drawn),
        }
        save_file(tensors, tmp_path / "style.safetensors")
        return f"diffusers:{folder}?lora={tmp_path / 'style.safetensors'}{more}"

    return saved


def picture(reference: str) -> np.ndarray:
    made = imgtx.load(reference, device="cpu")("dog", seed=5, steps=2, width=32, height=32)
    return made.astype(int)


def test_a_lora_changes_pictures_by_its_weight(folder: Path, lora: Callable[..., str]):
    plain, full, none = picture(str(folder)), picture(lora()), picture(lora(more=":0"))
    assert np.abs(full - plain).max() > 1
    assert np.abs(none - plain).max() <= 1
    half = np.abs(picture(lora(more=":0.5")) - plain).mean()
    assert 0 < half < np.abs(full - plain).mean()


def test_what_decides_pictures_is_in_the_digest_and_offloading_does_not(
    folder: Path, lora: Callable[..., str]
):
    plain = f"diffusers:{folder}"
    references = [plain, lora(), lora(more=":0.5"), f"{plain}?vae_tiles=1"]
    assert len({digest_of(find_source(reference)) for reference in references}) == 4
    assert digest_of(find_source(f"{plain}?offload=1")) == digest_of(find_source(plain))
    assert read_info(lora())[0] == read_info(plain)[0]


def test_a_lora_is_found_from_every_working_directory(folder: Path, lora, tmp_path: Path, monkeypatch):
    reference = lora(more=":0.5")
    monkeypatch.chdir(tmp_path)
    assert absolute(f"diffusers:{folder}?lora=style.safetensors:0.5") == reference


def test_several_loras_add_up_and_names_with_every_character_are_found(folder: Path, lora, tmp_path: Path):
    lora()
    odd = tmp_path / "a & b+c?.safetensors"
    (tmp_path / "style.safetensors").rename(odd)
    plain, whole, halves = (
        declaring(f"diffusers:{folder}", {"lora": loras} if loras else {})
        for loras in ("", f"{odd}", f"{odd}:0.5\n{odd}:0.5")
    )
    assert files_of(halves) == [str(odd)] * 2
    assert absolute(halves) == halves
    assert np.abs(picture(whole) - picture(halves)).max() <= 1
    assert np.abs(picture(whole) - picture(plain)).max() > 1
    assert len({digest_of(find_source(reference)) for reference in (plain, whole, halves)}) == 3


def test_a_lora_in_storage_is_fetched(folder: Path, lora, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    local = lora(more=":0.5")
    store = open_store("memory://loras")
    store.write("style.safetensors", (tmp_path / "style.safetensors").read_bytes())
    there = with_files(local, lambda file: "memory://loras/style.safetensors")
    found = resolve_model(there)
    assert found.reference == there
    assert found.digest == digest_of(find_source(local))


def test_a_lora_of_another_model_is_one_line(lora: Callable[..., str]):
    with pytest.raises(ModelError, match=r"the LoRA .*style.safetensors") as caught:
        load_model(lora("transformer.blocks.0.attn.to_q")).prepare({})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("declared", "complaint"),
    [
        ("lora=none.safetensors", "no LoRA at none.safetensors"),
        ("lora=style.bin", "no LoRA at style.bin"),
        ("lora=x.safetensors:much", "expected diffusers:FOLDER, and after a question mark"),
        ("vae_tiles=yes", "expected diffusers:FOLDER"),
        ("colour=1", "expected diffusers:FOLDER"),
    ],
)
def test_what_cannot_be_declared_is_one_line(folder: Path, declared: str, complaint: str):
    with pytest.raises(UsageError, match=complaint):
        read_info(f"diffusers:{folder}?{declared}")


def test_tiles_of_the_autoencoder_and_offloading_without_a_gpu(folder: Path):
    model = load_model(f"diffusers:{folder}?vae_tiles=1")
    model.prepare({})
    assert model.pipeline.vae.use_tiling
    with pytest.raises(UsageError, match="this is a CPU: leave it out"):
        load_model(f"diffusers:{folder}?offload=1").prepare({})
