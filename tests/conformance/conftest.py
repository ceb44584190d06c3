"""Every kind of model that imgtx runs, by its reference; each is made once."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.conformance.architectures import ARCHITECTURES, save
from tests.support.archive import save_tiny_model
from tests.support.small_style import save_tiny_style

HAS_SPANDREL = importlib.util.find_spec("spandrel") is not None
HAS_TRANSFORMERS = importlib.util.find_spec("transformers") is not None
OTHERS = ("packaged", "own", "style", "torchscript", "transformers")

without_spandrel = pytest.mark.skipif(not HAS_SPANDREL, reason="spandrel is not installed")
without_transformers = pytest.mark.skipif(not HAS_TRANSFORMERS, reason="transformers is not installed")


class Sharpen(nn.Module):
    """An x3 model in levels of 255: each pixel and a part of its neighbours, with nearest enlargement."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        mean = torch.nn.functional.avg_pool2d(batch, 3, stride=1, padding=1)
        sharp = batch + 0.5 * (batch - mean)
        return sharp.repeat_interleave(3, 2).repeat_interleave(3, 3)


def save_torchscript(path: Path) -> str:
    torch.jit.save(torch.jit.script(Sharpen()), path)
    return f"torchscript:{path}?scale=3&range=255"


def save_swin2sr(folder: Path) -> str:
    from transformers import Swin2SRConfig, Swin2SRForImageSuperResolution

    config = Swin2SRConfig(
        image_size=16,
        embed_dim=12,
        depths=[2],
        num_heads=[2],
        window_size=4,
        upscale=2,
        upsampler="pixelshuffle",
        mlp_ratio=2.0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Swin2SRForImageSuperResolution(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def references(tmp_path_factory: pytest.TempPathFactory):
    """Return model references, as after --model, by name."""
    folder, made = tmp_path_factory.mktemp("models"), {}

    def reference(name: str) -> str:
        if name not in made:
            if name == "packaged":
                made[name] = "sr-x2"
            elif name == "own":
                made[name] = save_tiny_model(folder / "own.safetensors")
            elif name == "style":
                made[name] = save_tiny_style(folder / "style.safetensors")
            elif name == "torchscript":
                made[name] = save_torchscript(folder / "sharpen.ts")
            elif name == "transformers":
                made[name] = save_swin2sr(folder / "swin2sr-tiny")
            else:
                made[name] = str(save(name, folder))
        return made[name]

    return reference


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize `kind` by every kind of model, `architecture` by spandrel's."""
    marks = {"transformers": without_transformers}
    if "kind" in metafunc.fixturenames:
        kinds = [pytest.param(name, marks=marks.get(name, ())) for name in OTHERS]
        metafunc.parametrize("kind", kinds + [pytest.param(n, marks=without_spandrel) for n in ARCHITECTURES])
    if "architecture" in metafunc.fixturenames:
        metafunc.parametrize("architecture", [pytest.param(n, marks=without_spandrel) for n in ARCHITECTURES])
