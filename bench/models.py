"""Models for measuring what is not the model: the smallest network there is, and one that costs next to nothing."""

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
    from imgtx.models.references import read_info
    from imgtx.models.sidecar import write_sidecar

    class Doubled(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.interpolate(batch, scale_factor=2.0)

    torch.jit.save(torch.jit.script(Doubled().eval()), str(path))
    reference = f"torchscript:{path}?scale=2"
    info = ModelInfo(name=path.stem, task="super-resolution", scale=2, multiple=1, halo=0)
    write_sidecar(path, read_info(reference)[1], info, {})
    return reference
