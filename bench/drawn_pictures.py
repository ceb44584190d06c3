"""Pictures of what photographs show too little of, for training super-resolution: text, facades, fences, floors, lines,
comics, charts and windows of programs.

python -m bench.drawn_pictures FONTS PHOTOS OUT --count 16 --seed 1 [--kinds text facade] [--held-out]

FONTS is a folder of .ttf, .otf and .ttc files, of any depth; PHOTOS one of pictures that serve as grounds. Each picture
is four panels of 512 pixels of one kind. Everything is a function of the seed, the fonts, the photos and Pillow's
version. A sixth of the families of fonts is kept for validation (`--held-out`): no picture for training uses them.
"""

import argparse
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from bench.drawn.artist import Artist
from bench.drawn.letters import Fonts
from bench.drawn.lines import comic, hatching
from bench.drawn.screens import chart, screen
from bench.drawn.structures import facade, fence, floor
from bench.drawn.text import page, scatter, sign
from bench.drawn.tools import PANEL

# The panels of a picture are taken from these in turn.
KINDS: dict[str, tuple[Callable[[Artist, np.random.Generator], Image.Image], ...]] = {
    "text": (page, scatter, scatter, sign),
    "facade": (facade,),
    "structure": (fence, floor),
    "lines": (hatching,),
    "comic": (comic,),
    "screen": (chart, screen),
}


def picture(artist: Artist, kind: str, rng: np.random.Generator) -> Image.Image:
    """Four panels of a kind, twice two."""
    whole = Image.new("RGB", (2 * PANEL, 2 * PANEL))
    makers = KINDS[kind]
    first = int(rng.integers(len(makers)))
    for number in range(4):
        panel = makers[(first + number) % len(makers)](artist, rng)
        whole.paste(panel, (PANEL * (number % 2), PANEL * (number // 2)))
    return whole


def generator(seed: int, kind: str, number: int) -> np.random.Generator:
    return np.random.default_rng((seed, zlib.crc32(kind.encode()), number))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("fonts", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=16, help="pictures of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--held-out", action="store_true", help="only with the fonts kept for validation")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    photos = [path for path in sorted(given.photos.iterdir()) if path.suffix in (".png", ".webp")]
    artist = Artist(Fonts(given.fonts, held_out=given.held_out), photos)
    for kind in given.kinds:
        for number in range(given.count):
            made = picture(artist, kind, generator(given.seed, kind, number))
            made.save(given.out / f"{kind}-{given.seed}-{number}.webp", lossless=True, method=2, exact=True)


if __name__ == "__main__":
    main()
