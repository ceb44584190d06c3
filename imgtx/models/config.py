"""What a model of imgtx is made of (ModelConfig), read without torch."""

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from imgtx.models.info import checked

Norm = Literal["post", "pre", "res-post"]


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the encoder-decoder Transformer (`imgtx.models.transformer.EncoderDecoder`).

    Widths are in channels, `patch` in pixels, `window` in tokens, as is `ffn_kernel`, the depthwise convolution inside
    the FFN, 0 for none. With `holes` the last of `in_channels` is a mask, 1 in the hole, and only the hole is replaced.
    Raises ValueError for a shape that cannot be.
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
                raise ValueError(f"{f.name} = {value!r}: expected a whole number of {least} or more")
        if not isinstance(self.ffn_ratio, int | float) or self.ffn_ratio <= 0:
            raise ValueError(f"ffn_ratio = {self.ffn_ratio!r}: expected a number greater than 0")
        if self.ffn_kernel and not self.ffn_kernel % 2:
            raise ValueError(f"ffn_kernel = {self.ffn_kernel}: expected an odd number, or 0 for none")
        if self.norm not in get_args(Norm):
            raise ValueError(f"norm = {self.norm!r}: expected one of {', '.join(get_args(Norm))}")
        if self.holes and (self.scale != 1 or self.in_channels != self.out_channels + 1):
            raise ValueError(
                f"holes with scale = {self.scale}, in_channels = {self.in_channels} and out_channels = "
                f"{self.out_channels}: expected scale 1 and one channel more in than out, the mask"
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
        return checked(cls, values)
