"""What a model that makes images from text offers (Generation), and the conditions that it is given; without torch.

Such a model keeps the contract of every model (`imgtx.models.contract.ImageModel`) at scale 1:

    made = model(batch, state, rows)

`batch` is (B, 3, H, W) in [0, 1]: start pictures where the rows have a strength above 0, else black, and then only
its shape counts. `rows` holds the conditions of each image, all of CONDITIONS in every row, checked. Rows of one call
agree in SHARED. The noise of an image comes from its own seed alone, drawn on the CPU
(`torch.Generator().manual_seed(seed)`), so that its pixels depend on no other row, batch or device. A model may have

    tokens_lost(row) -> int                how many tokens of a row's prompt it does not see: the prompt is too long
    unknown_words(row) -> Sequence[str]    words of a row's prompts that mean nothing to it
    words                                  all that it knows
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from imgtx.errors import ModelError, UsageError
from imgtx.models.info import ModelInfo, checked

TASK = "text-to-image"

# What each row says, and its meaning.
CONDITIONS = {
    "prompt": "what the image shows, not empty",
    "seed": "0 to 2**63 - 1: decides the noise",
    "negative": "what it must not show; empty for nothing",
    "steps": "steps of the sampler, 1 or more",
    "guidance": "how closely the prompt is followed; 1 is without guidance",
    "style": "one of the model's styles; empty for none",
    "strength": "how much of the start picture is replaced, above 0 to 1; 0 where there is none",
}
# Rows that go through the model together have equal size and equal values of these.
SHARED = ("steps", "guidance", "strength")

LARGEST_SEED = 2**63 - 1
# Images of one call where the memory alone limits it.
FEW = 8
# Above them a value is a mistake.
MAX_STEPS, MAX_GUIDANCE = 1000, 100


@dataclass(frozen=True)
class Generation:
    """What a model offers, and what it takes where a row says nothing. Sides are in pixels.

    width, height: of an image. smallest, largest: sides that it can have; all are multiples of `info.multiple`, and
    `info.untiled` is the most pixels of an image. negative: whether it takes negative prompts. strength: for rows with
    a start picture; 0 for a model that takes none. styles: names that a row may give. tokens: the longest prompt.
    batch: the most images in one call; 0 lets the memory decide.
    """

    width: int
    height: int
    smallest: int
    largest: int
    steps: int
    guidance: float
    tokens: int
    negative: bool = True
    strength: float = 0.0
    styles: tuple[str, ...] = ()
    batch: int = 0

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if f.type is int and not (type(value) is int and value >= (0 if f.name == "batch" else 1)):
                raise ValueError(f"{f.name} = {value!r}: expected a whole number of 1 or more")
        if not self.smallest <= min(self.width, self.height) <= max(self.width, self.height) <= self.largest:
            raise ValueError(
                f"{self.width} x {self.height} is not within {self.smallest} to {self.largest} pixels a side"
            )
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength = {self.strength!r}: expected 0 to 1")

    @classmethod
    def of(cls, info: ModelInfo) -> "Generation":
        """Return what the info of a model for text-to-image says; ModelError for a model that makes no images."""
        if not info.generation:
            raise ModelError(f"{info.name} makes no images from text: choose a model for {TASK}")
        found = checked(cls, dict(info.generation))
        return replace(found, styles=tuple(found.styles))


@dataclass(frozen=True)
class Request:
    """One image as it is asked for: `conditions` are all of CONDITIONS, `notes` keys of NOTES."""

    conditions: dict[str, Any]
    height: int
    width: int
    notes: tuple[str, ...] = ()


WORDS_UNKNOWN = "words-unknown"
# Unknown words that a row's message names.
NAMED_WORDS = 20
# What a model leaves out of what a row asks for.
NOTES = {
    WORDS_UNKNOWN: "words of the prompt mean nothing to the model: `message` names them, `words_unknown` counts them",
    "prompt-cut": "the prompt has more tokens than the model reads; `tokens_lost` says how many were cut off",
    "negative-ignored": "the model takes no negative prompts",
    "style-ignored": "the model has no drawing styles",
}


def request(asked: Mapping[str, Any], info: ModelInfo, *, start_picture: bool = False) -> Request:
    """Check what is asked of a model for one image, and complete it with the model's own settings.

    asked: any of CONDITIONS, `width` and `height`; None means not asked. start_picture: whether there is one.
    Raises UsageError that names the value that cannot be, and what is allowed.
    """
    offer = Generation.of(info)
    given = {name: value for name, value in asked.items() if value is not None}
    width, height = given.get("width", offer.width), given.get("height", offer.height)
    _check_size(width, height, offer, info)
    prompt = given.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise UsageError(f"prompt {prompt!r}: expected text that says what the image shows")
    seed, steps = given.get("seed", 0), given.get("steps", offer.steps)
    _check_whole("seed", seed, 0, LARGEST_SEED)
    _check_whole("steps", steps, 1, MAX_STEPS)
    guidance = given.get("guidance", offer.guidance)
    if not _is_number(guidance) or not 0 <= guidance <= MAX_GUIDANCE:
        raise UsageError(f"guidance {guidance!r}: expected a number from 0 to {MAX_GUIDANCE}")
    negative, style = given.get("negative", ""), given.get("style", "")
    notes: list[str] = []
    if negative and not offer.negative:
        negative, notes = "", [*notes, "negative-ignored"]
    if style and not offer.styles:
        style, notes = "", [*notes, "style-ignored"]
    if style and style not in offer.styles:
        raise UsageError(f"style {style!r}: {info.name} has {', '.join(offer.styles)}")
    conditions = {
        "prompt": prompt,
        "seed": seed,
        "negative": negative,
        "steps": steps,
        "guidance": float(guidance),
        "style": style,
        "strength": _strength(given.get("strength"), offer, info, start_picture=start_picture),
    }
    return Request(conditions, height, width, tuple(notes))


@dataclass(frozen=True)
class Remarks:
    """What is to be said of a prompt: `notes` are keys of NOTES, `measures` numbers by name, `message` a sentence."""

    notes: tuple[str, ...] = ()
    measures: dict[str, float] = field(default_factory=dict)
    message: str = ""


def remarks_on(model: Any, conditions: Mapping[str, Any]) -> Remarks:
    """Return what a model leaves out of a row's prompt, by the methods that it may have."""
    notes, measures, message = [], {}, ""
    tokens_lost, unknown_words = (getattr(model, name, None) for name in ("tokens_lost", "unknown_words"))
    if tokens_lost is not None and (lost := tokens_lost(conditions)):
        notes.append("prompt-cut")
        measures["tokens_lost"] = float(lost)
    if unknown_words is not None and (unknown := unknown_words(conditions)):
        notes.append(WORDS_UNKNOWN)
        measures["words_unknown"] = float(len(unknown))
        message = f"{model.info.name} knows {len(model.words):,} words, and none of: {', '.join(unknown[:NAMED_WORDS])}"
    return Remarks(tuple(notes), measures, message)


def unknown_in(message: str) -> tuple[str, list[str]]:
    """Return what a message of `remarks_on` says of the model, and the words that it names."""
    of_model, _, words = message.partition(": ")
    return of_model, words.split(", ")


def _check_size(width: Any, height: Any, offer: Generation, info: ModelInfo) -> None:
    for name, side in (("width", width), ("height", height)):
        _check_whole(name, side, offer.smallest, offer.largest)
        if side % info.multiple:
            raise UsageError(f"{name} {side}: {info.name} makes multiples of {info.multiple} pixels")
    if info.untiled and width * height > info.untiled:
        raise UsageError(f"{width} x {height}: {info.name} makes at most {info.untiled / 1e6:.2g} megapixels")


def _strength(given: Any, offer: Generation, info: ModelInfo, *, start_picture: bool) -> float:
    """Return the strength, 0 without a start picture."""
    if not start_picture:
        return 0.0
    if not offer.strength:
        raise UsageError(f"{info.name} takes no start pictures: leave image out, or choose another model")
    strength = offer.strength if given is None else given
    if not _is_number(strength) or not 0 < strength <= 1:
        raise UsageError(f"strength {strength!r}: expected a number above 0, at most 1")
    return float(strength)


def _check_whole(name: str, value: Any, least: int, most: int) -> None:
    if type(value) is int and least <= value <= most:
        return
    wanted = f"{least}" if least == most else f"a whole number from {least} to {most}"
    raise UsageError(f"{name} {value!r}: expected {wanted}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def images_per_call(info: ModelInfo) -> int:
    """Return how many images an engine should have at hand for one call of the model: 1 for models of images."""
    return Generation.of(info).batch or FEW if info.generation else 1


def shared(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what rows that share a call must agree in; equal for all rows of models that know no such conditions."""
    return tuple(row.get(name) for name in SHARED)
