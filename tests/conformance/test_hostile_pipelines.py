"""Folders of diffusers that are broken, hostile or of another kind: one line each, and nothing of them is run."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imgtx.errors import ImgtxError, ModelError, UsageError
from imgtx.models.adapters.pipeline_folder import licence_of, read_folder
from imgtx.models.references import digest_of, find_source, load_model, read_info
from tests.support.tiny_pipelines import save_pipeline

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed"
)

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline("stable-diffusion", tmp_path_factory.mktemp("hostile") / "sd")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "sd")
    return tmp_path / "sd"


def change_index(folder: Path, **changes: Any) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def own_code(folder: Path) -> None:
    (folder / "mine.py").write_text("raise SystemExit('code was run')")
    change_index(folder, _class_name=["mine", "Pipeline"])


def own_component(folder: Path) -> None:
    (folder / "unet" / "mine.py").write_text("raise SystemExit('code was run')")
    change_index(folder, unet=["mine", "Network"])


def own_map(folder: Path) -> None:
    (folder / "unet" / "config.json").write_text('{"auto_map": {"AutoModel": "mine.Network"}}')
    change_index(folder, unet=["transformers", "AutoModel"])


def pickle_only(folder: Path) -> None:
    (folder / UNET).rename(folder / "unet" / "diffusion_pytorch_model.bin")


def cut_short(folder: Path) -> None:
    data = (folder / UNET).read_bytes()
    (folder / UNET).write_bytes(data[: len(data) // 2])


def missing_shard(folder: Path) -> None:
    (folder / UNET).unlink()
    index = {"weight_map": {"a": "diffusion_pytorch_model-00001-of-00002.safetensors"}}
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def shard_elsewhere(folder: Path) -> None:
    missing_shard(folder)
    path = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"a": "../../secret.safetensors"}}))


def drop_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / UNET)
    del tensors["conv_in.weight"]
    save_file(tensors, folder / UNET, metadata={"format": "pt"})


def drop_text_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    del tensors[next(name for name in tensors if name.endswith("q_proj.weight"))]
    save_file(tensors, path, metadata={"format": "pt"})


def other_shape(folder: Path) -> None:
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"in_channels": 8}))


@pytest.mark.parametrize(
    ("damage", "refusal", "complaint"),
    [
        (
            lambda f: (f / "model_index.json").unlink(),
            UsageError,
            "has no model_index.json: expected a folder",
        ),
        (lambda f: (f / "model_index.json").write_text("{"), ModelError, "model_index.json cannot be read"),
        (lambda f: (f / "model_index.json").write_text("[]"), ModelError, "is not a table of settings"),
        (lambda f: (f / "model_index.json").write_text("{}"), ModelError, "names no pipeline class"),
        (lambda f: shutil.rmtree(f / "vae"), ModelError, r"lacks its component vae \(AutoencoderKL\)"),
        (lambda f: (f / UNET).unlink(), ModelError, "has no weights of unet"),
        (own_code, ModelError, r"brings code of its own \(the pipeline in mine.py\)"),
        (own_component, ModelError, r"brings code of its own \(the component unet in mine.py\)"),
        (own_map, ModelError, "by auto_map in its config"),
        (pickle_only, ModelError, "has the weights of unet only as a pickle"),
        (cut_short, ModelError, "is not a whole safetensors file"),
        (missing_shard, ModelError, "lacks unet/diffusion_pytorch_model-00001-of-00002.safetensors"),
        (shard_elsewhere, ModelError, "names no files"),
        (
            lambda f: change_index(f, _class_name="NoPipeline"),
            UsageError,
            "holds a NoPipeline, which diffusers",
        ),
        (
            lambda f: change_index(f, _class_name="StableDiffusionImg2ImgPipeline"),
            UsageError,
            "does not make images from text alone",
        ),
        (
            lambda f: change_index(f, _class_name="WanPipeline"),
            UsageError,
            "does not make images from text alone",
        ),
    ],
)
def test_bad_folders_are_refused_in_one_line_before_a_run(folder, damage, refusal, complaint):
    damage(folder)
    with pytest.raises(refusal, match=complaint) as caught:
        read_info(f"diffusers:{folder}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (drop_tensor, r"lacks weights of unet \(conv_in.weight\)"),
        (drop_text_tensor, r"lacks weights of text_encoder \(\S+q_proj.weight\)"),
        (other_shape, "cannot be loaded as a StableDiffusionPipeline"),
        (lambda f: change_index(f, unet=["onnxruntime", "Session"]), "cannot be loaded"),
        (lambda f: change_index(f, unet=["diffusers", "NoSuchNetwork"]), "cannot be loaded"),
    ],
)
def test_weights_that_do_not_fit_are_found_when_they_are_read(folder, damage, complaint):
    damage(folder)
    with pytest.raises(ModelError, match=complaint) as caught:
        load_model(folder).prepare({})
    assert "\n" not in str(caught.value)
    assert "imgtx-pipeline" not in str(caught.value)


def test_code_that_nothing_asks_for_is_neither_run_nor_in_the_way(folder):
    before = digest_of(find_source(folder))
    for name in ("None.py", "pipeline.py", "unet/modeling.py", "unet/diffusion_pytorch_model.bin", "LICENSE"):
        (folder / name).write_text("raise SystemExit('code was run')")
    load_model(folder).prepare({})
    assert digest_of(find_source(folder)) == before
    (folder / "scheduler" / "scheduler_config.json").open("a").write(" ")
    assert digest_of(find_source(folder)) != before


def test_a_variant_is_read_where_it_is_all_there_is(folder):
    """As makers publish it: each network's weights in half precision alone."""
    plain = read_folder(folder)
    assert plain.variant is None
    for component in plain.components:
        for name in component.weights:
            path = folder / name
            path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))
    half = read_folder(folder)
    assert half.variant == "fp16"
    assert [len(c.weights) for c in half.components] == [len(c.weights) for c in plain.components]
    load_model(folder).prepare({})


def test_the_licence_of_the_readme_is_shown(folder):
    assert licence_of(folder) == "unknown"
    (folder / "README.md").write_text("---\ntags: [x]\nlicense: openrail++\n---\n# A model\nlicense: other\n")
    assert read_info(folder)[0].licence == "openrail++"


def test_a_missing_library_is_named_with_its_install_command(folder, monkeypatch):
    def none() -> Any:
        raise ImportError("No module named 'diffusers'")

    monkeypatch.setattr("imgtx.models.adapters.diffusion_model.offline_libraries", none)
    with pytest.raises(UsageError, match=r"need diffusers and accelerate .*pip install 'imgtx\[diffusion\]'"):
        read_info(folder)


def test_every_refusal_is_one_of_ours(folder: Path):
    damages: list[Callable[[Path], Any]] = [lambda f: (f / "unet/config.json").write_bytes(b"\xff\xfe")]
    for damage in damages:
        damage(folder)
        with pytest.raises(ImgtxError):
            load_model(folder).prepare({})
