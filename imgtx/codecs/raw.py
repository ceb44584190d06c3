"""Rectangles of a picture in a raw file: its rows one after the other, each (width, samples), and nothing else.

Plain reads and writes, never mapped, so that the pages do not count as the process's. A rectangle costs one of
them a row; whole rows go in one together.
"""

import os
from pathlib import Path

import numpy as np

from imgtx.imageops.geometry import Tile


def write_window(file: int, top: int, left: int, pixels: np.ndarray, width: int) -> None:
    """Lay `pixels` (rows, columns, ...) at (top, left) of the raw file of a picture `width` pixels wide."""
    pixels = np.ascontiguousarray(pixels)
    item = pixels.nbytes // (pixels.shape[0] * pixels.shape[1])
    runs = [pixels] if pixels.shape[1] == width else pixels
    for y, run in enumerate(runs):
        data, offset = run.data.cast("B"), ((top + y) * width + left) * item
        while data:
            written = os.pwrite(file, data, offset)
            data, offset = data[written:], offset + written


def read_window(path: Path, window: Tile, row: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """The inverse: (window.height, window.width, samples) from a raw file of rows (width, samples)."""
    width, samples = row
    pixels = np.empty((window.height, window.width, samples), dtype)
    runs = [pixels] if window.width == width else pixels
    with path.open("rb", buffering=0) as file:
        for y, run in enumerate(runs):
            view = run.reshape(-1).view(np.uint8).data
            offset = ((window.top + y) * width + window.left) * samples * dtype.itemsize
            while view:
                got = os.preadv(file.fileno(), [view], offset)
                if not got:
                    raise ValueError(f"{path.name} ends at byte {offset}, within {window}")
                view, offset = view[got:], offset + got
    return pixels
