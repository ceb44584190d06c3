"""Swin2SR folders as transformers writes them: config.json beside model.safetensors.

Network and config are transformers' own; weights are read as all others (`checkpoint`), strictly, and never by its
loader, which would look for files at a hub. Its image processor is left out: it adds eight pixels where none are
needed; padding to whole windows is done here.
"""

import hashlib
import importlib
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgtx.errors import ModelError, UsageError
from imgtx.models.adapters.base import Source
from imgtx.models.info import ModelInfo
from imgtx.models.weight_file import file_digest

# torch is imported only when a model is loaded: planning does not need it.
if TYPE_CHECKING:
    from torch import Tensor

    from imgtx.models.contract import AdaptedModel

PREFIX = "transformers"
SUFFIXES = ()
IS_FOLDER = True
MARK = "config.json"
FORM = ""
DECLARES = False
facts = None
convert = None

INSTALL = "pip install transformers"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
FILES = ("config.json", *WEIGHTS)
EXPECTED = "Swin2SR folders (config.json with model_type swin2sr, beside model.safetensors)"


def recognizes(path: Path) -> bool:
    """Return whether `path` is a folder with a config."""
    return (path / MARK).is_file()


def folder_files(names: Collection[str], read: Callable[[str], bytes], where: str) -> list[str]:
    """Return the config and the weights that `load` reads."""
    weights = next((name for name in WEIGHTS if name in names), None)
    if MARK not in names or weights is None:
        raise UsageError(f"{where} is not a model that imgtx runs through transformers: expected {EXPECTED}")
    return [MARK, weights]


def digest(source: Source) -> str:
    """Return the SHA-256 in hex of the folder's config and weights."""
    parts = {name: file_digest(source.path / name) for name in FILES if (source.path / name).is_file()}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def load(source: Source, digest: str) -> "AdaptedModel":
    """Return the Swin2SR model in a folder.

    Raises UsageError where transformers is not installed or the folder holds something else, ModelError for weights
    that do not fit their config.
    """
    from imgtx.models.adapters.checkpoint import licence_of, read_checkpoint
    from imgtx.models.contract import UNMEASURED_HALO, UNMEASURED_TILE, AdaptedModel, check_channels

    folder = source.path
    values = _config(folder)
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if values.get("model_type") != "swin2sr" or weights is None:
        raise UsageError(f"{folder} is not a model that imgtx runs through transformers: expected {EXPECTED}")
    library = _import_transformers()
    try:
        config = library.Swin2SRConfig(**values)
        network = library.Swin2SRForImageSuperResolution(config)
        network.load_state_dict(_without_ids(read_checkpoint(weights)), strict=True)
    except ModelError:
        raise
    except Exception as error:
        # The library validates with exceptions of its own.
        complaint = " ".join(str(error).split())[:300]
        raise ModelError(f"{weights} does not fit the config beside it: {complaint}") from error
    returned = getattr(config, "num_channels_out", config.num_channels)
    check_channels(config.num_channels, returned, str(folder))
    info = ModelInfo(
        name=folder.resolve().name,
        task="super-resolution" if config.upscale > 1 else "restoration",
        scale=config.upscale,
        multiple=config.window_size,
        halo=-(-UNMEASURED_HALO // config.window_size) * config.window_size,
        in_channels=config.num_channels,
        out_channels=returned,
        largest=UNMEASURED_TILE,
        dtypes=("float32",),
        batches=False,
        licence=licence_of(weights),
    )

    def call(batch: "Tensor") -> "Tensor":
        return network(pixel_values=batch).reconstruction

    record = {
        "architecture": f"Swin2SR, transformers {library.__version__}",
        "parameters": sum(p.numel() for p in network.parameters()),
        "size_rules": {"minimum": 0, "multiple_of": config.window_size, "square": False},
    }
    return AdaptedModel(network.eval(), call, info, digest, record)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error}): expected {EXPECTED}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path} is not a table of settings: expected {EXPECTED}")
    return values


def _without_ids(tensors: dict[str, Any]) -> dict[str, Any]:
    """Drop the indices that older folders store and newer networks compute."""
    return {name: t for name, t in tensors.items() if not name.endswith("relative_position_index")}


def _import_transformers() -> Any:
    try:
        library = importlib.import_module("transformers")
        library.Swin2SRForImageSuperResolution  # noqa: B018 - imported only when it is asked for
    except (ImportError, RuntimeError, AttributeError) as error:
        raise UsageError(f"Swin2SR folders need transformers ({error}): {INSTALL}") from error
    return library
