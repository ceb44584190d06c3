"""Restoration models in the formats of their makers and communities, through spandrel.

spandrel knows some forty architectures by the names and shapes of their tensors, and calls each as it was trained:
colour order, value range, noise maps. What it does not say, the window on which tiles must begin, is read off the
network; what cannot be read off, `imgtx.probing.probe` measures.
"""

import importlib
import inspect
import math
import sys
import types
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgtx.errors import ModelError, UsageError
from imgtx.models.adapters.base import Source
from imgtx.models.info import ModelInfo
from imgtx.models.weight_file import file_digest

# torch is imported only when a model is loaded: planning does not need it.
if TYPE_CHECKING:
    from torch import Tensor, nn

    from imgtx.models.contract import AdaptedModel

PREFIX = "spandrel"
# Also .safetensors, which imgtx's own weights use too.
SUFFIXES = (".pth", ".pt", ".ckpt")
IS_FOLDER = False
MARK = ""
folder_files = None
FORM = "spandrel:{path} for third-party weights"
DECLARES = False
facts = None
INSTALL = "pip install --no-deps spandrel==0.4.2 einops==0.8.2"
TASKS = {
    "SR": "super-resolution",
    "Restoration": "restoration",
    "FaceSR": "face-restoration",
    "Inpainting": "inpainting",
}
# Attributes in which networks keep the side of an attention window, in input pixels except in deeper stages.
WINDOWS = ("window_size", "split_size", "win_size")
# Networks that halve their image inside: their windows and convolutions are aligned to this grid of input pixels.
GRIDS = {"SCUNet": 64, "NAFNet": 16, "FBCNN": 8, "Uformer": 128, "KBNet": 16}
LARGEST_GRID = 256


def recognizes(path: Path) -> bool:
    """Return whether the suffix says weights; imgtx's own .safetensors are recognized before."""
    return path.suffix in SUFFIXES or (path.suffix == ".safetensors" and path.is_file())


def digest(source: Source) -> str:
    """Return the file's SHA-256 in hex."""
    return file_digest(source.path)


def load(source: Source, digest: str) -> "AdaptedModel":
    """Return the model that spandrel finds in a .pth, .pt, .ckpt or .safetensors file.

    Raises UsageError where spandrel is not installed, ModelError for a file that cannot be trusted or is of no
    architecture that spandrel knows.
    """
    from imgtx.models.adapters.checkpoint import licence_of, read_checkpoint
    from imgtx.models.contract import UNMEASURED_HALO, UNMEASURED_TILE, AdaptedModel, check_channels

    path, spandrel = source.path, import_spandrel()
    tensors = spandrel.canonicalize_state_dict(read_checkpoint(path))
    try:
        with warnings.catch_warnings():
            # torch warns of what spandrel's makers could change, and users cannot
            warnings.simplefilter("ignore")
            found = spandrel.ModelLoader().load_from_state_dict(tensors)
    except spandrel.UnsupportedModelError as error:
        raise ModelError(
            f"{path}: spandrel {spandrel.__version__} knows no architecture with these tensors (the first are "
            f"{', '.join(map(str, list(tensors)[:3]))}): see docs/guides/your-models.md for those it knows"
        ) from error
    except Exception as error:
        # Its networks assert, index and allocate as the file's shapes say.
        raise ModelError(
            f"{path} does not fit its own architecture ({type(error).__name__}: {str(error).strip()[:200]}): copy "
            f"it again, or give another file"
        ) from error
    check_channels(found.input_channels, found.output_channels, str(path))
    masks = isinstance(found, spandrel.MaskedImageModelDescriptor)
    info = ModelInfo(
        name=path.stem,
        task=TASKS[found.purpose],
        scale=found.scale,
        multiple=grid_of(found),
        halo=UNMEASURED_HALO,
        in_channels=found.input_channels + masks,
        out_channels=found.output_channels,
        largest=UNMEASURED_TILE,
        dtypes=("float32",),
        batches=False,
        licence=licence_of(path),
        masks=masks,
    )

    # spandrel's call without its own inference mode: `imgtx.inference.predictor` has one, and torch.compile fails in it
    run = inspect.unwrap(type(found).__call__)

    def call(batch: "Tensor") -> "Tensor":
        # cloned because some networks normalise their input in place
        if masks:
            return run(found, batch[:, :-1].clone(), batch[:, -1:].clone())
        return run(found, batch.clone())

    return AdaptedModel(found.model, call, info, digest, _record(found))


def convert(path: Path, target: Path) -> None:
    """Write the tensors of a file as safetensors; raises as `load` for a file that cannot be trusted."""
    from safetensors.torch import save_file
    from torch import Tensor

    from imgtx.models.adapters.checkpoint import licence_of, read_checkpoint

    tensors = import_spandrel().canonicalize_state_dict(read_checkpoint(path))
    whole = {name: t.detach().clone().contiguous() for name, t in tensors.items() if isinstance(t, Tensor)}
    # a single entry: the library writes several in any order, and the same tensors must give the same file
    save_file(whole, target, metadata={"license": licence_of(path)})


def grid_of(found: Any) -> int:
    """Return the input pixels on whose multiples tiles must begin for the network to see them as in the whole."""
    sides = [found.size_requirements.multiple_of, GRIDS.get(found.architecture.id, 1)]
    for module in found.model.modules():
        for name in WINDOWS:
            value = getattr(module, name, 1)
            sides += [
                side for side in (value if isinstance(value, list | tuple) else [value]) if type(side) is int
            ]
    grid = 1
    for side in sides:
        common = math.lcm(grid, max(1, side))
        grid = common if common <= LARGEST_GRID else grid
    return grid


def _record(found: Any) -> dict[str, Any]:
    """Return what `imgtx models show` prints beside the info."""
    needs = found.size_requirements
    return {
        "architecture": found.architecture.name,
        "tags": list(found.tags),
        "parameters": sum(p.numel() for p in found.model.parameters()),
        "size_rules": {"minimum": needs.minimum, "multiple_of": needs.multiple_of, "square": needs.square},
        "tiling": found.tiling.name.lower(),
        "half_precision": {"bfloat16": found.supports_bfloat16, "float16": found.supports_half},
    }


def import_spandrel() -> Any:
    """Return spandrel; UsageError with the command that installs it where it is missing."""
    if "spandrel" in sys.modules:
        return sys.modules["spandrel"]
    try:
        stand_in = None if _has_torchvision() else _stand_in()
        try:
            return importlib.import_module("spandrel")
        finally:
            for name in stand_in or ():
                # No other code may find the stand-in for torchvision.
                sys.modules.pop(name, None)
    except ImportError as error:
        raise UsageError(f"third-party models need spandrel ({error}): {INSTALL}") from error


def _has_torchvision() -> bool:
    """Return whether torchvision works here; beside a torch of another build its import fails with a RuntimeError."""
    try:
        importlib.import_module("torchvision.transforms.functional")
    except (ImportError, RuntimeError, AttributeError):
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        return False
    return True


def _stand_in() -> list[str]:
    """Put the two things that spandrel takes from torchvision in its place; return the modules' names.

    LaMa's `rotate` belongs to a variant that no published checkpoint has: it fails there in a sentence.
    """
    functional: Any = types.ModuleType("torchvision.transforms.functional")
    functional.normalize, functional.rotate, functional.InterpolationMode = _normalize, _no_rotate, None
    modules = {name: types.ModuleType(name) for name in ("torchvision", "torchvision.transforms")}
    sys.modules.update(modules | {functional.__name__: functional})
    return [*modules, functional.__name__]


def _normalize(image: "Tensor", mean: list[float], std: list[float], inplace: bool = False) -> "Tensor":
    """Subtract the mean of (..., C, H, W) and divide by std, channel by channel, as torchvision does."""
    import torch

    means, stds = (
        torch.tensor(v, dtype=image.dtype, device=image.device)[:, None, None] for v in (mean, std)
    )
    return image.sub_(means).div_(stds) if inplace else (image - means) / stds


def _no_rotate(*arguments: Any) -> "nn.Module":
    raise ModelError(
        "this network rotates with torchvision: install the torchvision that belongs to your torch"
    )
