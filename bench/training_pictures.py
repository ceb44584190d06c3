"""The pictures that super-resolution is trained on, as folders of lossless files, and validation sets of each kind.

python -m bench.training_pictures DATA WALLPAPERS FONTS OUT

DATA has photos/train, photos/valid, photos/more, paintings and emoji; WALLPAPERS the files of Debian's packages
lomiri-wallpapers-16.04 and -20.04; FONTS fonts of Debian's packages, of any depth. OUT/train becomes one folder:
photos, paintings, mosaics of emoji, and a fifth of pictures that `bench.drawn_pictures` draws. OUT/valid has a folder
for each kind: photos, cities, text, lineart, screens, paintings; OUT/valid/mixed has some of them, for the curve.

Cities are held out by scene: several pictures of photos/more come from one panorama. Its variants of the wallpapers
are left out, for those are trained on already. Text and line art for validation are drawn with other fonts, on photos
that are not trained on.
"""

import shutil
import sys
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

from bench.drawn.artist import Artist
from bench.drawn.letters import Fonts
from bench.drawn.tools import PANEL
from bench.drawn_pictures import generator, picture
from bench.sr_pictures import (
    HELD_OUT,
    PAINTING_REDUCED,
    WALLPAPER_SIDE,
    WALLPAPERS,
    mosaic,
    reduced,
    save,
    tiles,
)

SEED = 2027
CITIES = (
    "dc_city_dc-rowhouses", "dc_city_u-street-metro", "polyhaven_cambridge", "polyhaven_canary_wharf",
    "polyhaven_leadenhall_market", "polyhaven_schadowplatz", "polyhaven_ulmer_muenster", "polyhaven_urban_alley_01",
    "wp_cc0_hotel-facade",
)  # fmt: skip
VARIANTS = "lomiri_"
MOSAICS = 12
# Procedural pictures of each kind, four panels each: for training, and for validation by its folder.
DRAWN = {"text": 32, "facade": 20, "structure": 14, "lines": 12, "comic": 14, "screen": 12}
DRAWN_VALID = {"text": {"text": 3}, "lineart": {"comic": 2, "lines": 1}, "screens": {"screen": 2}}
MIXED = {"photos": 4, "cities": 4, "text": 2, "lineart": 2}


def main(data: Path, wallpapers: Path, fonts: Path, out: Path) -> None:
    train, valid = out / "train", out / "valid"
    for folder in (
        train,
        *(valid / name for name in ("photos", "cities", "paintings", "mixed", *DRAWN_VALID)),
    ):
        folder.mkdir(parents=True)
    for path in sorted((data / "photos/train").iterdir()):
        shutil.copy(path, train)
    for path in sorted((data / "photos/valid").iterdir()):
        shutil.copy(path, valid / "photos")
    for path in sorted((data / "photos/more").glob("*.webp")):
        if not path.name.startswith(VARIANTS):
            shutil.copy(path, valid / "cities" if path.name.startswith(CITIES) else train)
    # Photos only: what follows is drawn or painted.
    grounds = sorted(train.iterdir())
    for path in sorted((data / "paintings").glob("*.jpg")):
        painting = Image.open(path)
        if min(painting.size) > PANEL * 3 // 4:
            folder = valid / "paintings" if path.stem in HELD_OUT else train
            save(reduced(painting, PAINTING_REDUCED), folder, path.stem)
    for name in WALLPAPERS:
        photo = Image.open(wallpapers / f"{name}.jpg")
        # At least by half: little is left of JPEG's blocks.
        factor = max(2.0, max(photo.size) / WALLPAPER_SIDE)
        for number, tile in enumerate(tiles(reduced(photo, factor))):
            save(tile, train, f"{name}-{number}")
    emoji = pq.read_table(data / "emoji/emoji72.parquet", columns=["image"])["image"]
    for number in range(MOSAICS):
        save(mosaic(emoji, generator(SEED, "mosaic", number)), train, f"mosaic-{number}")
    artist = Artist(Fonts(fonts, held_out=False), grounds)
    for kind, count in DRAWN.items():
        for number in range(count):
            save(picture(artist, kind, generator(SEED, kind, number)), train, f"drawn-{kind}-{number}")
    artist = Artist(Fonts(fonts, held_out=True), sorted((valid / "photos").iterdir()))
    for name, kinds in DRAWN_VALID.items():
        for kind, count in kinds.items():
            for number in range(count):
                whole = picture(artist, kind, generator(SEED, f"valid {kind}", number))
                for place, panel in enumerate(tiles(whole, -1.0)):
                    save(panel, valid / name, f"{kind}-{number}-{place}")
    for name, count in MIXED.items():
        paths = sorted((valid / name).iterdir())
        for path in paths[:: len(paths) // count][:count]:
            shutil.copy(path, valid / "mixed")
    for folder in (train, *sorted(valid.iterdir())):
        print(f"{folder.relative_to(out)}: {len(list(folder.iterdir()))} pictures")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:5]))
