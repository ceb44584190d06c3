"""Fonts by script, words that look like a script's, and words stamped on a picture."""

import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bench.drawn.tools import REDUCERS, Colour, Point, pick

# Share of the texts, and the letters to draw from.
SCRIPTS: dict[str, tuple[float, str]] = {
    "latin": (55, "aeiouybcdfghjklmnpqrstvwxzäöüéèßñçø"),
    "cyrillic": (9, "аеиоуыэюябвгджзклмнпрстфхцчшщ"),
    "greek": (6, "αβγδεζηθικλμνξοπρστυφχψω"),
    "han": (9, "".join(map(chr, range(0x4E00, 0x9FA0, 7)))),
    "kana": (5, "".join(map(chr, (*range(0x3042, 0x3094), *range(0x30A2, 0x30F5))))),
    "hangul": (5, "".join(map(chr, range(0xAC00, 0xD7A0, 13)))),
    "arabic": (3, "".join(map(chr, range(0x0627, 0x063B))) + "فقكلمنهوي"),
    "devanagari": (3, "".join(map(chr, range(0x0905, 0x093A)))),
    "hebrew": (2, "".join(map(chr, range(0x05D0, 0x05EB)))),
    "thai": (2, "".join(map(chr, range(0x0E01, 0x0E2F)))),
    "georgian": (1, "".join(map(chr, range(0x10D0, 0x10F1)))),
}
VOWELS = {"latin": 6, "cyrillic": 9}  # how many of the first letters; they alternate with the others
LATIN_RARE = 9  # how many of the last letters only few words have
WITH_NUMBERS = ("latin", "cyrillic", "greek", "han", "kana", "hangul")  # their fonts have digits
MANY_LETTERS = 60  # of a script with short words
SUFFIXES = (".ttf", ".otf", ".ttc")


class Fonts:
    """The fonts of a folder by script: without the families kept for validation, or only those."""

    def __init__(self, folder: Path, *, held_out: bool):
        found = {path.name: path for path in sorted(folder.rglob("*")) if path.suffix in SUFFIXES}
        paths = [path for path in found.values() if kept_out(path) == held_out and not path.is_symlink()]
        self._paths = {
            script: [path for path in paths if covers(path, letters)]
            for script, (_, letters) in SCRIPTS.items()
        }
        self._scripts = [script for script, usable in self._paths.items() if usable]
        shares = np.array([SCRIPTS[script][0] for script in self._scripts], float)
        self._shares = shares / shares.sum()

    def script(self, rng: np.random.Generator) -> str:
        return str(rng.choice(self._scripts, p=self._shares))

    def path(self, script: str, rng: np.random.Generator) -> Path:
        paths = self._paths[script]
        return paths[int(rng.integers(len(paths)))]


def kept_out(path: Path) -> bool:
    """Whether a font's family is for validation: by its name up to the first hyphen, all weights alike."""
    return zlib.crc32(path.stem.split("-")[0].lower().encode()) % 6 == 0


def covers(path: Path, letters: str) -> bool:
    """Whether a font has the letters: some of them differ from each other and from the sign for what is missing."""
    try:
        font = ImageFont.truetype(str(path), 20)
        drawn = {bytes(font.getmask(letter)) for letter in letters[:: max(1, len(letters) // 6)]}
        return len(drawn) >= 6 and bytes(font.getmask("\U0010fffe")) not in drawn and b"" not in drawn
    except (OSError, ValueError):
        return False


@lru_cache(maxsize=512)
def font_of(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size)


def words(script: str, count: int, rng: np.random.Generator) -> str:
    return " ".join(word(script, rng) for _ in range(count))


def word(script: str, rng: np.random.Generator) -> str:
    """Letters of a script as words have them; in alphabets vowels alternate, some begin with a capital; or a number."""
    if script in WITH_NUMBERS and rng.random() < 0.12:
        numbers = (
            f"{rng.integers(2100)}",
            f"{rng.uniform(0, 99):.2f}",
            f"{rng.integers(24)}:{rng.integers(10, 60)}",
        )
        return str(rng.choice([*numbers, "%", "&", "(a)", "#7", "€5"]))
    letters = SCRIPTS[script][1]
    length = int(rng.integers(1, 5 if len(letters) > MANY_LETTERS else 10))
    if script not in VOWELS:
        return "".join(letters[int(i)] for i in rng.integers(len(letters), size=length))
    vowels = VOWELS[script]
    usual = len(letters) - (LATIN_RARE if script == "latin" and rng.random() < 0.9 else 0)
    start = int(rng.integers(2))
    made = "".join(
        letters[int(rng.integers(vowels) if (i + start) % 2 else rng.integers(vowels, usual))]
        for i in range(length)
    )
    style = rng.random()
    return made.capitalize() if style < 0.25 else made.upper() if style < 0.4 else made


@dataclass(frozen=True)
class Hand:
    """How words are stamped: `size` in pixels, `angle` in degrees against the clock, `opacity` from 0 to 1."""

    font: Path
    size: float
    ink: Colour
    angle: float = 0.0
    opacity: float = 1.0
    outline: Colour | None = None

    def width(self, text: str) -> float:
        """About how many pixels `text` takes."""
        return font_of(self.font, max(4, round(self.size * 2))).getlength(text) / 2


def stamp(panel: Image.Image, text: str, hand: Hand, place: Point, rng: np.random.Generator) -> None:
    """Write `text` with its top left corner near `place`, not aligned to pixels."""
    scale = 4 if hand.size < 24 else 2
    font = font_of(hand.font, max(4, round(hand.size * scale)))
    left, top, right, bottom = font.getbbox(text)
    pad = scale * 4
    box = (int(right - left) + 2 * pad, int(bottom - top) + 2 * pad)
    if min(box) > 40 * hand.size * scale or max(box) > 8192:  # a damaged font
        return
    shift = rng.uniform(0, scale, 2)
    where = (pad - left + shift[0], pad - top + shift[1])
    letters = Image.new("L", box)
    ImageDraw.Draw(letters).text(where, text, 255, font)
    layers = [(letters, hand.ink)]
    if hand.outline is not None:
        wide = Image.new("L", box)
        width = max(1, round(scale * hand.size / 16))
        ImageDraw.Draw(wide).text(where, text, 255, font, stroke_width=width)
        layers.insert(0, (wide, hand.outline))
    reducer = pick(REDUCERS, rng)
    for layer, ink in layers:
        if hand.angle:
            layer = layer.rotate(hand.angle, Image.Resampling.BICUBIC, expand=True)
        across, high = max(1, layer.width // scale), max(1, layer.height // scale)
        small = layer.resize((across, high), reducer, (0, 0, across * scale, high * scale))
        if hand.opacity < 1:
            small = small.point([round(level * hand.opacity) for level in range(256)])
        panel.paste(ink, (round(place[0]), round(place[1])), small)
