"""Captioned pictures with alpha (emoji, clip art) for text-to-image: how they are split, captioned and composited."""

import re
import zlib
from dataclasses import dataclass

import numpy as np

from imgtx.models.text_to_image_tokenizer import words_of
from imgtx.training.scenes.captions import COLOUR_WORDS, pick, with_articles
from imgtx.training.scenes.description import COLOURS

# Names of the collections in prompts.
STYLES = {
    "noto": "noto", "openmoji": "openmoji", "twemoji": "twemoji", "emojitwo": "emojitwo", "fluent-emoji": "fluent",
    "fluent-emoji-flat": "fluent-flat", "fxemoji": "fxemoji", "streamline-emojis": "streamline",
    "openclipart": "openclipart",
}  # fmt: skip
# One of so many concepts is held out in all styles, and of the others one of so many pairs of concept and style.
CONCEPTS_IN, PAIRS_IN = 25, 20
FORMS = (
    "{}", "{}", "{}", "{}", "a {}", "an emoji of {}", "{} emoji", "an icon of {}", "{} icon", "a drawing of {}",
    "a picture of {}", "clip art of {}",
)  # fmt: skip
# Words that forms and styles add.
FORM_WORDS = frozenset(
    {"a", "an", "emoji", "of", "icon", "drawing", "picture", "clip", "art", "in", "style", "on"}
)


@dataclass(frozen=True)
class Subject:
    """What a captioned picture shows, in which style (a value of STYLES)."""

    caption: str
    style: str
    keywords: tuple[str, ...] = ()

    @property
    def concept(self) -> str:
        """The caption without skin tone: variants of one picture must not be split."""
        return re.sub(r"\W+(with\W+)?((medium|light|dark)\W+)*skin\W+tone\b", "", self.caption.casefold())

    @property
    def toned(self) -> bool:
        return "skin tone" in self.caption


def held_out(subject: Subject) -> str:
    """Return "concept" or "pair" where training must not see the subject, else ""."""
    if _hash(subject.concept) % CONCEPTS_IN == 0:
        return "concept"
    return "pair" if _hash(f"{subject.concept}|{subject.style}") % PAIRS_IN == 0 else ""


def _hash(text: str) -> int:
    return zlib.crc32(text.encode())


def caption_of(subject: Subject, rng: np.random.Generator) -> tuple[str, str]:
    """Return a caption in one of many forms, and the name of the background that it mentions, "" for none."""
    keywords = list(subject.keywords)
    rng.shuffle(keywords)
    chance = rng.random()
    if keywords and chance < 0.08:
        text = ", ".join(keywords[:4])
    elif keywords and chance < 0.2:
        text = f"{subject.caption}, {', '.join(keywords[:2])}"
    else:
        text = pick(rng, FORMS).format(subject.caption)
    background = pick(rng, tuple(COLOURS)) if rng.random() < 0.3 else ""
    if background:
        colour = pick(rng, COLOUR_WORDS.get(background, (background,)))
        text += pick(rng, (" on a {} background", " on {}", ", {} background")).format(colour)
    if rng.random() < 0.75:
        text += pick(rng, (" in {} style", " in {} style", ", {} style", ", {}")).format(subject.style)
    return with_articles(text), background


def composite(picture: np.ndarray, background: np.ndarray) -> np.ndarray:
    """(S, S, 4) uint8 over a plain colour: (S, S, 3) uint8."""
    alpha = picture[..., 3:].astype(np.float32) / 255
    return (picture[..., :3] * alpha + background.astype(np.float32) * (1 - alpha) + 0.5).astype(np.uint8)


def split_words(caption: str, known: frozenset[str]) -> str:
    """Split captions that run together ("policecar") into the fewest known words; others stay as they are."""
    return " ".join(_split(word, known) for word in words_of(caption))


def _split(word: str, known: frozenset[str]) -> str:
    if word in known:
        return word
    # best[n]: the fewest words that the first n letters are made of.
    best: list[list[str] | None] = [[]] + [None] * len(word)
    for end in range(1, len(word) + 1):
        for start in range(max(0, end - 16), end):
            head, piece = best[start], word[start:end]
            if head is not None and len(piece) > 1 and piece in known:
                shortest = best[end]
                if shortest is None or len(head) + 1 < len(shortest):
                    best[end] = [*head, piece]
    found = best[-1]
    return " ".join(found) if found else word
