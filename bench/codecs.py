"""Measure milliseconds and bytes of every codec on one photo.

    python -m bench.codecs [--photo FILE]

CPU time of one thread, the median of several runs, all rows of a size from the same pixels. Ratios are
against the row that imgtx uses, from the same run: read them, not the milliseconds.
"""

import argparse
import io
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

# Before the imports: libvips reads it when it is first loaded.
os.environ.setdefault("VIPS_CONCURRENCY", "1")

import numpy as np
import PIL
import pyvips
from PIL import Image

from bench.report import machine, save
from imgtx.codecs import Picture, decode, encode

SIDES = (512, 2048)
# Each row is measured at least twice and for at least this long.
SECONDS_A_ROW = 0.25


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--photo", type=Path, default=Path(__file__).parents[1] / "examples/coffee.webp")
    options = arguments.parse_args()
    rows = []
    for side in SIDES:
        pixels = photo(options.photo, side)
        rows += encoders_table(pixels) + decoders_table(pixels)
    add_ratios(rows)
    print_table(rows)
    save("codecs", {"libraries": libraries(), "photo": options.photo.name, "rows": rows})


def photo(path: Path, side: int) -> np.ndarray:
    """Return the middle of the photo, enlarged to (side, side, 3) uint8 as by an upscaler."""
    with Image.open(path) as image:
        image = image.convert("RGB")
        cut = min(image.size)
        left, top = (image.width - cut) // 2, (image.height - cut) // 2
        square = image.crop((left, top, left + cut, top + cut))
        return np.asarray(square.resize((side, side), Image.Resampling.LANCZOS))


def encoders_table(pixels: np.ndarray) -> list[dict]:
    image, vips_image = Image.fromarray(pixels), pyvips.Image.new_from_array(pixels)
    picture, deep = pictures(pixels)
    deep_vips = pyvips.Image.new_from_array(deep.pixels).copy(interpretation="rgb16")
    encoders: dict[tuple[str, str], Callable[[], bytes]] = {
        ("PNG", "imgtx"): partial(_encoded, picture, "png", 95),
        ("PNG", "Pillow level 6"): partial(_pillow, image, "PNG"),
        ("PNG", "Pillow level 1"): partial(_pillow, image, "PNG", compress_level=1),
        ("PNG", "libvips level 1"): partial(vips_image.pngsave_buffer, compression=1),
        ("PNG", "libvips level 1, up"): partial(vips_image.pngsave_buffer, compression=1, filter="up"),
        ("PNG 16 bit", "imgtx"): partial(_encoded, deep, "png", 95),
        ("PNG 16 bit", "libvips level 1"): partial(deep_vips.pngsave_buffer, compression=1),
        ("TIFF", "imgtx"): partial(_encoded, picture, "tiff", 95),
        ("TIFF", "Pillow deflate"): partial(_pillow, image, "TIFF", compression="tiff_adobe_deflate"),
        ("JPEG q95", "imgtx"): partial(_encoded, picture, "jpeg", 95),
        ("JPEG q95", "libvips"): partial(vips_image.jpegsave_buffer, Q=95, subsample_mode="off"),
        ("WebP q90", "imgtx"): partial(_encoded, picture, "webp", 90),
        ("WebP q90", "Pillow method 4"): partial(_pillow, image, "WEBP", quality=90, method=4),
        ("WebP q90", "Pillow method 0"): partial(_pillow, image, "WEBP", quality=90, method=0),
        ("WebP lossless", "imgtx"): partial(_encoded, picture, "webp", 100),
        ("WebP lossless", "Pillow method 0"): partial(_pillow, image, "WEBP", lossless=True, method=0),
        ("BMP", "imgtx"): partial(_encoded, picture, "bmp", 95),
    }
    rows = []
    for (codec, by), encoder in encoders.items():
        kib, ms = len(encoder()) / 1024, milliseconds(encoder)
        rows.append(row("encode", codec, by, len(pixels), ms, kib))
    return rows


def decoders_table(pixels: np.ndarray) -> list[dict]:
    picture, deep = pictures(pixels)
    files = {
        "PNG": _encoded(picture, "png", 95),
        "PNG 16 bit": _encoded(deep, "png", 95),
        "JPEG q95": _encoded(picture, "jpeg", 95),
        "WebP q90": _encoded(picture, "webp", 90),
        "WebP lossless": _encoded(picture, "webp", 100),
        "TIFF": _encoded(picture, "tiff", 95),
        "BMP": _encoded(picture, "bmp", 95),
    }
    readers = {"imgtx": _by_imgtx, "libvips": _by_vips, "Pillow": _by_pillow}
    # libvips reads no BMP, and Pillow cuts 16-bit RGB to 8 bits.
    cannot = {("BMP", "libvips"), ("PNG 16 bit", "Pillow")}
    rows = []
    for codec, data in files.items():
        for by, read in readers.items():
            if (codec, by) not in cannot:
                ms = milliseconds(partial(read, data))
                rows.append(row("decode", codec, by, len(pixels), ms, len(data) / 1024))
    return rows


def pictures(pixels: np.ndarray) -> tuple[Picture, Picture]:
    """Return the photo in 8 bits and in 16."""
    deep = pixels.astype(np.uint16) * 257
    return Picture(pixels, None, b"", b"", "png", ()), Picture(deep, None, b"", b"", "png", ())


def _encoded(picture: Picture, format: str, quality: int) -> bytes:
    return encode(picture, format, quality=quality)[0]


def _pillow(image: Image.Image, format: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def _by_imgtx(data: bytes) -> np.ndarray:
    return decode(data, max_pixels=10**9).pixels


def _by_vips(data: bytes) -> np.ndarray:
    return pyvips.Image.new_from_buffer(data, "", access="sequential").numpy()


def _by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def milliseconds(work: Callable[[], object]) -> float:
    """Return the median CPU time, which other processes on the machine do not change."""
    taken: list[float] = []
    while len(taken) < 2 or (sum(taken) < SECONDS_A_ROW and len(taken) < 50):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return statistics.median(taken) * 1e3


def row(direction: str, codec: str, by: str, side: int, ms: float, kib: float) -> dict:
    return {
        "direction": direction,
        "codec": codec,
        "by": by,
        "side": side,
        "ms": round(ms, 2),
        "kib": round(kib),
    }


def add_ratios(rows: list[dict]) -> None:
    """Add `times`: the duration relative to that of imgtx in the same direction, codec and size."""
    own = {_job(row): row["ms"] for row in rows if row["by"] == "imgtx"}
    for row in rows:
        row["times"] = round(row["ms"] / own[_job(row)], 2)


def _job(row: dict) -> tuple[str, str, int]:
    return row["direction"], row["codec"], row["side"]


def print_table(rows: list[dict]) -> None:
    print(f"{machine()}, one thread; {libraries()}")
    for side in SIDES:
        print(f"\n{side} x {side}\n{'':7} {'codec':14} {'by':20} {'ms':>9} {'KiB':>7} {'times imgtx':>12}")
        for row in rows:
            if row["side"] == side:
                name = f"{row['direction']:7} {row['codec']:14} {row['by']:20}"
                print(f"{name} {row['ms']:9.2f} {row['kib']:7} {row['times']:12.2f}")


def libraries() -> str:
    """Name the versions that these numbers depend on."""
    libvips = ".".join(str(pyvips.version(part)) for part in range(3))
    return f"Pillow {PIL.__version__}, libvips {libvips}, numpy {np.__version__}"


if __name__ == "__main__":
    main()
