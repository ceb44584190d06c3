"""Folders of models in storage: what is fetched of them, and when again."""

import json
from pathlib import Path

import pytest

from imgtx.errors import ModelError, UsageError
from imgtx.models.adapters.diffusers import digest
from imgtx.models.references import find_source
from pipeline.models import folders
from pipeline.models.resolve import local_model
from pipeline.storage.store import Store, open_store

# Files of a published folder, and whether a pipeline is made of them.
FILES = {
    "model_index.json": True,
    "scheduler/scheduler_config.json": True,
    "tokenizer/merges.txt": True,
    "unet/config.json": True,
    "unet/diffusion_pytorch_model.safetensors": True,
    "unet/diffusion_pytorch_model.fp16.safetensors": False,
    "unet/diffusion_pytorch_model.bin": False,
    "unet/code.py": False,
    "whole-model.safetensors": False,
    "README.md": False,
}
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "scheduler": ["diffusers", "DDIMScheduler"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "safety_checker": [None, None],
}


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Return a folder in storage, in memory."""
    import fsspec

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = fsspec.filesystem("memory")
    if files.exists("/models"):
        files.rm("/models", recursive=True)
    for name in FILES:
        text = json.dumps(INDEX) if name == "model_index.json" else f"{{}} {name}"
        files.pipe(f"/models/sd/{name}", text.encode())
    return open_store("memory://models/sd")


@pytest.mark.parametrize("reference", ["memory://models/sd/", "diffusers:memory://models/sd"])
def test_only_what_the_model_is_made_of_is_fetched(stored: Store, reference: str):
    local = local_model(reference)
    path = find_source(local).path
    assert local == f"diffusers:{path}"
    found = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
    assert found == {name for name, wanted in FILES.items() if wanted}
    assert path.parent.name == digest(find_source(path))


def test_a_folder_is_fetched_once_until_a_file_changes_there_or_here(stored: Store, monkeypatch):
    fetched: list[str] = []
    fetch = folders._fetch
    monkeypatch.setattr(folders, "_fetch", lambda *a: (fetched.append(a[-1]), fetch(*a)))
    first = local_model("memory://models/sd/")
    assert local_model("memory://models/sd/") == first
    count = sum(FILES.values())
    assert len(fetched) == count
    (find_source(first).path / "unet/config.json").write_text("damaged")
    assert local_model("memory://models/sd/") == first
    assert (find_source(first).path / "unet/config.json").read_text() == "{} unet/config.json"
    stored.write("unet/config.json", b"changed")
    changed = local_model("memory://models/sd/")
    assert changed != first
    assert len(fetched) == 3 * count


def test_the_sidecar_beside_a_folder_comes_with_it(stored: Store):
    open_store("memory://models").write("sd.imgtx.json", b"measured")
    path = find_source(local_model("memory://models/sd/")).path
    assert path.with_name("sd.imgtx.json").read_text() == "measured"


def test_a_folder_that_is_none_or_not_whole_is_one_line(stored: Store):
    with pytest.raises(UsageError, match=r"no model at memory://models/none/: check the name"):
        local_model("memory://models/none/")
    with pytest.raises(UsageError, match=r"expected a folder with model_index.json or config.json in it"):
        local_model("memory://models/")
    stored.delete("unet/diffusion_pytorch_model.safetensors")
    stored.delete("unet/diffusion_pytorch_model.fp16.safetensors")
    with pytest.raises(ModelError, match=r"weights of unet only as a pickle"):
        local_model("memory://models/sd/")
