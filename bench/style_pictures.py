"""Draw what the settings of style transfer do to one photo: docs/images/stylize-settings.jpg.

    python -m bench.style_pictures PHOTO STYLE [--model style]

The sheet docs/images/stylize.jpg is made by `imgtx style sheet`; docs/guides/stylize.md has the command.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import imgtx
from imgtx.codecs import decode
from imgtx.imageops.resize import imresize
from imgtx.inference.style_picture import open_style
from jobs.style.sheet import grid

OUTPUT = Path(__file__).parents[1] / "docs" / "images" / "stylize-settings.jpg"
# Pixels of the longer side.
SIDE = 320
SETTINGS = {
    "--strength 0.33": {"strength": 0.33},
    "--strength 0.67": {"strength": 0.67},
    "--strength 1": {},
    "--preserve-color": {"preserve_color": True},
    "--style-size 512": {"style_size": 512},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", type=Path)
    parser.add_argument("style", type=Path)
    parser.add_argument("--model", default="style")
    options = parser.parse_args()
    pixels = decode(options.photo.read_bytes(), max_pixels=10**8).pixels
    photo = imresize(pixels, SIDE / max(pixels.shape[:2]))
    stylise = imgtx.load(options.model)
    painted = open_style(options.style)
    shown = imresize(painted, photo.shape[0] / painted.shape[0])
    made = [(name, stylise(photo, style=painted, **settings)) for name, settings in SETTINGS.items()]
    cells: list[tuple[str, np.ndarray]] = [(options.style.stem, shown), ("photo", photo), *made]
    cells.append(("", np.full((1, 1, 3), 255, np.uint8)))
    grid([cells[:4], cells[4:]]).save(OUTPUT, quality=82)
    print(f"{OUTPUT}: {Image.open(OUTPUT).size}, {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
