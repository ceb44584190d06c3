"""What a style transfer network is made of (StyleConfig), read without torch."""

from dataclasses import dataclass, fields
from typing import Any

from imgtx.models.info import checked

# Of a style picture: the fewest pixels a side, and the shorter sides at which the style encoder may look at it.
SMALLEST_STYLE = 64
STYLE_SIZES = (128, 256, 384, 512)
STYLE_SIZE = 256
# Begins the names of the tensors that say what weights fitted to one style know of it.
OWN_STYLE = "own_style."
# Pixels a side that one token of the style encoder stands for, before and after its tokens are merged.
STYLE_PATCH = 8
MERGED_PATCH = 16


@dataclass(frozen=True)
class StyleConfig:
    """Shape of `imgtx.models.style_transfer.StyleTransfer`.

    Widths are in channels, `patch` in pixels of the content, `window` in tokens; `style_channels` and `style_dim` are
    the widths of the style encoder's first features and of its tokens. `noise_channels`: a multiple of patch², so that
    there is noise for each pixel. `mix_blocks`: pairs of convolutions after each decoder block, `half_blocks` those at
    half the image's size. Raises ValueError for a shape that cannot be.
    """

    patch: int = 4
    dim: int = 64
    style_channels: int = 128
    style_dim: int = 192
    heads: int = 4
    window: int = 8
    encoder_blocks: int = 1
    decoder_blocks: int = 2
    mix_blocks: int = 2
    half_blocks: int = 3
    noise_channels: int = 16
    style_blocks: int = 2
    merged_blocks: int = 1
    ffn_ratio: float = 2.0
    detail_channels: int = 16
    half_channels: int = 32
    code: int = 100

    def __post_init__(self) -> None:
        for f in fields(self):
            value, least = getattr(self, f.name), 0 if f.name.endswith("_blocks") else 1
            if f.type is int and not (type(value) is int and value >= least):
                raise ValueError(f"{f.name} = {value!r}: expected a whole number of {least} or more")
        if not isinstance(self.ffn_ratio, int | float) or self.ffn_ratio <= 0:
            raise ValueError(f"ffn_ratio = {self.ffn_ratio!r}: expected a number greater than 0")
        if self.patch % 2:
            raise ValueError(f"patch = {self.patch}: expected an even number of pixels")
        if self.noise_channels % self.patch**2:
            raise ValueError(
                f"noise_channels = {self.noise_channels}: expected a multiple of {self.patch**2}, for patches of "
                f"{self.patch} pixels"
            )
        for name in ("dim", "style_dim"):
            if (width := getattr(self, name)) % self.heads:
                raise ValueError(
                    f"{name} = {width} does not divide among heads = {self.heads}: use a multiple of it"
                )

    # What a weight file's info must agree with.
    scale = 1
    in_channels = 3
    out_channels = 3

    @property
    def multiple(self) -> int:
        """Height and width of the content must be multiples of this many pixels (one attention window)."""
        return self.patch * self.window

    def noise_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Return channels, height and width of the noise for a content of height x width pixels."""
        return self.noise_channels, height // self.patch, width // self.patch

    @property
    def style_multiple(self) -> int:
        """Height and width of the style picture must be multiples of this many pixels."""
        return MERGED_PATCH * self.window

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "StyleConfig":
        return checked(cls, values)
