"""Read tensors from third-party files, without ever running anything in them.

Two formats: safetensors, and pickles as torch.save writes them, read by torch's restricted unpickler
(`weights_only`), which knows tensors and plain containers and refuses every other name. Before memory is taken for
a tensor, what the file claims is compared with its size: the pickle is read twice, the first time without data.
"""

import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from imgtx.errors import ModelError, first_line
from imgtx.models.weight_file import opened

# A number in a tensor's name counts blocks, which the network's maker builds before it compares a tensor.
MAX_BLOCKS = 10_000

# Where makers of safetensors files write it; the first is ModelSpec's (github.com/Stability-AI/ModelSpec).
LICENCE_KEYS = ("modelspec.license", "license", "licence")

Checkpoint = dict[str, Any]


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the file's dictionary: tensors by name on the CPU, perhaps nested as a training script left it.

    Raises ModelError for a file that is cut short, is of no known format, would run code, or claims more than it
    holds.
    """
    if path.suffix == ".safetensors":
        # Its reader checks the claimed sizes.
        with opened(path, framework="pt"):
            found: Any = load_file(path)
    else:
        found = _read_pickle(path)
    if not isinstance(found, dict) or not any(_tensors(found)):
        raise ModelError(
            f"{path} holds no tensors by name (a state dict): save the model's state_dict() alone"
        )
    _check_names(found, path)
    return found


def licence_of(path: Path) -> str:
    """Return what a safetensors file's metadata says of its licence, in one line; "unknown" where it says nothing."""
    if path.suffix != ".safetensors":
        return "unknown"
    with opened(path, framework="pt") as file:
        said = file.metadata() or {}
    found = next((said[name] for name in LICENCE_KEYS if said.get(name)), "unknown")
    return " ".join("".join(c for c in found if c.isprintable() or c.isspace()).split())[:100] or "unknown"


def _read_pickle(path: Path) -> Any:
    size = path.stat().st_size
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                _check_archive(archive, path)
        with warnings.catch_warnings():
            # Warnings about pickle protocols; what cannot be read is reported below.
            warnings.simplefilter("ignore")
            with FakeTensorMode():
                _check_claims(torch.load(path, map_location="cpu", weights_only=True), size, path)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _would_run(path, error) from error
    except ModelError:
        raise
    except Exception as error:
        # For damaged files torch, zipfile and pickle raise exceptions of many kinds.
        raise ModelError(
            f"{path} is not a whole checkpoint ({type(error).__name__}: {first_line(error)}): copy it again, or "
            f"give another file"
        ) from error


def _check_archive(archive: zipfile.ZipFile, path: Path) -> None:
    """torch.save stores its records plainly: one that unpacks to more than the file holds is a bomb."""
    if any(record.file_size > path.stat().st_size for record in archive.infolist()):
        raise _claims_too_much(path, "a record")
    if any(name.endswith("/constants.pkl") for name in archive.namelist()):
        raise ModelError(
            f"{path} is a TorchScript archive, a program and not weights; to run one whose maker you trust: "
            f"--model 'torchscript:{path}?scale=N' (docs/guides/your-models.md)"
        )


def _check_claims(found: Any, size: int, path: Path) -> None:
    """Refuse what would take more memory than the file has bytes; `found` holds shapes without data."""
    storages: dict[int, int] = {}
    for name, tensor in _tensors(found):
        storage = tensor.untyped_storage()
        storages[id(storage._cdata)] = storage.nbytes()
        # a view that repeats its bytes costs nothing here, and everything once a network is made of its shape
        if storage.nbytes() > size or tensor.numel() * tensor.element_size() > size:
            raise _claims_too_much(path, f"tensor {name!r} of shape {tuple(tensor.shape)}")
        if tensor.numel() == 0 and max(tensor.shape, default=0) > size:
            raise _claims_too_much(path, f"tensor {name!r} of shape {tuple(tensor.shape)}")
    total = sum(tensor.numel() * tensor.element_size() for _, tensor in _tensors(found))
    # Some files name one tensor twice, as `params` and `params_ema`.
    if total > 4 * size:
        raise _claims_too_much(path, "all tensors together")


def _check_names(found: Checkpoint, path: Path) -> None:
    numbers = [int(n) for name, _ in _tensors(found) for n in re.findall(r"(?<![^.])\d{1,18}(?![^.])", name)]
    if max(numbers, default=0) > MAX_BLOCKS or any(len(name) > 1000 for name, _ in _tensors(found)):
        raise _claims_too_much(path, f"block {max(numbers, default=0)} in a tensor's name")


def _tensors(found: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor below `found` with its dotted name."""
    if isinstance(found, Tensor):
        yield name, found
    elif isinstance(found, dict):
        for key, value in found.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))
    elif isinstance(found, list | tuple):
        for index, value in enumerate(found):
            yield from _tensors(value, f"{name}[{index}]")


def _claims_too_much(path: Path, what: str) -> ModelError:
    return ModelError(
        f"{path}: {what} is more than a file of {path.stat().st_size:,} bytes can hold; nothing was loaded: the file "
        f"is damaged or hostile, get it from another place"
    )


def _would_run(path: Path, error: Exception) -> ModelError:
    found = re.search(r"GLOBAL (\S+)", str(error))
    named = found[1] if found else ", ".join(_names_in(path))
    if not named:
        return ModelError(f"{path} is not a whole checkpoint (no pickle in it can be read): copy it again")
    return ModelError(
        f"{path} is a pickle that asks for {named[:200]}, which would run code; nothing was run. imgtx takes tensors "
        f"only: where you trust the file, save its state_dict() as .safetensors elsewhere (docs/guides/your-models.md)"
    )


def _names_in(path: Path) -> list[str]:
    """Return the names that a bare pickle would import, without running it."""
    names: list[str] = []
    texts: list[str] = []
    try:
        with path.open("rb") as file:
            for code, argument, _ in pickletools.genops(file):
                if code.name == "GLOBAL":
                    names.append(str(argument).replace(" ", "."))
                elif code.name == "STACK_GLOBAL":
                    names.append(".".join(texts[-2:]))
                elif isinstance(argument, str):
                    texts.append(argument)
    except Exception:
        # Not a bare pickle, or a damaged one: what was read so far is all that can be said.
        return names
    return names
