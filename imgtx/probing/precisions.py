"""What a precision and a layout save in seconds and cost in exactness, measured on one tile; which of them to take."""

import math
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from imgtx.errors import first_line
from imgtx.models.contract import ImageModel

# dB against float32: the error is then at most that of rounding to 8 bits.
EXACT_DB = 50.0
# Levels of 255 by which channels-last may change a pixel.
LAYOUT_LEVELS = 0.5
# Speed-up from which another precision or layout is chosen.
WORTH = 1.1
ROUNDS = 3


def measure_precisions(model: ImageModel, tile: Tensor) -> dict[str, dict[str, Any]]:
    """Measure each precision: seconds per input megapixel and dB against float32, or why it does not run.

    Modules also in channels-last: seconds, and by how many levels of 255 that layout moves a pixel.
    """
    exact = run_once(model, tile, "float32")
    found: dict[str, dict[str, Any]] = {
        "float32": {"seconds_per_megapixel": _seconds(model, tile, "float32")}
        | _in_channels_last(model, tile, "float32", exact)
    }
    for name in ("bfloat16", "float16"):
        if name == "float16" and tile.device.type == "cpu":
            found[name] = {"fails": "for GPUs: on a CPU it is many times slower than float32"}
            continue
        try:
            output = run_once(model, tile, name)
        except RuntimeError as error:
            found[name] = {"fails": first_line(error)}
            continue
        if not torch.isfinite(output).all():
            found[name] = {"fails": "its output is not finite"}
            continue
        found[name] = {"seconds_per_megapixel": _seconds(model, tile, name), "db": decibels(output, exact)}
        found[name] |= _in_channels_last(model, tile, name, output)
    return found


def _in_channels_last(model: ImageModel, tile: Tensor, precision: str, plain: Tensor) -> dict[str, float]:
    """Measure seconds and levels of the other layout; {} if not a module. The model keeps the layout it had."""
    if not isinstance(model, nn.Module):
        return {}
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's hints lack it
    last = tile.contiguous(memory_format=torch.channels_last)
    seconds, gap = _seconds(model, last, precision), (run_once(model, last, precision) - plain).abs().max()
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # the same
    return {
        "channels_last_seconds_per_megapixel": seconds,
        "channels_last_levels": round(float(gap) * 255, 4),
    }


def choose_fastest(precisions: dict[str, dict[str, Any]]) -> tuple[str, bool]:
    """Return the fastest precision that is exact enough, and whether to run it in channels-last.

    Precisions are compared in their better layouts. What gains less than WORTH stays float32, and contiguous.
    """
    layouts = {n: _layout(f) for n, f in precisions.items() if n == "float32" or f.get("db", 0) >= EXACT_DB}
    fast = min(layouts, key=lambda name: layouts[name][0])
    if layouts[fast][0] * WORTH > layouts["float32"][0]:
        fast = "float32"
    return fast, layouts[fast][1]


def _layout(found: dict[str, Any]) -> tuple[float, bool]:
    """Return the seconds per megapixel in the layout to take, and whether that is channels-last."""
    plain, last = found["seconds_per_megapixel"], found.get("channels_last_seconds_per_megapixel", math.inf)
    taken = last * WORTH < plain and found["channels_last_levels"] <= LAYOUT_LEVELS
    return (last, True) if taken else (plain, False)


def _seconds(model: ImageModel, tile: Tensor, precision: str) -> float:
    """Per input megapixel, the median of ROUNDS calls after one."""
    times = [clock(lambda: run_once(model, tile, precision), tile.device) for _ in range(ROUNDS + 1)][1:]
    return round(median(times) / (tile.shape[-1] * tile.shape[-2] / 1e6), 3)


def clock(
    work: Callable[[], Any], device: torch.device, timer: Callable[[], float] = time.perf_counter
) -> float:
    """Return the seconds that `work` takes, to its end on a GPU too."""
    started = timer()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return timer() - started


def decibels(output: Tensor, exact: Tensor) -> float:
    """Return the PSNR in dB of an output in [0, 1] against the exact one; 99.9 where they are equal."""
    squared = float(((output - exact) ** 2).mean())
    return round(10 * math.log10(1 / squared), 1) if squared > 0 else 99.9


def run_once(model: ImageModel, tile: Tensor, precision: str) -> Tensor:
    """Call the model once, as `imgtx.inference.predictor` does, and return float32."""
    reduced = precision != "float32"
    with torch.autocast(
        tile.device.type, dtype=getattr(torch, precision) if reduced else None, enabled=reduced
    ):
        return model(tile, None).float()
