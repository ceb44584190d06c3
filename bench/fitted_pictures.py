"""Draw photos by weights that were fitted to one style each: docs/images/stylize-fitted.jpg.

python -m bench.fitted_pictures PHOTO [PHOTO ...] --model style-munch --model style-hokusai
"""

import argparse
from pathlib import Path

import imgtx
from imgtx.codecs import decode
from imgtx.imageops.resize import imresize
from jobs.style.sheet import grid

OUTPUT = Path(__file__).parents[1] / "docs" / "images" / "stylize-fitted.jpg"
# Pixels of the longer side.
SIDE = 384


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--model", action="append", required=True)
    options = parser.parse_args()
    painters = {name: imgtx.load(name) for name in options.model}
    rows = []
    for path in options.photos:
        pixels = decode(path.read_bytes(), max_pixels=10**8).pixels
        photo = imresize(pixels, SIDE / max(pixels.shape[:2]))
        rows.append([(path.stem, photo), *((name, paint(photo)) for name, paint in painters.items())])
    grid(rows).save(OUTPUT, quality=84)
    print(f"{OUTPUT}: {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
