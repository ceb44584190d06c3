"""What a weight file says of itself, read without torch: where it is, its config and info, its digest.

One safetensors file holds the tensors and, in its metadata under `imgtx`, the JSON of ModelConfig and ModelInfo.
Planning a run needs no more of it; `imgtx.models.weights` loads the tensors. Nothing is ever unpickled.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import safetensors

from imgtx.errors import ModelError, UsageError
from imgtx.models.config import ModelConfig
from imgtx.models.info import ModelInfo
from imgtx.models.style_config import OWN_STYLE, StyleConfig
from imgtx.models.text_to_image_config import TextToImageConfig

Config = ModelConfig | StyleConfig | TextToImageConfig

# The tasks of networks that have a config of their own; all others are encoder-decoders.
STYLE_TASK = "style-transfer"
TEXT_TASK = "text-to-image"
CONFIGS: dict[str, type[Config]] = {STYLE_TASK: StyleConfig, TEXT_TASK: TextToImageConfig}


def read_info(name_or_path: str | Path) -> tuple[ModelInfo, str]:
    """Read the info and digest of a model without loading its tensors; raises as `imgtx.models.weights.load_model`."""
    path = find_weights(name_or_path)
    with opened(path, framework="numpy") as file:
        _, info = read_facts(file, path)
    return info, file_digest(path)


@contextmanager
def opened(path: Path, *, framework: str) -> Iterator[Any]:
    """Open the file for reading, its tensors as `framework` ("numpy", "pt") has them; ModelError for another file."""
    try:
        with safetensors.safe_open(path, framework=framework) as file:
            yield file
    except (safetensors.SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is not a whole safetensors file ({error}): copy it again, or train it again"
        ) from error


def read_facts(file: Any, path: Path) -> tuple[Config, ModelInfo]:
    """Read the metadata; ModelError for anything that `save_weights` would not have written."""
    metadata = file.metadata() or {}
    if "imgtx" not in metadata:
        raise ModelError(f"{path} holds tensors but no imgtx config: it was not written by imgtx")
    try:
        facts = json.loads(metadata["imgtx"])
        info = ModelInfo.from_dict(facts["info"])
        config = CONFIGS.get(info.task, ModelConfig).from_dict(facts["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path} has metadata that imgtx cannot read ({type(error).__name__}: {error}): expected JSON "
            f"with config and info; copy it again, or train it again"
        ) from error
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    said = (info.scale, info.in_channels, info.out_channels, info.multiple % config.multiple)
    if said != (config.scale, config.in_channels, config.out_channels, 0):
        raise ModelError(
            f"{path} has an info that contradicts its config in scale, channels or multiple: train it again"
        )
    return config, config.completed(info) if isinstance(config, TextToImageConfig) else info


def count_parameters(path: Path) -> int:
    """Count the numbers in all tensors of a weight file, from its header; what it knows of its own style is none."""
    with opened(path, framework="numpy") as file:
        names = [name for name in file.keys() if not name.startswith(OWN_STYLE)]  # noqa: SIM118 - no dict
        return sum(math.prod(file.get_slice(name).get_shape()) for name in names)


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def packaged_models() -> list[str]:
    """Return the names of the models that ship with imgtx."""
    return sorted(p.stem for p in packaged_folder().glob("*.safetensors"))


def packaged_folder() -> Path:
    return Path(str(resources.files("imgtx"))) / "packaged"


def find_weights(name_or_path: str | Path) -> Path:
    """Return the weight file of a packaged name or a path; UsageError where there is none."""
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
