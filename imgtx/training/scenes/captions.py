"""Descriptions chosen at random, and captions of them in many words. All by the given generator."""

import re
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from imgtx.training.scenes.description import (
    COLOURS,
    COUNTS,
    POSITIONS,
    RELATIONS,
    SHAPES,
    SIZES,
    Description,
    Group,
    far_apart,
)
from imgtx.training.scenes.held_out import held_out_of

T = TypeVar("T")

# Shares of the kinds of scene: one shape, several of a kind, two in a relation, two without.
KINDS = {"one": 0.44, "several": 0.2, "related": 0.26, "two": 0.1}
NUMBERS = {2: ("two", "2"), 3: ("three", "3"), 4: ("four", "4"), 5: ("five", "5")}
# The first of each is the usual word.
COLOUR_WORDS = {"cyan": ("cyan", "turquoise"), "purple": ("purple", "violet"), "gray": ("gray", "grey")}
SHAPE_WORDS = {
    "circle": ("circle", "disc", "disk", "dot"),
    "square": ("square", "box"),
    "diamond": ("diamond", "rhombus"),
    "cross": ("cross", "plus"),
    "ring": ("ring", "hoop"),
}
SIZE_WORDS = {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")}
POSITION_WORDS = {
    "top left": ("in the top left corner", "at the top left", "top left", "in the upper left corner"),
    "top": ("at the top", "top", "near the top edge"),
    "top right": ("in the top right corner", "at the top right", "top right", "in the upper right corner"),
    "left": ("on the left", "on the left side", "left", "at the left edge"),
    "center": ("in the center", "in the middle", "centered", "in the centre"),
    "right": ("on the right", "on the right side", "right", "at the right edge"),
    "bottom left": (
        "in the bottom left corner", "at the bottom left", "bottom left", "in the lower left corner",
    ),
    "bottom": ("at the bottom", "bottom", "near the bottom edge"),
    "bottom right": (
        "in the bottom right corner", "at the bottom right", "bottom right", "in the lower right corner",
    ),
}  # fmt: skip
RELATION_WORDS = {
    "above": ("above", "over"),
    "below": ("below", "under", "beneath"),
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
}
LEADS = ("", "", "", "", "", "a picture of ", "a drawing of ", "an image of ", "a scene with ")
# Words that captions have beside those of the lists above.
OTHER_WORDS = frozenset({"a", "an", "the", "in", "on", "of", "and", "with", "at", "to", "one", "it", "that", "is"}) | {
    "are", "there", "background", "backdrop", "picture", "drawing", "image", "scene"
}  # fmt: skip


def random_description(rng: np.random.Generator) -> Description:
    """Return a description that training may draw: nothing of `imgtx.training.scenes.held_out`."""
    while True:
        description = any_description(rng)
        if not held_out_of(description):
            return description


def any_description(rng: np.random.Generator) -> Description:
    """Return any description, held out or not."""
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    first = _group(rng, count=int(rng.choice(COUNTS[1:])) if kind == "several" else 1)
    groups: tuple[Group, ...] = (first,)
    if kind in ("related", "two"):
        second = _group(rng)
        while (second.colour, second.shape) == (first.colour, first.shape):
            second = _group(rng)
        groups = (first, second)
    position = pick(rng, tuple(POSITIONS)) if kind == "one" and rng.random() < 0.5 else ""
    relation = pick(rng, tuple(RELATIONS)) if kind == "related" else ""
    return Description(groups, position, relation, random_background(rng, groups, 0.5))


def random_background(rng: np.random.Generator, groups: Sequence[Group], share: float) -> str:
    """Return a background that all groups stand out from; "", nothing said, but for this share."""
    fitting = [colour for colour in COLOURS if all(far_apart(colour, group.colour) for group in groups)]
    return pick(rng, fitting) if rng.random() < share else ""


def _group(rng: np.random.Generator, count: int = 1) -> Group:
    size = pick(rng, SIZES) if rng.random() < (0.4 if count == 1 else 0.2) else ""
    return Group(pick(rng, tuple(COLOURS)), pick(rng, SHAPES), count, size)


def caption(description: Description, rng: np.random.Generator) -> str:
    """Return a caption that says all of the description and nothing else, in one of many ways."""
    if rng.random() < 0.1:
        return _keywords(description, rng)
    names = [_phrase(group, rng) for group in description.groups]
    relation = description.relation
    if relation:
        if rng.random() < 0.3:
            names, relation = names[::-1], RELATIONS[relation]
        text = f"{names[0]} {pick(rng, RELATION_WORDS[relation])} {names[1]}"
    else:
        # Two shapes without a relation may be told in any order.
        if len(names) == 2 and rng.random() < 0.5:
            names = names[::-1]
        text = " and ".join(names)
    if description.position:
        text += f" {pick(rng, POSITION_WORDS[description.position])}"
    text = pick(rng, LEADS) + text
    return with_articles(text + _background_phrase(description.background, rng))


def plain_caption(description: Description) -> str:
    """Return the caption in the usual words and order."""
    parts = []
    for group in description.groups:
        number = NUMBERS[group.count][0] if group.count > 1 else "a"
        parts.append(
            " ".join(filter(None, (number, group.size, group.colour, _plural(group.shape, group.count))))
        )
    joint = f" {RELATION_WORDS[description.relation][-1]} " if description.relation else " and "
    text = joint.join(parts)
    if description.position:
        text += f" {POSITION_WORDS[description.position][0]}"
    return with_articles(
        text + (f" on a {description.background} background" if description.background else "")
    )


def _phrase(group: Group, rng: np.random.Generator) -> str:
    shape, colour = _words(group, rng)
    size = f"{pick(rng, SIZE_WORDS[group.size])} " if group.size else ""
    if group.count > 1:
        return f"{pick(rng, NUMBERS[group.count])} {size}{colour} {_plural(shape, group.count)}"
    if rng.random() < 0.06:
        return f"a {size}{shape} that is {colour}"
    return f"{pick(rng, ('a ', 'a ', 'a ', 'one ', '', 'the '))}{size}{colour} {shape}"


def _words(group: Group, rng: np.random.Generator) -> tuple[str, str]:
    """Return words for shape and colour, mostly the usual ones."""
    usual = rng.random() < 0.7
    shapes, colours = (
        SHAPE_WORDS.get(group.shape, (group.shape,)),
        COLOUR_WORDS.get(group.colour, (group.colour,)),
    )
    return (shapes[0], colours[0]) if usual else (pick(rng, shapes), pick(rng, colours))


def _plural(shape: str, count: int) -> str:
    if count == 1:
        return shape
    return shape + ("es" if shape.endswith(("s", "x")) else "s")


def _background_phrase(background: str, rng: np.random.Generator) -> str:
    if not background:
        return ""
    colour = pick(rng, COLOUR_WORDS.get(background, (background,)))
    forms = ("on a {} background", "on a {} background", "on {}", ", {} background", "with a {} background")
    return (" " + pick(rng, forms).format(colour)).replace(" ,", ",")


def _keywords(description: Description, rng: np.random.Generator) -> str:
    """Return the caption as keywords: "red circle, top left, blue background"."""
    parts = []
    for group in description.groups:
        shape, colour = _words(group, rng)
        number = pick(rng, NUMBERS[group.count]) if group.count > 1 else ""
        parts.append(" ".join(filter(None, (number, group.size, colour, _plural(shape, group.count)))))
    if description.relation:
        parts = [f"{parts[0]} {description.relation} {parts[1]}"]
    if description.position:
        parts.append(description.position)
    if description.background:
        parts.append(f"{description.background} background")
    return ", ".join(parts)


def with_articles(text: str) -> str:
    """Turn "a" into "an" before a vowel."""
    return re.sub(r"\ba (?=[aeio])", "an ", text)


def pick(rng: np.random.Generator, choices: Sequence[T]) -> T:
    return choices[int(rng.integers(len(choices)))]


def caption_words() -> set[str]:
    """Return every word that captions are made of."""
    words = {*COLOURS, *RELATIONS, *POSITIONS, *OTHER_WORDS}
    for table in (NUMBERS, COLOUR_WORDS, SHAPE_WORDS, SIZE_WORDS, POSITION_WORDS, RELATION_WORDS):
        for forms in table.values():
            words.update(forms)
    for shape in SHAPES:
        for word in SHAPE_WORDS.get(shape, (shape,)):
            words |= {word, _plural(word, 2)}
    words.update(NUMBERS[count][0] for count in NUMBERS)
    return {part for word in words for part in word.replace("'", "").split()}
