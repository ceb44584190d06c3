"""What a model is made of (ModelConfig) and what its weights say of themselves (ModelInfo)."""

from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args, get_origin

from imgtx.errors import ModelError

Norm = Literal["post", "pre", "res-post"]


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the encoder-decoder Transformer (`imgtx.models.transformer.EncoderDecoder`).

    Widths are in channels, `patch` in pixels, `window` in tokens, as is `ffn_kernel`, the depthwise convolution inside
    the FFN, 0 for none. With `holes` the last of `in_channels` is a mask,
    1 in the hole, and only the hole is replaced. Raises ValueError for what cannot be.
    """

    scale: int = 2
    in_channels: int = 3
    out_channels: int = 3
    patch: int = 2
    dim: int = 96
    heads: int = 3
    window: int = 8
    encoder_blocks: int = 4
    decoder_blocks: int = 2
    ffn_ratio: float = 2.0
    ffn_kernel: int = 0
    norm: Norm = "post"
    detail_channels: int = 32
    detail_blocks: int = 2
    holes: bool = False

    def __post_init__(self) -> None:
        for f in fields(self):
            value, least = getattr(self, f.name), 0 if f.name.endswith(("_blocks", "_kernel")) else 1
            if f.type is int and not (type(value) is int and value >= least):
                raise ValueError(f"{f.name} = {value!r}; legal is a whole number of {least} or more")
        if not isinstance(self.ffn_ratio, int | float) or self.ffn_ratio <= 0:
            raise ValueError(f"ffn_ratio = {self.ffn_ratio!r}; legal is a number greater than 0")
        if self.ffn_kernel and not self.ffn_kernel % 2:
            raise ValueError(f"ffn_kernel = {self.ffn_kernel}; legal is an odd number, or 0 for none")
        if self.norm not in get_args(Norm):
            raise ValueError(f"norm = {self.norm!r}; legal are {', '.join(get_args(Norm))}")
        if self.holes and (self.scale != 1 or self.in_channels != self.out_channels + 1):
            raise ValueError(
                f"holes with scale = {self.scale}, in_channels = {self.in_channels} and out_channels = "
                f"{self.out_channels}; legal are scale 1 and one channel more that comes in, the mask"
            )
        if self.dim % self.heads:
            raise ValueError(
                f"dim = {self.dim} does not divide among heads = {self.heads}: use a multiple of it"
            )

    @property
    def multiple(self) -> int:
        """Input height and width must be multiples of this many pixels (one attention window)."""
        return self.patch * self.window

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        return _strict(cls, values)


@dataclass(frozen=True)
class ModelInfo:
    """Facts that travel inside the weight file and that the pipeline derives its settings from.

    `multiple` and `halo` are in input pixels. `halo` is the context around a tile at which tiled output
    equals untiled output within 1/255 on photos; it is measured for each set of weights (`jobs.evaluation.super_resolution`).
    `untiled` is 0 for a model that may be cut into tiles; one that looks at the whole picture gets it whole, and no
    picture of more than `untiled` pixels. `largest` is the longest side of a tile in pixels that there was room
    for, 0 where nobody measured and `imgtx.inference.tiling.default_tile` alone decides. `fast` is the fastest of `dtypes`
    that was measured to be exact enough, what `--precision auto` stands for. `batches` says whether a batch equals
    its images one by one, `channels_last` whether that layout was measured to be faster. `compiled_tile` is the side in
    pixels of the tiles for which the model, compiled in the precision `fast`, was measured to be exact enough and
    `compiled_gain` times as fast (`imgtx.inference.compiled`); 0 where it was not, and then `not_compiled` says why, "" where
    nobody tried. `masks` says that the last
    of `in_channels` is a mask, 1 where the picture is to be made up; the model's output counts there only.
    `training` is the model card's record: data, recipe, seed, commit, metrics.
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
    licence: str = "unknown"
    training: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelInfo":
        info = _strict(cls, values)
        return replace(info, dtypes=tuple(info.dtypes))


def refusal_to_compile(info: ModelInfo, model: str, precision: str) -> str:
    """Why `model` may not be compiled in this precision, and what to do; "" where it was measured that it may."""
    if not info.compiled_tile and not info.not_compiled:
        return f"--compile was not measured for {model}: imgtx models probe '{model}' --compile does, or leave it out"
    if not info.compiled_tile:
        return f"--compile is not for {model}: {info.not_compiled}; leave it out"
    if precision != info.fast:
        return (
            f"--compile was measured for {model} in {info.fast} alone, and this is {precision}: give --precision auto, "
            "or leave --compile out"
        )
    return ""


def _strict(cls, values: Any):
    """`cls(**values)` for values out of a weight file, which anyone may have written."""
    if not isinstance(values, dict):
        raise ModelError(
            f"the weights' {cls.__name__} is {type(values).__name__}; legal is a table of fields"
        )
    legal = {f.name: f for f in fields(cls)}
    unknown = sorted(set(values) - set(legal))
    if unknown:
        raise ModelError(
            f"the weights' {cls.__name__} has unknown fields {', '.join(unknown)}; this imgtx knows "
            f"{', '.join(sorted(legal))}: use the imgtx version that wrote the file, or a newer one"
        )
    missing = [n for n, f in legal.items() if f.default is f.default_factory is MISSING and n not in values]
    if missing:
        raise ModelError(f"the weights' {cls.__name__} lacks {', '.join(missing)}: write the file with imgtx")
    for name, value in values.items():
        kind: Any = get_origin(legal[name].type) or legal[name].type
        wanted: Any = {float: (int, float), tuple: (list, tuple), Literal: str}.get(kind, kind)
        if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
            raise ModelError(
                f"the weights' {cls.__name__} has {name} = {value!r}; legal is {kind.__name__}: "
                f"write the file with imgtx"
            )
    try:
        return cls(**values)
    except ValueError as error:
        raise ModelError(f"the weights' {cls.__name__} cannot be: {error}") from error
