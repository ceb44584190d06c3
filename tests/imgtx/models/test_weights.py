"""Weight files carry their own facts, load strictly, and fail in one sentence for any bytes."""

import json
import pickle
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as write_tensors
from safetensors.torch import load_file, save_file

from imgtx.errors import ModelError, UsageError
from imgtx.models.config import ModelConfig
from imgtx.models.info import ModelInfo
from imgtx.models.transformer import EncoderDecoder
from imgtx.models.weight_file import find_weights, packaged_models, read_info
from imgtx.models.weights import load_model, save_weights

CONFIG = ModelConfig(dim=16, heads=1, encoder_blocks=1, decoder_blocks=1, detail_channels=4, detail_blocks=1)
INFO = ModelInfo(
    "tiny",
    "super-resolution",
    scale=2,
    multiple=16,
    halo=16,
    licence="MIT",
    training={"steps": 3, "history": []},
)


@pytest.fixture
def network() -> EncoderDecoder:
    torch.manual_seed(0)
    return EncoderDecoder(CONFIG)


@pytest.fixture
def path(tmp_path: Path, network: EncoderDecoder) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_weights(path, network, INFO)
    return path


def rewrite(path: Path, *, tensors: dict | None = None, **facts: object) -> None:
    """Rewrite the file at `path` with other tensors, or with other facts under config and info."""
    kept = {"config": asdict(CONFIG), "info": INFO.to_dict()} | facts
    save_file(tensors or load_file(path), path, metadata={"imgtx": json.dumps(kept)})


def refused(path: Path) -> str:
    """Return the one line with which both readers refuse the file."""
    with pytest.raises(ModelError) as caught:
        load_model(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_round_trip_is_bit_equal(path, network):
    model = load_model(path)
    assert model.info == INFO
    assert model.network.config == CONFIG
    assert not model.training
    saved = network.state_dict()
    assert list(model.network.state_dict()) == list(saved)
    assert all(torch.equal(t, saved[name]) for name, t in model.network.state_dict().items())
    assert read_info(path) == (INFO, model.digest)


@pytest.mark.parametrize("name", packaged_models())
def test_rewriting_weights_gives_the_same_bytes(name, tmp_path):
    """The digest is part of every output's recipe, so the writer must not change its bytes."""
    before, after = find_weights(name), tmp_path / "again.safetensors"
    with safe_open(before, framework="numpy") as file:
        metadata = file.metadata()
    write_tensors(load_arrays(before), after, metadata)
    assert after.read_bytes() == before.read_bytes()


def test_info_round_trips_through_json():
    assert ModelInfo.from_dict(json.loads(json.dumps(INFO.to_dict()))) == INFO
    assert isinstance(ModelInfo.from_dict(json.loads(json.dumps(INFO.to_dict()))).dtypes, tuple)


def test_the_digest_follows_the_content_and_not_the_name(path, network, tmp_path):
    again = tmp_path / "again.safetensors"
    save_weights(again, network, INFO)
    assert read_info(again)[1] == read_info(path)[1]
    with torch.no_grad():
        network.head.bias[0] += 1e-6
    save_weights(again, network, INFO)
    assert read_info(again)[1] != read_info(path)[1]
    with torch.no_grad():
        network.head.bias[0] -= 1e-6
    save_weights(again, network, replace(INFO, licence="other"))
    assert read_info(again)[1] != read_info(path)[1]


def test_output_is_clamped(path, network):
    with torch.no_grad():
        network.head.bias += 2
    save_weights(path, network, INFO)
    output = load_model(path)(torch.rand(1, 3, 16, 16))
    assert output.shape == (1, 3, 32, 32)
    assert output.min() == output.max() == 1


def test_a_missing_tensor_is_refused(path):
    tensors = load_file(path)
    del tensors["head.bias"]
    rewrite(path, tensors=tensors)
    assert "head.bias" in refused(path)


def test_a_superfluous_tensor_is_refused(path):
    rewrite(path, tensors=load_file(path) | {"surplus": torch.zeros(1)})
    assert "surplus" in refused(path)


def test_a_tensor_of_another_shape_is_refused(path):
    rewrite(path, config=asdict(replace(CONFIG, ffn_ratio=1.0)))
    assert "size mismatch" in refused(path)


@pytest.mark.parametrize("length", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(path, length):
    path.write_bytes(path.read_bytes()[:length])
    assert "not a whole safetensors file" in refused(path)
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        read_info(path)


def test_a_pickle_is_refused_and_never_run(path, tmp_path):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    path.write_bytes(pickle.dumps(Bomb()))
    assert "not a whole safetensors file" in refused(path)
    torch.save({"head": Bomb()}, path)
    assert "not a whole safetensors file" in refused(path)
    assert not (tmp_path / "ran").exists()


def test_foreign_safetensors_are_refused(path):
    save_file({"weight": torch.zeros(2)}, path)
    assert "not written by imgtx" in refused(path)
    with pytest.raises(ModelError, match="not written by imgtx"):
        read_info(path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "null", "{}", '{"config": {}}', '{"config": [], "info": {}}', '{"config": null}'],
)
def test_invalid_metadata_is_refused(path, text):
    save_file(load_file(path), path, metadata={"imgtx": text})
    refused(path)
    with pytest.raises(ModelError, match=r"tiny\.safetensors"):
        read_info(path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"colour": 1}, "colour"),
        ({"dim": "16"}, "dim = '16'"),
        ({"dim": 0}, "dim = 0"),
        ({"heads": 3}, "dim = 16"),
        ({"window": None}, "window = None"),
        ({"norm": "batch"}, "norm = 'batch'"),
        ({"norm": 1}, "norm = 1"),
        ({"ffn_ratio": -1}, "ffn_ratio = -1"),
        ({"ffn_kernel": 4}, "ffn_kernel = 4: expected an odd number"),
        ({"encoder_blocks": True}, "encoder_blocks = True"),
        ({"scale": 3}, "contradicts"),
        ({"window": 5}, "contradicts"),
    ],
)
def test_an_invalid_config_is_refused(path, change, named):
    rewrite(path, config=asdict(CONFIG) | change)
    assert named in refused(path)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"author": "x"}, "author"), ({"halo": "16"}, "halo = '16'"), ({"dtypes": 3}, "dtypes = 3")],
)
def test_an_invalid_info_is_refused(path, change, named):
    rewrite(path, info=INFO.to_dict() | change)
    assert named in refused(path)


def test_an_info_without_its_scale_is_refused(path):
    rewrite(path, info={k: v for k, v in INFO.to_dict().items() if k not in ("scale", "task")})
    assert "lacks task, scale" in refused(path)


def test_a_config_built_in_code_names_its_error():
    with pytest.raises(ValueError, match="norm = 'layer': expected one of post, pre, res-post"):
        ModelConfig(norm="layer")  # type: ignore[arg-type] - the mistake under test


def test_packaged_models_are_found_by_name():
    names = packaged_models()
    assert names
    for name in names:
        info, digest = read_info(name)
        assert info.name == name
        assert name.startswith(f"sr-x{info.scale}") == (info.task == "super-resolution")
        assert len(digest) == 64
        assert info.licence != "unknown"


@pytest.mark.parametrize("name", ["sr-x99", "", "../sr-x2", "missing.safetensors", "."])
def test_a_missing_model_is_a_usage_error(name):
    with pytest.raises(UsageError, match=r"\.safetensors") as caught:
        find_weights(name)
    assert "\n" not in str(caught.value)


def test_a_folder_is_not_a_weight_file(tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(UsageError, match="no weight file"):
        load_model(tmp_path / "folder.safetensors")
