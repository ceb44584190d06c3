"""Make the pictures that the packaged super-resolution weights were last trained on, as lossless files.

python -m bench.sr_pictures ../shared/data WALLPAPERS ../sr-pictures

Photos of one collection alone overfit the models to it (LOG.md), so others are added: public-domain paintings, six
held out; photos from Debian's packages lomiri-wallpapers-16.04 and -20.04 (CC0, CC BY, CC BY-SA), whose files are in
WALLPAPERS; mosaics of emoji and pages of text, for sharp edges. JPEG files are reduced first, which removes most of
their block artefacts. Validation is on photos and the paintings held out.
"""

import io
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageChops, ImageDraw, ImageFont

SEED = 2026
HELD_OUT = (
    "bruegel_harvesters", "caillebotte_nap", "hokusai_great_wave", "monet_sainte_adresse", "turner_venice",
    "van_gogh_bedroom",
)  # fmt: skip
# Photos with detail everywhere; the packages' other pictures are drawn, blurred or nearly flat.
WALLPAPERS = (
    "Bridge_by_Sander_Klootwijk", "Dragonfly_by_Bolly", "Picture_0B_by_freespace", "Picture_1A_by_freespace",
    "Wine_by_Jakkub_Mede", "aitzgorri_by_Aitzol_Berasategi", "friends_by_Aitzol_Berasategi",
    "greentock_by_Peter_Nerlich", "life_by_Aitzol_Berasategi", "picosdeeuropa_by_Aitzol_Berasategi",
    "seeding_by_Clements_Engelhardt", "sunset_by_Aitzol_Berasategi", "Kleiber_by_Lukas_Baubkus",
)  # fmt: skip
PAINTING_REDUCED, WALLPAPER_SIDE, TILE, FLATTEST = 1.5, 1536, 512, 4.0
MOSAICS, EMOJI, PAGES, VALID_PHOTOS = 12, 72, 8, 6
WORDS = (
    "archive", "camera", "darkroom", "emulsion", "film", "grain", "halide", "index", "jpeg", "ledger", "museum",
    "negative", "oxide", "plate", "quartz", "raster", "tintype", "unsharp", "vignette", "wax", "xerox", "yellow",
    "zinc", "1839", "1888", "1935", "No. 24", "(f/8)", "& 50 mm",
)  # fmt: skip


def main(data: Path, wallpapers: Path, out: Path) -> None:
    train, valid = out / "train", out / "valid"
    for folder in (train, valid):
        folder.mkdir(parents=True)
    rng = np.random.default_rng(SEED)
    for path in sorted((data / "photos/train").iterdir()):
        (train / path.name).write_bytes(path.read_bytes())
    for path in sorted((data / "photos/valid").iterdir())[:VALID_PHOTOS]:
        (valid / path.name).write_bytes(path.read_bytes())
    for path in sorted((data / "paintings").glob("*.jpg")):
        painting = Image.open(path)
        if min(painting.size) > TILE * 3 // 4:
            save(reduced(painting, PAINTING_REDUCED), valid if path.stem in HELD_OUT else train, path.stem)
    for name in WALLPAPERS:
        photo = Image.open(wallpapers / f"{name}.jpg")
        # At least by half.
        factor = max(2.0, max(photo.size) / WALLPAPER_SIDE)
        for number, tile in enumerate(tiles(reduced(photo, factor))):
            save(tile, train, f"{name}-{number}")
    emoji = pq.read_table(data / "emoji/emoji72.parquet", columns=["image"])["image"]
    for number in range(MOSAICS):
        save(mosaic(emoji, rng), train, f"mosaic-{number}")
    for number in range(PAGES):
        save(page(rng), train, f"page-{number}")
    print(*(f"{folder}: {len(list(folder.iterdir()))} pictures" for folder in (train, valid)), sep="\n")


def reduced(image: Image.Image, factor: float) -> Image.Image:
    width, height = (round(side / factor) for side in image.size)
    return image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)


def tiles(picture: Image.Image, flattest: float = FLATTEST) -> list[Image.Image]:
    """Return squares of TILE pixels side by side, without flat ones and the remainder at the right and bottom."""
    made = [
        picture.crop((left, top, left + TILE, top + TILE))
        for top in range(0, picture.height - TILE + 1, TILE)
        for left in range(0, picture.width - TILE + 1, TILE)
    ]
    return [tile for tile in made if slope(tile) > flattest]


def slope(tile: Image.Image) -> float:
    """Return the mean absolute difference of neighbours, in levels."""
    grey = np.asarray(tile.convert("L"), np.int16)
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean())


def mosaic(emoji: pa.ChunkedArray, rng: np.random.Generator) -> Image.Image:
    """Return 7 x 7 emoji with randomly tinted backgrounds."""
    picture = Image.new("RGB", (7 * EMOJI, 7 * EMOJI))
    for place in range(49):
        drawn = Image.open(io.BytesIO(emoji[int(rng.integers(len(emoji)))].as_py())).convert("RGB")
        tint = Image.new("RGB", drawn.size, colour(rng, 128, 256))
        picture.paste(ImageChops.multiply(drawn, tint), (EMOJI * (place % 7), EMOJI * (place // 7)))
    return picture


def page(rng: np.random.Generator) -> Image.Image:
    """Return lines of words in Pillow's own font, of many sizes, dark on light or light on dark."""
    ground, ink = colour(rng, 190, 256), colour(rng, 0, 90)
    if rng.random() < 0.3:
        ground, ink = ink, ground
    picture = Image.new("RGB", (TILE, TILE), ground)
    draw, top = ImageDraw.Draw(picture), 4.0
    while top < TILE:
        size = float(rng.uniform(9, 44))
        draw.text((4, top), " ".join(rng.choice(WORDS, 16)), ink, ImageFont.load_default(size))
        top += 1.3 * size
    return picture


def colour(rng: np.random.Generator, low: int, high: int) -> tuple[int, int, int]:
    red, green, blue = (int(level) for level in rng.integers(low, high, 3))
    return red, green, blue


def save(picture: Image.Image, folder: Path, name: str) -> None:
    picture.save(folder / f"{name}.webp", lossless=True, method=2, exact=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
