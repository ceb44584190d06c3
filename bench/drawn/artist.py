"""What all panels are drawn with: fonts, and photos to draw on."""

from pathlib import Path

import numpy as np
from PIL import Image

from bench.drawn.letters import Fonts
from bench.drawn.tools import PANEL, any_colour, gradient, load_photo, tiled


class Artist:
    """Fonts and photos; what is drawn with them is a function of the generator given."""

    def __init__(self, fonts: Fonts, photos: list[Path]):
        self.fonts, self._photos = fonts, photos

    def photo(self, rng: np.random.Generator, side: int = PANEL) -> Image.Image:
        """A square of a photo, (side, side); smaller photos are repeated, mirrored."""
        photo = load_photo(self._photos[int(rng.integers(len(self._photos)))])
        width, height = photo.size
        if min(width, height) < side:
            photo = tiled(photo, max(side, width), max(side, height))
            width, height = photo.size
        left, top = int(rng.integers(width - side + 1)), int(rng.integers(height - side + 1))
        return photo.crop((left, top, left + side, top + side))

    def ground(self, rng: np.random.Generator, photo_share: float) -> Image.Image:
        """A panel's ground: a photo, faded or not, or one colour, or a gradient between two."""
        if rng.random() < photo_share:
            photo = self.photo(rng)
            if rng.random() < 0.4:
                veil = Image.new("RGB", photo.size, any_colour(rng))
                photo = Image.blend(photo, veil, float(rng.uniform(0.2, 0.8)))
            return photo
        if rng.random() < 0.6:
            return Image.new("RGB", (PANEL, PANEL), any_colour(rng))
        return gradient(rng, PANEL)
