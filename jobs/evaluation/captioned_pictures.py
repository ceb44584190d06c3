"""Captioned pictures (emoji, clip art) out of Parquet files, for training and for measuring."""

import io
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

from imgtx.errors import ImageError, UsageError, first_line
from imgtx.models.text_to_image_tokenizer import words_of
from imgtx.training.data.left_out import LeftOut, usable
from imgtx.training.scenes.captions import caption_words
from imgtx.training.scenes.drawing import SIDE
from imgtx.training.text_to_image.captioned import FORM_WORDS, STYLES, Subject, split_words

COLUMNS = ("style", "caption", "keywords", "image")
# A picture's keywords beyond these are left out.
MOST_KEYWORDS = 12
# A word becomes one token if so many captions, or keywords of so many pictures, have it.
CAPTIONS_WITH, KEYWORDS_WITH = 3, 25
# Captions of these collections run together ("policecar"), and those of others end in a number of the drawing.
RUN_TOGETHER, NUMBERED = "fxemoji", "streamline-emojis"


class Captioned(NamedTuple):
    """Captioned pictures: (N, 64, 64, 4) uint8, what they show, and the words and styles of all captions.

    These include the captions of pictures that cannot be read: they decide the network's shape.
    """

    pictures: np.ndarray
    subjects: list[Subject]
    vocabulary: tuple[str, ...]
    styles: tuple[str, ...]


def read_pictures(folder: Path, left_out: LeftOut | None = None) -> Captioned:
    """Read all Parquet files of a folder by name, without the pictures that cannot be read.

    Raises UsageError for a folder without files, a file without the columns, and where no picture can be read.
    """
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise UsageError(f"{folder} has no .parquet file: give a folder of pictures with captions")
    rows = [row for file in files for row in _rows(file)]
    known = frozenset(
        word
        for row in rows
        if row["style"] != RUN_TOGETHER
        for word in words_of(row["caption"])
        if len(word) > 2
    )
    subjects = [_subject(row, known) for row in rows]
    named = ((f"row {at} of {folder}", row["image"]) for at, row in enumerate(rows))
    pictures = usable(named, lambda name, data: _picture(data, name), folder, left_out=left_out)
    kept = [subject for at, subject in enumerate(subjects) if f"row {at} of {folder}" in pictures]
    styles = tuple(dict.fromkeys(subject.style for subject in subjects))
    return Captioned(np.stack(list(pictures.values())), kept, vocabulary(subjects), styles)


def _rows(file: Path) -> list[dict[str, Any]]:
    try:
        return pq.read_table(file, columns=list(COLUMNS)).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise UsageError(
            f"{file} cannot be read ({' '.join(str(error).split())[:160]}): expected Parquet with columns "
            f"{', '.join(COLUMNS)}"
        ) from error


def _subject(row: dict[str, Any], known: frozenset[str]) -> Subject:
    style, caption = row["style"], row["caption"]
    if style == NUMBERED:
        caption = re.sub(r"\s+\d+$", "", caption)
    if style == RUN_TOGETHER:
        caption = split_words(caption, known)
    given = row["keywords"] or []
    phrases = given.split() if isinstance(given, str) else given
    keywords = dict.fromkeys(filter(None, (" ".join(words_of(phrase)) for phrase in phrases)))
    return Subject(" ".join(words_of(caption)), STYLES.get(style, style), tuple(keywords)[:MOST_KEYWORDS])


def _picture(data: bytes, where: str) -> np.ndarray:
    """Decode a picture, centre it in a square, and resize that: (64, 64, 4) uint8."""
    try:
        picture = Image.open(io.BytesIO(data)).convert("RGBA")
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, TypeError, ValueError) as error:
        # TypeError: there are no bytes.
        raise ImageError(
            "corrupt", f"{where} has a picture that cannot be read ({first_line(error)}): take it out"
        ) from error
    longest = max(picture.size)
    square = Image.new("RGBA", (longest, longest))
    square.paste(picture, ((longest - picture.width) // 2, (longest - picture.height) // 2))
    # Premultiplied: the colours of transparent pixels must not bleed into others.
    resized = square.convert("RGBa").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(resized.convert("RGBA"))


def vocabulary(subjects: Iterable[Subject]) -> tuple[str, ...]:
    """Return the words that are one token each: those of scenes, and those that captions and keywords repeat."""
    captions: Counter[str] = Counter()
    keywords: Counter[str] = Counter()
    words = caption_words() | set(FORM_WORDS)
    for subject in subjects:
        captions.update(set(words_of(subject.caption)))
        keywords.update(word for phrase in subject.keywords for word in words_of(phrase))
        words.update(words_of(subject.style))
    words.update(word for word, count in captions.items() if count >= CAPTIONS_WITH and len(word) > 1)
    words.update(word for word, count in keywords.items() if count >= KEYWORDS_WITH and len(word) > 1)
    return tuple(sorted(words))
