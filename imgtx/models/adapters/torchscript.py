"""TorchScript programs with a declared signature: `torchscript:PATH?scale=4&channels=3&multiple=8&range=255`.

An archive says nothing of its scale, channels or value range, so the user does. And it is a program: torch's own
documentation warns that loading one can run anything its maker wrote. That is why no suffix ever leads here, only the
prefix `torchscript:`, with which the user vouches for the maker.
"""

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from imgtx.errors import ModelError, UsageError, first_line
from imgtx.models.adapters.base import Source
from imgtx.models.info import ModelInfo
from imgtx.models.weight_file import file_digest

# torch is imported only when a model is loaded: planning does not need it.
if TYPE_CHECKING:
    from torch import Tensor

    from imgtx.models.contract import AdaptedModel

PREFIX = "torchscript"
SUFFIXES = ()
IS_FOLDER = False
MARK = ""
folder_files = None
FORM = "torchscript:{path}?scale=N for a program"
DECLARES = True
facts = None
convert = None

EXPECTED = "scale=N, and where they differ from these channels=3&out_channels=3&multiple=1&range=1"


@dataclass(frozen=True)
class Signature:
    """What is declared of a program: (B, channels, H, W) in [0, range] -> (B, out_channels, scale H, scale W).

    `multiple` is the number of pixels on whose multiples it takes H and W.
    """

    scale: int
    channels: int = 3
    out_channels: int = 0
    multiple: int = 1
    range: int = 1


def recognizes(path: Path) -> bool:
    """Return False: a program is run only where the user says that it is one."""
    return False


def digest(source: Source) -> str:
    """Return the SHA-256 in hex of the program and of what is declared of it."""
    parts = {"file": file_digest(source.path)} | source.declared
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def load(source: Source, digest: str) -> "AdaptedModel":
    """Return the program with its signature.

    Raises UsageError for a signature that cannot be, ModelError for a file that is no TorchScript archive.
    """
    import torch

    from imgtx.models.contract import UNMEASURED_HALO, UNMEASURED_TILE, AdaptedModel, check_channels

    path, declared = source.path, source.declared
    signature = read_signature(declared, path)
    check_channels(signature.channels, signature.out_channels, f"{path} as declared")
    try:
        program = torch.jit.load(path, map_location="cpu").eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise ModelError(
            f"{path} is not a whole TorchScript archive ({first_line(error)}): write it with "
            f"torch.jit.save, and copy it whole"
        ) from error
    task = "super-resolution" if signature.scale > 1 else "restoration"
    info = ModelInfo(
        name=path.stem,
        task=task,
        scale=signature.scale,
        multiple=signature.multiple,
        halo=-(-UNMEASURED_HALO // signature.multiple) * signature.multiple,
        in_channels=signature.channels,
        out_channels=signature.out_channels,
        largest=UNMEASURED_TILE,
        dtypes=("float32",),
        batches=False,
    )

    def call(batch: "Tensor") -> "Tensor":
        return program(batch * signature.range) / signature.range

    record = {
        "architecture": "TorchScript",
        "parameters": sum(p.numel() for p in program.parameters()),
        "size_rules": {"minimum": 0, "multiple_of": signature.multiple, "square": False},
        "signature": declared,
    }
    return AdaptedModel(program, call, info, digest, record)


def read_signature(declared: dict[str, str], path: Path) -> Signature:
    """Read whole numbers under the names of Signature; UsageError says which is wrong."""
    names = [field.name for field in fields(Signature)]
    if "scale" not in declared or set(declared) - set(names):
        given = "&".join(f"{name}={value}" for name, value in declared.items()) or "no signature"
        raise UsageError(f"torchscript:{path} came with {given}: expected torchscript:{path}?{EXPECTED}")
    for name, text in declared.items():
        if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 1024):
            raise UsageError(f"torchscript:{path}: {name}={text}: expected a whole number from 1 to 1024")
    signature = Signature(**{name: int(text) for name, text in declared.items()})
    if signature.range not in (1, 255):
        raise UsageError(f"torchscript:{path}: range={signature.range}: expected 1 or 255")
    return Signature(**(vars(signature) | {"out_channels": signature.out_channels or signature.channels}))
