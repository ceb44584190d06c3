"""Weight files: safetensors that carry their own config and info, loaded strictly; the packaged models.

One file holds the tensors and, in its metadata under `imgtx`, the JSON of ModelConfig and ModelInfo. Nothing
is ever unpickled.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from imgtx.config import ModelConfig, ModelInfo
from imgtx.errors import ModelError, UsageError
from imgtx.model import EncoderDecoder


class Model(nn.Module):
    """A network with its facts: what `imgtx.predict` and the pipeline run, whoever made it.

    `digest` is the SHA-256 of the weight file in hex; it is part of every output's recipe.
    """

    def __init__(self, network: nn.Module, info: ModelInfo, digest: str):
        super().__init__()
        self.network, self.info, self.digest = network, info, digest

    def prepare(self, conditions: dict[str, Any] | None = None) -> None:
        """State that is computed once per job; these tasks need none."""

    def forward(self, batch: Tensor, state: None = None) -> Tensor:
        """(B, C, H, W) in [0, 1], H and W multiples of info.multiple -> (B, C, s H, s W) in [0, 1]."""
        return self.network(batch).clamp(0.0, 1.0)


def save_weights(path: Path, network: EncoderDecoder, info: ModelInfo) -> None:
    """Write one self-describing weight file."""
    facts = json.dumps({"config": asdict(network.config), "info": info.to_dict()}, sort_keys=True)
    tensors = {
        name: t.detach().to("cpu", torch.float32).contiguous() for name, t in network.state_dict().items()
    }
    save_file(tensors, path, metadata={"imgtx": facts})


def load_model(name_or_path: str | Path) -> Model:
    """A packaged model by name (`sr-x2`), or any imgtx weight file by path.

    Raises UsageError where there is no such model, ModelError where the file is truncated, foreign or does
    not fit its own config.
    """
    path = find_weights(name_or_path)
    with _opened(path) as file:
        config, info = _read_facts(file, path)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    network = EncoderDecoder(config)
    try:
        network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        complaint = " ".join(str(error).split()).partition(": ")[2]
        raise ModelError(f"{path} does not fit its own config: {complaint[:300]}") from error
    return Model(network, info, file_digest(path)).eval()


def read_info(name_or_path: str | Path) -> tuple[ModelInfo, str]:
    """The info and digest of a model without loading its tensors; raises as `load_model`."""
    path = find_weights(name_or_path)
    with _opened(path) as file:
        _, info = _read_facts(file, path)
    return info, file_digest(path)


@contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is not a whole safetensors file ({error}): copy it again, or train it anew"
        ) from error


def _read_facts(file: safe_open, path: Path) -> tuple[ModelConfig, ModelInfo]:
    """What the metadata says; ModelError for whatever `save_weights` would not have written."""
    metadata = file.metadata() or {}
    if "imgtx" not in metadata:
        raise ModelError(f"{path} holds tensors but no imgtx config: it was not written by imgtx")
    try:
        facts = json.loads(metadata["imgtx"])
        config, info = ModelConfig.from_dict(facts["config"]), ModelInfo.from_dict(facts["info"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path} has metadata that imgtx cannot read ({type(error).__name__}: {error}); legal is JSON "
            f"with config and info: copy it again, or train it anew"
        ) from error
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    said = (info.scale, info.in_channels, info.out_channels, info.multiple % config.multiple)
    if said != (config.scale, config.in_channels, config.out_channels, 0):
        raise ModelError(
            f"{path} has an info that contradicts its config in scale, channels or multiple: train it anew"
        )
    return config, info


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def packaged_models() -> list[str]:
    """Names of the models that ship with imgtx."""
    return sorted(p.stem for p in packaged_folder().glob("*.safetensors"))


def packaged_folder() -> Path:
    return Path(str(resources.files("imgtx"))) / "packaged"


def find_weights(name_or_path: str | Path) -> Path:
    """The weight file that a packaged name or a path stands for; UsageError where there is none."""
    path = Path(name_or_path)
    if path.suffix == ".safetensors":
        if path.is_file():
            return path
        raise UsageError(f"no weight file at {path}: give the path of a .safetensors file or a packaged name")
    packaged = packaged_folder() / f"{name_or_path}.safetensors"
    if packaged.is_file():
        return packaged
    raise UsageError(
        f"unknown model {str(name_or_path)!r}: packaged models are "
        f"{', '.join(packaged_models()) or '(none)'}; or give the path of a .safetensors file"
    )
