"""What a text-to-image network is made of (TextToImageConfig), read without torch."""

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from imgtx.models.generation import Generation
from imgtx.models.info import ModelInfo, checked

# What pictures are drawn with where nothing else is asked for; weights may name better ones (`ModelInfo.generation`).
STEPS, GUIDANCE = 16, 3.0
# Pictures of one call. On a CPU core one at a time took 1.3 times as long a picture, with random weights.
BATCH = 8


@dataclass(frozen=True)
class TextToImageConfig:
    """Shape of `imgtx.models.text_to_image.TextToImage`, and the words that it knows.

    `side` and `patch` are in pixels, widths in channels; `max_tokens` counts a prompt's first token, which every
    prompt has. `vocabulary` holds the words that are one token each (`imgtx.models.text_to_image_tokenizer`), `styles`
    the drawing styles that it was trained on. Raises ValueError for a shape that cannot be.
    """

    side: int = 64
    patch: int = 8
    dim: int = 192
    heads: int = 6
    text_blocks: int = 2
    blocks: int = 7
    text_ffn_ratio: float = 2.0
    ffn_ratio: float = 2.5
    max_tokens: int = 40
    vocabulary: tuple[str, ...] = field(default=(), repr=False)
    styles: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for f in fields(self):
            value, least = getattr(self, f.name), 0 if f.name.endswith("_blocks") else 1
            if f.type is int and not (type(value) is int and value >= least):
                raise ValueError(f"{f.name} = {value!r}: expected a whole number of {least} or more")
            if f.name.endswith("_ratio") and (not isinstance(value, int | float) or value <= 0):
                raise ValueError(f"{f.name} = {value!r}: expected a number greater than 0")
            if f.name in ("vocabulary", "styles"):
                if not all(isinstance(word, str) for word in value):
                    raise ValueError(f"{f.name}: expected words only")
                # JSON knows lists only.
                object.__setattr__(self, f.name, tuple(value))
        if self.side % self.patch:
            raise ValueError(f"side = {self.side} is not a multiple of patch = {self.patch}: use one")
        if self.dim % (2 * self.heads):
            raise ValueError(
                f"dim = {self.dim} does not divide among heads = {self.heads} in pairs: use a multiple of twice that"
            )
        if self.max_tokens < 2:
            raise ValueError(
                f"max_tokens = {self.max_tokens}: expected 2 or more, the first token and a word"
            )

    # What a weight file's info must agree with.
    scale = 1
    in_channels = 3
    out_channels = 3

    @property
    def multiple(self) -> int:
        """Height and width of a picture in pixels: the network draws in one size only."""
        return self.side

    @property
    def grid(self) -> int:
        """Tokens of a picture a side."""
        return self.side // self.patch

    def completed(self, info: ModelInfo) -> ModelInfo:
        """Return the info with what follows from this config, where it does not say it itself."""
        if info.generation:
            return info
        offer = Generation(
            width=self.side,
            height=self.side,
            smallest=self.side,
            largest=self.side,
            steps=STEPS,
            guidance=GUIDANCE,
            # The first token is the same in every prompt.
            tokens=self.max_tokens - 1,
            styles=self.styles,
            batch=BATCH,
        )
        # A list, as JSON has it.
        generation = asdict(offer) | {"styles": [*self.styles]}
        return replace(info, generation=generation, untiled=self.side**2)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TextToImageConfig":
        return checked(cls, values)
