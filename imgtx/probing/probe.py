"""Measure what no file says of a model: the grid and halo of its tiles, its speed, memory and precisions.

    seams       tiled against untiled output on photos, at growing halos and grids, until they are equal
    batches     whether a batch equals its images one by one
    precisions  what bfloat16 and float16 cost in dB and save in seconds; where they fail, why
    memory      at two sizes, because attention over everything grows faster than the image
    largest     the largest tile that ran (CUDA), or that a core's share of the memory should hold (CPU)

All of one device. What follows for a run goes into the model's info; the rest is shown to the user.
"""

import gc
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from imgtx.degradations.holes import random_mask
from imgtx.errors import UsageError
from imgtx.imageops.holes import with_mask
from imgtx.inference.memory import is_out_of_memory
from imgtx.memory import return_freed_memory
from imgtx.models.contract import Conditions, ImageModel, call_model
from imgtx.models.info import ModelInfo
from imgtx.probing.halo import measure_halo
from imgtx.probing.one_style import needing_nothing
from imgtx.probing.precisions import choose_fastest, measure_precisions

# Pixels.
HALOS = (16, 32, 64)
# Tried for a model with a large but limited reach; half of its tiles is halo then.
WIDEST_HALO = 128
# Factors of the multiple that the model declares.
GRIDS = (1, 2, 4, 8)
LARGEST_GRID = 64
# Pixels a side: a photo must be larger than one tile of 256.
MIN_PHOTO = 336
# Pixels: no halo is enough for a model that reaches further.
FAR = 128
# Pixels a side, for speed and for memory.
SPEED_SIDE = 192
SIDES = (128, 320)
LARGEST_SIDE = 4096


@dataclass(frozen=True)
class Probe:
    """`info` with the measured facts in it; `measured` is everything, for JSON and for users."""

    info: ModelInfo
    measured: dict[str, Any]


def probe(
    model: ImageModel, photos: Sequence[np.ndarray], *, device: str = "cpu", levels: float = 1.0
) -> Probe:
    """Measure `model`, which is moved to `device`, on photos: (H, W, 3) uint8, MIN_PHOTO a side or more.

    levels: how much of 255 tiled output may differ from untiled output; 1 is what imgtx promises of its own models.
    Raises UsageError for photos that are too few or too small.
    """
    _check_photos(photos)
    model = needing_nothing(model)
    info = model.info
    if isinstance(model, nn.Module):
        model.to(device).eval()
    samples = [_as_model_sees(photo, info) for photo in photos]
    with torch.inference_mode():
        tile = _tensor(samples[0][:SPEED_SIDE, :SPEED_SIDE], info.multiple, device)
        # Memory that a first call leaves behind must not count for any size.
        model(tile, None)
        memory = {
            side: memory_of(model, _tensor(samples[0][:side, :side], info.multiple, device)) for side in SIDES
        }
        precisions = measure_precisions(model, tile)
        equal = batch_difference(model, samples[0], device)
        steady = bool(torch.equal(model(tile, None), model(tile, None)))
        fast, channels_last = choose_fastest(precisions)
        seams = find_seams(model, samples, device, levels)
        if not seams["within"] and far_reach(model, samples[0], device) < levels:
            wider = find_seams(model, samples, device, levels, halos=(WIDEST_HALO,))
            seams = wider | {"tried": seams["tried"] + wider["tried"]}
        whole = None if seams["within"] else why_untiled(model, far_reach(model, samples[0], device))
        largest = largest_side(model, samples[0], memory, device)
    runs = tuple(name for name, found in precisions.items() if "seconds_per_megapixel" in found)
    facts = replace(
        info,
        multiple=seams["multiple"] if seams["within"] else info.multiple,
        halo=seams["halo"],
        untiled=0 if seams["within"] else largest["side"] ** 2,
        largest=largest["side"] if seams["within"] else 0,
        dtypes=runs,
        fast=fast,
        batches=equal <= 0.5,
        channels_last=channels_last,
    )
    return Probe(
        facts,
        {
            "device": device_name(device),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "seams": seams,
            "not_tileable_because": whole,
            "precisions": precisions,
            "batch_difference_levels": round(equal, 4) if math.isfinite(equal) else None,
            "repeats_exactly": steady,
            "memory_mb": {f"{side} px": value for side, value in memory.items()},
            "memory_mb_per_megapixel": memory_per_megapixel(model, samples[0], memory),
            "largest_tile": largest,
        },
    )


@dataclass
class _OnGrid:
    """The model with another multiple in its info: its tiles begin on that grid."""

    model: ImageModel
    info: ModelInfo

    def __post_init__(self) -> None:
        if look_at := getattr(self.model, "look_at", None):
            self.look_at = look_at

    def prepare(self, conditions: dict[str, Any]) -> Any:
        return self.model.prepare(conditions)

    def __call__(self, batch: Tensor, state: Any, rows: Sequence[Conditions] = ()) -> Tensor:
        return call_model(self.model, batch, state, rows)


def find_seams(
    model: ImageModel,
    samples: Sequence[np.ndarray],
    device: str,
    levels: float,
    halos: Sequence[int] = HALOS,
) -> dict[str, Any]:
    """Find the first halo, and for it the smallest grid, at which no seam shows; else the closest ones."""
    multiple = model.info.multiple
    grids = [multiple * times for times in GRIDS if times == 1 or multiple * times <= LARGEST_GRID]
    tried: list[dict[str, Any]] = []
    for least in halos:
        for grid in grids:
            found = _seam(model, samples[:1], grid, least, device)
            # Photos and their corners differ: all of them must agree.
            if found["levels"] <= levels:
                found = _seam(model, samples, grid, least, device, whole=True)
            tried.append(found)
            if found["levels"] <= levels:
                return found | {"within": True, "allowed_levels": levels, "tried": tried}
    best = min(tried, key=lambda found: found["levels"])
    return best | {"within": False, "allowed_levels": levels, "tried": tried}


def _seam(
    model: ImageModel,
    samples: Sequence[np.ndarray],
    grid: int,
    least: int,
    device: str,
    whole: bool = False,
) -> dict[str, Any]:
    """Tiled against untiled output at one grid and halo: on a corner with one seam each way, or on `whole` samples."""
    halo = -(-least // grid) * grid
    tile = 2 * halo + max(64, 2 * halo, grid) // grid * grid
    # the second tile begins on an odd multiple of the grid: on an even one a coarser grid's seam would not show
    side = tile + (max(1, 48 // grid) | 1) * grid
    if whole:
        side = max(side, *(min(sample.shape[:2]) for sample in samples))
    images = [_grown(sample, side) for sample in samples]
    on_grid = _OnGrid(model, replace(model.info, multiple=grid))
    (difference,) = measure_halo(on_grid, images, candidates=[halo], device=device).differences
    return {"multiple": grid, "halo": halo, "levels": round(difference.as_float * 255, 3)}


def far_reach(model: ImageModel, sample: np.ndarray, device: str) -> float:
    """Return by how many levels of 255 a change FAR pixels away moves a pixel at most."""
    near = _grown(sample, 3 * FAR)
    changed = near.copy()
    # A mask beside them is unchanged.
    colours = slice(0, 3)
    changed[:, 2 * FAR :, colours] = 255 - changed[:, 2 * FAR :, colours]
    outputs = [model(_tensor(image, model.info.multiple, device), None) for image in (near, changed)]
    return float((outputs[0] - outputs[1]).abs()[..., : FAR * model.info.scale].max()) * 255


def why_untiled(model: ImageModel, far: float) -> str:
    """Say in a sentence what far-away changes do, and which layers may carry them."""
    layers = sorted({type(m).__name__ for m in _modules(model) if _is_global(m)})
    named = f", perhaps through {', '.join(layers)}" if layers else ""
    if far > 1:
        return f"a change {FAR} px away moves a pixel by {far:.1f} of 255: it looks at the whole image{named}"
    return f"no halo of up to {WIDEST_HALO} px and no grid of up to {LARGEST_GRID} px hides its tiles{named}"


def _is_global(module: nn.Module) -> bool:
    pooled = isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d)
    return pooled or isinstance(module, nn.InstanceNorm2d | nn.GroupNorm)


def _modules(model: ImageModel) -> list[nn.Module]:
    return list(model.modules()) if isinstance(model, nn.Module) else []


def batch_difference(model: ImageModel, sample: np.ndarray, device: str) -> float:
    """Return by how many levels of 255 three images in one batch differ from each alone; infinite if they fail."""
    side = -(-64 // model.info.multiple) * model.info.multiple
    parts = [_tensor(sample[top : top + side, :side], model.info.multiple, device) for top in (0, 40, 80)]
    alone = torch.cat([model(part, None) for part in parts])
    info = model.info
    try:
        # Otherwise an unmeasured model would split its batches.
        model.info = replace(info, batches=True)
        together = model(torch.cat(parts), None)
    except (RuntimeError, AssertionError, ValueError):
        return math.inf
    finally:
        model.info = info
    return float((alone - together).abs().max()) * 255 if alone.shape == together.shape else math.inf


def memory_of(model: ImageModel, tile: Tensor) -> float | None:
    """Return megabytes at the peak of one call beyond those before it; None where this system does not say."""
    return memory_during(lambda: model(tile, None), tile.device)


def memory_during(work: Callable[[], Any], device: torch.device) -> float | None:
    """Return megabytes at the peak of `work` beyond those before it; None where this system does not say."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return round((torch.cuda.max_memory_allocated() - before) / 1e6, 1)
    gc.collect()
    try:
        # Otherwise the call may reuse memory of earlier ones.
        return_freed_memory()
        # Linux: reset the peak.
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        work()
        return round(max(0, _status("VmHWM") - before) / 1e3, 1)
    except (OSError, AttributeError):
        return None


def memory_per_megapixel(
    model: ImageModel, sample: np.ndarray, memory: dict[int, float | None]
) -> float | None:
    """Return megabytes per input megapixel of the larger of the two measured calls; None if memory was not measured."""
    side = max(SIDES)
    megabytes = memory[side]
    if megabytes is None:
        return None
    pixels = _tensor(sample[:side, :side], model.info.multiple, "cpu")[0, 0].numel()
    return round(megabytes / (pixels / 1e6), 1)


def largest_side(
    model: ImageModel, sample: np.ndarray, memory: dict[int, float | None], device: str
) -> dict[str, Any]:
    """Return the side of the largest square tile: on CUDA tried, on a CPU computed from two measured peaks."""
    if torch.device(device).type == "cuda":
        side = MIN_PHOTO // 2
        while side < LARGEST_SIDE and _fits(model, sample, 2 * side, device):
            side *= 2
        return {"side": side, "by": "trial"}
    small, large = (memory[side] or 0.0 for side in SIDES)
    budget = memory_for_one_core()
    if not (0 < small < large) or budget is None:
        return {"side": 1024, "by": "default, because memory could not be measured"}
    # twice the side is four times the pixels: attention over everything then takes sixteen times the memory
    power = min(max(math.log(large / small) / math.log((SIDES[1] / SIDES[0]) ** 2), 1.0), 2.0)
    pixels = SIDES[1] ** 2 * (budget / large) ** (1 / power)
    side = int(min(max(math.sqrt(pixels), SIDES[1]), LARGEST_SIDE))
    return {"side": side, "by": f"half of a core's share of free memory, {budget:.0f} MB; power {power:.2f}"}


def _fits(model: ImageModel, sample: np.ndarray, side: int, device: str) -> bool:
    try:
        model(_tensor(_grown(sample, side), model.info.multiple, device), None)
        torch.cuda.synchronize()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        torch.cuda.empty_cache()
        return False
    return True


def memory_for_one_core() -> float | None:
    """Return megabytes: half of what is free now, shared by the cores, as a run's actors share it."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    free = next((int(line.split()[1]) for line in lines if line.startswith("MemAvailable")), None)
    return None if free is None else free / 1e3 / 2 / (os.cpu_count() or 1)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def _tensor(image: np.ndarray, multiple: int, device: str) -> Tensor:
    """(H, W, C) uint8 -> (1, C, H', W') in [0, 1], cut to whole multiples."""
    height, width = (max(multiple, side // multiple * multiple) for side in image.shape[:2])
    pixels = np.ascontiguousarray(_grown(image, max(height, width))[:height, :width].transpose(2, 0, 1))
    return torch.from_numpy(pixels)[None].to(device).float() / 255


def _grown(image: np.ndarray, side: int) -> np.ndarray:
    """Return the image's first `side` pixels each way, mirrored where it is smaller."""
    missing = [(0, max(0, side - length)) for length in image.shape[:2]]
    return np.ascontiguousarray(np.pad(image, (*missing, (0, 0)), "symmetric")[:side, :side])


def _as_model_sees(photo: np.ndarray, info: ModelInfo) -> np.ndarray:
    """Return an (H, W, 3) photo as the model gets it: (H, W, 1, 3 or 4), by `inference.channels` or with holes."""
    if info.masks:
        return with_mask(
            photo, random_mask(np.random.default_rng(0), photo.shape[0], photo.shape[1], "medium")
        )
    if info.in_channels == 1:
        return np.ascontiguousarray(photo[:, :, 1:2])
    if info.in_channels == 4:
        return np.concatenate([photo, np.full_like(photo[:, :, :1], 255)], axis=2)
    return photo


def sample_of(photo: np.ndarray, info: ModelInfo, side: int) -> np.ndarray:
    """(H, W, 3) uint8 -> (side, side, C) as the model sees it."""
    return _grown(_as_model_sees(photo, info), side)


def device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else "cpu"


def _check_photos(photos: Sequence[np.ndarray]) -> None:
    fit = [p for p in photos if p.dtype == np.uint8 and p.shape[2:] == (3,) and min(p.shape[:2]) >= MIN_PHOTO]
    if not photos or len(fit) < len(photos):
        raise UsageError(
            f"a probe was given {len(photos)} photos of which {len(fit)} fit: expected 8-bit RGB photos of "
            f"{MIN_PHOTO} px a side or more; give --photos a folder of such"
        )
