"""Measure which packaged weights suit pictures saved as JPEG or WebP, and what the choice by the header gives.

    python -m bench.which_model [FOLDER ...] [--scales 2 3 4] [--precision bfloat16]

Pictures (by default Set14's) are reduced by Lanczos, saved, and enlarged by bicubic interpolation, by the weights for
clean pictures and by those for photos; x3 has none for photos: there x4's are used and the result reduced. The `auto`
column takes for each picture what `imgtx upscale` takes.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

import imgtx
from bench.report import machine, save
from imgtx.codecs import decode, read_header
from imgtx.imageops.metrics import psnr_y
from imgtx.imageops.resize import imresize, modcrop
from imgtx.models.choice import CLEAN, KINDS, PHOTO, kind_of, network_for

SET14 = Path("../shared/data/benchmarks/set14")
SAVED = (
    ("lossless", "PNG", {}),
    *((f"JPEG {quality}", "JPEG", {"quality": quality}) for quality in (98, 95, 92, 90, 85, 75, 50, 30)),
    *((f"WebP {quality}", "WEBP", {"quality": quality}) for quality in (95, 90, 75)),
)
SHORT = ("lossless", "JPEG 95", "JPEG 92", "JPEG 90", "JPEG 85", "JPEG 75", "JPEG 50")

Enlarge = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path, default=[SET14])
    parser.add_argument("--scales", nargs="+", type=int, default=[2, 3, 4])
    parser.add_argument("--saved", nargs="+", choices=[name for name, *_ in SAVED])
    parser.add_argument("--precision", default="float32")
    options = parser.parse_args()
    paths = [path for folder in options.folders for path in sorted(folder.iterdir()) if path.is_file()]
    photos = [modcrop(np.asarray(Image.open(path).convert("RGB")), 12) for path in paths]
    print(machine())
    rows, names = [], [name for name, *_ in SAVED]
    for scale in options.scales:
        methods = {kind: enlarger(kind, scale, options.precision) for kind in KINDS}
        print(f"x{scale}, PSNR-Y in dB of {len(photos)} pictures: {', '.join(map(str, options.folders))}")
        print(f"{'saved as':10} {'bicubic':>8} {CLEAN:>8} {PHOTO:>8} {'auto':>8}  pictures taken as {PHOTO}")
        for name, format, settings in SAVED:
            if name in (options.saved or (names if scale == 2 else SHORT)):
                row = {"scale": scale, "saved": name, **measure(photos, scale, format, settings, methods)}
                rows.append(row)
                values = " ".join(f"{row[key]:8.2f}" for key in ("bicubic", CLEAN, PHOTO, "auto"))
                print(f"{name:10} {values}  {row['photos']}", flush=True)
    save("which_model", {"pictures": len(photos), "precision": options.precision, "rows": rows})


def enlarger(kind: str, scale: int, precision: str) -> Enlarge:
    """Return a function from a picture to one `scale` times as large, by the packaged weights of a kind."""
    name, own = network_for(kind, scale)
    model = imgtx.load(name, device="cpu", precision=precision)

    def enlarge(small: np.ndarray) -> np.ndarray:
        large = model(small)
        height, width = small.shape[:2]
        return large if own == scale else imresize(large, size=(height * scale, width * scale))

    return enlarge


def measure(
    photos: list[np.ndarray], scale: int, format: str, settings: dict, methods: dict[str, Enlarge]
) -> dict[str, float | int]:
    """Return the mean PSNR-Y of each method, of the choice, and how many pictures were taken as photos."""
    found: dict[str, list[float]] = {name: [] for name in ("bicubic", *methods, "auto")}
    kinds = []
    for photo in photos:
        height, width = photo.shape[:2]
        file = io.BytesIO()
        reduced = Image.fromarray(photo).resize((width // scale, height // scale), Image.Resampling.LANCZOS)
        reduced.save(file, format, **settings)
        small = decode(file.getvalue(), max_pixels=10**9).pixels
        found["bicubic"].append(psnr_y(imresize(small, scale), photo, crop=scale))
        for name, enlarge in methods.items():
            found[name].append(psnr_y(enlarge(small), photo, crop=scale))
        kinds.append(kind_of(read_header(file.getvalue()).quality))
        found["auto"].append(found[kinds[-1]][-1])
    means = {name: round(float(np.mean(values)), 3) for name, values in found.items()}
    return {**means, "photos": kinds.count(PHOTO)}


if __name__ == "__main__":
    main()
