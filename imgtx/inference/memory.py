"""How much goes through a model in one call, and what to lower when memory runs out."""

import torch

from imgtx.errors import ImageError
from imgtx.inference.tiling import smallest_tile
from imgtx.memory import memory_at_hand
from imgtx.models.info import ModelInfo

# Most input pixels in one call of the model, however much memory there is.
MAX_CALL_PIXELS = 64 * 2**20
# What a call needs per input pixel, for the first guess at a batch. The dense x2 model needs 1,900 to 3,400 bytes in
# float32, measured on a CPU; where the guess is wrong on CUDA, memory pressure corrects it.
BYTES_PER_PIXEL = 4096
# On a CPU the kernel kills the process instead: below so much memory a call takes no more than a quarter of it.
SMALL_MEMORY = 4 << 30
OUT_OF_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


def affordable_pixels(device: torch.device) -> int:
    """Return the input pixels for one call: on a GPU so that half of its free memory is left alone."""
    if device.type != "cuda":
        # By what there is in all, not what is free now: the same tiles, and so the same pixels, at every start.
        memory = memory_at_hand()
        small = memory is not None and memory.total < SMALL_MEMORY
        return max(1, memory.total // 4 // BYTES_PER_PIXEL) if small and memory else MAX_CALL_PIXELS
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, min(MAX_CALL_PIXELS, free // 2 // BYTES_PER_PIXEL))


def is_out_of_memory(error: Exception) -> bool:
    """Return whether memory ran out: on CUDA, in torch's CPU allocator, or in Python."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return any(words in str(error).lower() for words in OUT_OF_MEMORY_WORDS)


def lowered_settings(
    info: ModelInfo, tile: int, failed: tuple[int, int, int], device: str
) -> tuple[int, int]:
    """Return the tile side and the pixels per call to use from now on: half the batch, or else half the tile.

    `failed` is the call that did not fit: count, height and width of its tiles, in input pixels. Raises
    ImageError("out_of_memory") when a single tile of the smallest size did not fit.
    """
    count, height, width = failed
    smallest = smallest_tile(info)
    if count > 1:
        return tile, count // 2 * height * width
    if max(height, width) > smallest and not info.untiled:
        half = max(height, width) // 2 // info.multiple * info.multiple
        return max(smallest, half), height * width // 2
    why = "this model cannot be tiled" if info.untiled else f"below {smallest} px they are mostly halo"
    raise ImageError(
        "out_of_memory",
        f"{ran_out(failed, device)}, and smaller tiles would not help ({why}): "
        "free memory on this machine, run fewer workers on it, or use a smaller model",
    )


def ran_out(failed: tuple[int, int, int], device: str) -> str:
    """Return in words which call did not fit."""
    count, height, width = failed
    return f"memory ran out on {device} at {count} tiles of {height} x {width}"
