"""Run a style transfer model: a `Predictor` that takes a style picture with each image."""

import hashlib
from typing import Any

import numpy as np
import torch

from imgtx.errors import UsageError
from imgtx.inference.predictor import Predictor
from imgtx.inference.style_picture import open_style
from imgtx.models.contract import Conditions, ImageModel
from imgtx.models.style_config import STYLE_SIZES

# Style pictures that are remembered, 3 to 10 MB each.
KEPT = 32


class Stylist(Predictor):
    """Gives images the look of a style picture.

        stylise = imgtx.load("style")
        stylised = stylise(image, style="van_gogh.jpg", strength=0.8)

    Takes the arguments of `Predictor`. `conditions` may hold a `style` for all calls, as a path, an array or a PIL
    image, and the settings of a call; or `styles`, a mapping of names to (H, W, 3) uint8 pictures, for images whose own
    conditions name one.
    """

    def __init__(
        self,
        model: ImageModel,
        *,
        device: str | torch.device = "cpu",
        precision: str = "float32",
        tile: int | None = None,
        batch: int | None = None,
        conditions: dict[str, Any] | None = None,
    ):
        given = dict(conditions or {})
        check_settings(given)
        self._pictures: dict[str, np.ndarray] = {}
        self._usual = ""
        if "style" in given:
            self._usual = self._remember(given.pop("style"))
        self._preserves_color = bool(given.get("preserve_color"))
        given = {"styles": self._pictures} | given
        super().__init__(model, device=device, precision=precision, tile=tile, batch=batch, conditions=given)

    def __call__(  # type: ignore[override]  # with a style instead of a mask
        self,
        image: np.ndarray,
        *,
        style: Any = None,
        strength: float | None = None,
        preserve_color: bool | None = None,
        style_size: int | None = None,
    ) -> np.ndarray:
        """Return the image in the look of `style`, in its own size and dtype; alpha comes back as it was.

        image: as for `Predictor`. A grey one comes back in colour, (H, W, 3), unless its colours are preserved.
        style: a path, an array (H, W) or (H, W, 1 to 4) of uint8 or uint16, or a PIL image; by default that of `load`.
        A style is looked at once, however many images follow.
        strength: 0 gives the image itself, 1 the full style.
        preserve_color: keep the image's own colours (the chroma of BT.601).
        style_size: 128, 256, 384 or 512, the shorter side in pixels at which the style is looked at.
        Raises UsageError for anything else, and for a style picture that is unreadable, smaller than 64 pixels a side
        or of one colour; ImageError as `Predictor`.
        """
        asked = {"strength": strength, "preserve_color": preserve_color, "style_size": style_size}
        own: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
        check_settings(own)
        if name := self._usual if style is None else self._remember(style):
            own["style"] = name
        if not own.get("preserve_color", self._preserves_color):
            image = in_colour(image)
        return super().__call__(image, conditions=own)

    def _remember(self, style: Any) -> str:
        """Keep a style picture and return its name, a digest of its pixels."""
        picture = open_style(style)
        name = hashlib.sha256(repr(picture.shape).encode() + picture.tobytes()).hexdigest()
        self._pictures.pop(name, None)
        self._pictures[name] = picture
        # The usual one may be asked for at any time.
        others = [other for other in self._pictures if other not in (name, self._usual)]
        for old in others[: max(0, len(self._pictures) - KEPT)]:
            del self._pictures[old]
        return name


def in_colour(image: np.ndarray) -> np.ndarray:
    """Return (H, W, 3 or 4) of a grey image (H, W) or (H, W, 1 or 2); anything else as it is."""
    if not isinstance(image, np.ndarray):
        return image
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.shape[2] not in (1, 2):
        return image
    return np.concatenate([np.repeat(image[:, :, :1], 3, axis=2), image[:, :, 1:]], axis=2)


def check_settings(given: Conditions) -> None:
    """Raise UsageError for a strength or a style size that cannot be."""
    strength, size = given.get("strength", 1.0), given.get("style_size", STYLE_SIZES[0])
    if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0 <= strength <= 1:
        raise UsageError(f"strength {strength!r}: must be 0, the image as it is, to 1, the full style")
    if size not in STYLE_SIZES:
        raise UsageError(f"style_size {size!r}: must be one of {', '.join(map(str, STYLE_SIZES))}")
