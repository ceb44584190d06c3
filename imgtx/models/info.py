"""What weights say of themselves (ModelInfo): read without torch, and derived from by the pipeline."""

from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any, Literal, TypeVar, get_origin

from imgtx.errors import ModelError

T = TypeVar("T")

# Those that a model may be computed in; `dtypes` lists those that are exact enough for it.
PRECISIONS = ("float32", "bfloat16", "float16")


# The tasks of models that add no colour of their own.
_WITHOUT_COLOUR = frozenset({"super-resolution", "restoration", "face-restoration", "inpainting"})


@dataclass(frozen=True)
class ModelInfo:
    """Facts that travel inside the weight file and that the pipeline derives its settings from.

    Sides are in input pixels.

    multiple: of which H and W of a tile are multiples. halo: the context around a tile at which tiled output equals
    untiled output within 1/255 on photos, measured for each set of weights (`imgtx.probing.halo`).
    untiled: 0 for a model whose images may be cut into tiles; one that looks at the whole image gets it whole, and no
    image of more than this many pixels.
    largest: the longest side of a tile that there was room for; 0 where it was not measured and
    `imgtx.inference.tiling.default_tile` alone decides.
    fast: the fastest of `dtypes` that was measured to be exact enough, what `--precision auto` means.
    blended: whether the model draws noise, so that its tiles do not agree: they are blended where they overlap, and
    each call is given the places of its tiles (`top` and `left` in its rows). Tiled output then does not equal untiled.
    batches: whether a batch equals its images one by one. channels_last: whether that layout was measured to be faster.
    compiled_tile: the side of the tiles for which the model, compiled in the precision `fast`, was measured to be exact
    enough and `compiled_gain` times as fast (`imgtx.inference.compiled`); 0 where it was not, and then `not_compiled`
    says why, "" where it was not tried.
    masks: whether the last of `in_channels` is a mask, 1 in the hole; the model's output counts only there.
    generation: of a model that makes images from text, the fields of `imgtx.models.generation.Generation`.
    style: the name of the one style that the weights were fitted to; "" where a style is given.
    training: the model card's record: data, recipe, seed, commit, metrics.
    """

    name: str
    task: str
    scale: int
    multiple: int
    halo: int
    in_channels: int = 3
    out_channels: int = 3
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    untiled: int = 0
    largest: int = 0
    fast: str = "float32"
    batches: bool = True
    channels_last: bool = False
    compiled_tile: int = 0
    compiled_gain: float = 0.0
    not_compiled: str = ""
    masks: bool = False
    blended: bool = False
    style: str = ""
    generation: dict[str, Any] = field(default_factory=dict)
    licence: str = "unknown"
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def keeps_grey(self) -> bool:
        """Whether the model adds no colour of its own: grey that is stored in three channels goes through as grey."""
        return self.task in _WITHOUT_COLOUR

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelInfo":
        info = checked(cls, values)
        return replace(info, dtypes=tuple(info.dtypes))


def refusal_to_compile(info: ModelInfo, model: str, precision: str) -> str:
    """Return why `model` may not be compiled in this precision, and what to do; "" where it was measured to pay."""
    if not info.compiled_tile and not info.not_compiled:
        return f"--compile was not measured for {model}: imgtx models probe '{model}' --compile does, or leave it out"
    if not info.compiled_tile:
        return f"--compile is not for {model}: {info.not_compiled}; leave it out"
    if precision != info.fast:
        return (
            f"--compile was measured for {model} in {info.fast} only, and this is {precision}: give --precision auto, "
            "or leave --compile out"
        )
    return ""


def checked(cls: type[T], values: Any) -> T:
    """Return `cls(**values)` for values out of a weight file, which anyone may have written; else ModelError."""
    name, write = f"the weights' {cls.__name__}", "write the file with imgtx"
    if not isinstance(values, dict):
        raise ModelError(f"{name} is {type(values).__name__}: expected a table of fields; {write}")
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]  # a dataclass, which T cannot say
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ModelError(
            f"{name} has unknown fields {', '.join(unknown)}; this imgtx knows "
            f"{', '.join(sorted(known))}: use the imgtx version that wrote the file, or a newer one"
        )
    missing = [n for n, f in known.items() if f.default is f.default_factory is MISSING and n not in values]
    if missing:
        raise ModelError(f"{name} lacks {', '.join(missing)}: {write}")
    for key, value in values.items():
        kind: Any = get_origin(known[key].type) or known[key].type
        wanted: Any = {float: (int, float), tuple: (list, tuple), Literal: str}.get(kind, kind)
        if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
            raise ModelError(f"{name} has {key} = {value!r}: expected {kind.__name__}; {write}")
    try:
        return cls(**values)
    except ValueError as error:
        raise ModelError(f"{name} cannot be: {error}") from error
