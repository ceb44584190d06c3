"""An upscaler of diffusers behind imgtx's contract: tiles in, enlarged tiles out, in noise that belongs to places.

Such a model makes up detail from noise, so that a tile does not show what the same part of the whole picture would.
Noise is drawn by pixel position (`PositionalNoise`), which makes neighbours nearly agree, and the predictor blends them
where they overlap (`imgtx.inference.blending`). The same picture comes out the same each time, whatever runs beside it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from imgtx.errors import ModelError, first_line
from imgtx.models.adapters.diffusion_model import LoadedPipeline, quiet
from imgtx.models.adapters.positional_noise import PositionalNoise


class DiffusionUpscaler(LoadedPipeline):
    """A pipeline that enlarges pictures. `rows` say where each tile is in its picture: `top` and `left`, in pixels."""

    def __call__(self, batch: Tensor, state: None = None, rows: Sequence[Mapping[str, Any]] = ()) -> Tensor:
        """Enlarge (B, 3, H, W) in [0, 1] to (B, 3, s H, s W) in [0, 1], float32 on its device."""
        self.prepare()
        places = [(row["top"], row["left"]) for row in rows] or [(0, 0)] * len(batch)
        height, width = batch.shape[2:]
        noise = PositionalNoise(self.extras.seed, places, (height, width))
        devices = [self.device] if self.device.type == "cuda" else []
        # As in `DiffusionModel`: some schedulers change in place what they were given before.
        exact = torch.autocast(self.device.type, enabled=False)
        with (
            torch.random.fork_rng(devices),
            torch.inference_mode(False),
            torch.no_grad(),
            exact,
            quiet(),
            noise,
        ):
            torch.manual_seed(self.extras.seed)
            try:
                # A copy: what was made in inference mode cannot be used outside it.
                made = self.pipeline(**self._arguments(batch.float().clone(), noise)).images
            except ValueError as error:
                raise ModelError(
                    f"{self.folder.pipeline} does not enlarge tiles of {width} x {height} ({first_line(error)}): "
                    "choose another model"
                ) from error
        pixels = torch.from_numpy(made) if not isinstance(made, Tensor) else made
        return pixels.permute(0, 3, 1, 2).to(batch.device, torch.float32).clamp(0.0, 1.0)

    def _arguments(self, batch: Tensor, noise: PositionalNoise) -> dict[str, Any]:
        """Return the pipeline's arguments: without a prompt there is nothing to guide to."""
        values: dict[str, Any] = {
            "prompt": [""] * len(batch),
            "guidance_scale": 1.0,
            "num_inference_steps": self.extras.steps,
            "noise_level": self.extras.noise_level,
            # These alone take pictures in [0, 1]; where there is no prompt, the network's own range.
            "image": batch if "prompt" in self._parameters else batch * 2 - 1,
            "generator": noise.generators,
            "output_type": "np",
        }
        return {
            name: value for name, value in values.items() if name in self._parameters and value is not None
        }
