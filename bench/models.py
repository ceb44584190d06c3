"""Models for measuring what is not the model: the smallest network, one that is free, one that soon stops computing."""

import warnings
from dataclasses import replace
from pathlib import Path


def smallest_model(path: Path) -> str:
    """Write the smallest possible network and return its reference: 0.04 CPU seconds for 256 x 256."""
    from imgtx.models.config import ModelConfig
    from imgtx.models.info import ModelInfo
    from imgtx.models.transformer import EncoderDecoder
    from imgtx.models.weights import save_weights

    config = ModelConfig(
        dim=8, heads=1, encoder_blocks=1, decoder_blocks=1, ffn_ratio=1.0, detail_channels=2, detail_blocks=1
    )
    info = ModelInfo(name="smallest", task="super-resolution", scale=2, multiple=config.multiple, halo=32)
    save_weights(path, EncoderDecoder(config), info)
    return str(path)


def free_model(path: Path) -> str:
    """Write a program that doubles every pixel, under 1 ms for 256 x 256, and return its reference.

    What `imgtx models probe` would measure of it is beside it: it needs no halo.
    """
    import torch

    from imgtx.models.info import ModelInfo
    from imgtx.models.references import digest_of, find_source
    from imgtx.models.sidecar import write_sidecar

    class Doubled(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.interpolate(batch, scale_factor=2.0)

    torch.jit.save(torch.jit.script(Doubled().eval()), str(path))
    reference = f"torchscript:{path}?scale=2"
    info = ModelInfo(name=path.stem, task="super-resolution", scale=2, multiple=1, halo=0)
    write_sidecar(path, digest_of(find_source(reference)), info, {})
    return reference


def first_tiles(path: Path, name: str, tiles: int, size: tuple[int, int]) -> str:
    """Write a packaged upscaler that computes its first tiles only and doubles pixels after, and return its reference.

    size: height and width of the image, which is cut into the same tiles as for the model itself.
    """
    import torch

    from imgtx.inference.tiling import plan_for_model
    from imgtx.models.references import digest_of, find_source
    from imgtx.models.sidecar import write_sidecar
    from imgtx.models.weights import load_model

    network = load_model(name).network.eval()
    info = load_model(name).info
    cut = plan_for_model(info, *size)

    class First(torch.nn.Module):
        left: int

        def __init__(self, traced: torch.nn.Module):
            super().__init__()
            self.traced, self.left = traced, tiles
            self.height, self.width = cut.tile_height, cut.tile_width

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            # Other images of the archive have other tiles, of which the trace knows nothing.
            known = batch.shape[0] == 1 and batch.shape[2] == self.height and batch.shape[3] == self.width
            if self.left > 0 and known:
                self.left -= 1
                return self.traced(batch)
            return torch.nn.functional.interpolate(batch, scale_factor=2.0)

    example = torch.rand(1, 3, cut.tile_height, cut.tile_width)
    with torch.inference_mode(), warnings.catch_warnings():
        # The trace is for tiles of one shape, which is what they warn of.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        traced = torch.jit.trace(network, example, check_trace=False)
    torch.jit.save(torch.jit.script(First(traced)), str(path))
    reference = f"torchscript:{path}?scale={info.scale}&multiple={info.multiple}"
    same = replace(info, name=path.stem, dtypes=("float32",), batches=False)
    write_sidecar(path, digest_of(find_source(reference)), same, {})
    return reference
