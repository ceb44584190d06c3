"""Enlarge each picture by the packaged model that fits it: the library's counterpart of `imgtx upscale`."""

import math
from typing import Any

import numpy as np

from imgtx.errors import UsageError
from imgtx.imageops.resize import imresize
from imgtx.inference.inputs import pixels_of
from imgtx.inference.predictor import Predictor
from imgtx.models.choice import CLEAN, KINDS, NETWORKS, kind_of, network_for
from imgtx.models.references import load_model


class Chooser:
    """Enlarges pictures by the weights for their kind, which are loaded when the first picture needs them.

        enlarge = imgtx.upscaler(4)
        enlarged = enlarge("photo.jpg")

    scale, device, precision: as for `imgtx.upscaler`. `models` holds those that were loaded, by their names.
    """

    def __init__(self, scale: float = 2, *, device: str = "cpu", precision: str = "float32"):
        if not 1 < scale <= max(NETWORKS[CLEAN]):
            raise UsageError(
                f"scale {scale!r} of the packaged models: must be more than 1 and at most {max(NETWORKS[CLEAN])}"
            )
        self.scale, self.device, self.precision = scale, device, precision
        self.models: dict[str, Predictor] = {}

    def __call__(self, image: Any, *, kind: str | None = None) -> np.ndarray:
        """Return the picture `scale` times as large, as an array: uint8 or uint16 as it came.

        image: a path, a PIL image, or an array as for `Predictor`. kind: "photo" or "clean"; by default what the header
        of the file says, and "clean" for an array, which has none. Raises UsageError for another kind, ImageError for a
        file that cannot be read.
        """
        pixels, quality = pixels_of(image)
        model = self.model_for(kind or kind_of(quality))
        made = model(pixels)
        if model.info.scale == self.scale:
            return made
        height, width = (max(1, math.floor(side * self.scale + 0.5)) for side in pixels.shape[:2])
        return imresize(made, size=(height, width))

    def model_for(self, kind: str) -> Predictor:
        """Return the model of a kind; UsageError where there is no such kind."""
        if kind not in KINDS:
            raise UsageError(f"kind {kind!r}: must be one of {', '.join(KINDS)}")
        name, _ = network_for(kind, self.scale)
        if name not in self.models:
            self.models[name] = Predictor(load_model(name), device=self.device, precision=self.precision)
        return self.models[name]
