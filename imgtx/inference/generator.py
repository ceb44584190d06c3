"""Make images from text with one model: what `imgtx.load` returns for a model for text-to-image."""

import logging

import numpy as np

from imgtx.imageops.canvas import start_canvas
from imgtx.inference.predictor import Predictor
from imgtx.inference.tiling import plan_for_model, split
from imgtx.models.generation import NOTES, WORDS_UNKNOWN, remarks_on, request

logger = logging.getLogger(__name__)


class Generator(Predictor):
    """Makes images with one model; as a `Predictor` it runs rows of a pipeline, and called it takes a prompt."""

    def __call__(  # type: ignore[override]  # it begins with a prompt instead of an image
        self,
        prompt: str,
        *,
        seed: int = 0,
        negative: str = "",
        steps: int | None = None,
        guidance: float | None = None,
        width: int | None = None,
        height: int | None = None,
        style: str = "",
        image: np.ndarray | None = None,
        strength: float | None = None,
    ) -> np.ndarray:
        """Make one image: (height, width, 3) uint8, the same for the same arguments.

        seed: 0 to 2**63 - 1. width and height: pixels. image: a start picture, (H, W, 3) uint8, for models that take
        one; strength: how much of it is replaced, above 0 to 1. What is left out is the model's own setting.
        Raises UsageError for what the model cannot make.
        """
        asked = {"prompt": prompt, "seed": seed, "negative": negative, "steps": steps, "guidance": guidance}
        asked |= {"width": width, "height": height, "style": style, "strength": strength}
        wanted = request(asked, self.info, start_picture=image is not None)
        remarks = remarks_on(self.model, wanted.conditions)
        for note in (*wanted.notes, *remarks.notes):
            said = remarks.message if note == WORDS_UNKNOWN else f"{self.info.name}: {NOTES[note]}"
            logger.warning("%s", said)
        canvas = start_canvas(image, wanted.height, wanted.width)
        cut = plan_for_model(self.info, wanted.height, wanted.width)
        (made,) = self.run([(cut, split(canvas, cut))], [wanted.conditions])
        return made
