"""Measure CPU seconds per megapixel of style transfer beside sr-x2 and two published designs, in one run.

    python -m bench.style_speed [--side 256] [--rounds 3]

imgtx's network has its default shape and a style memory of 256 tokens (`--style-size 256`) or 1,024 (512). Beside it
are Magenta's transform network (Ghiasi et al., arXiv 1705.06830) and a Transformer with global attention after StyTr2
(Deng et al., arXiv 2105.14576: 512 channels, patches of 8 pixels, three layers each, a style of 256 pixels), built
here. All weights are random: time does not depend on them. What is computed once for a style is not counted. As in
`bench.model_speed`, networks run in one thread with the workers' allocator settings and take turns, each with its
fastest tiles, and results are medians. Global attention needs the whole photo: in tiles it is cheaper than in use.
"""

import argparse
import os
import subprocess
import sys
from typing import Any

from bench.model_speed import packaged
from bench.report import save
from bench.restore_speed import race
from pipeline.cluster.environment import WORKER_ENVIRONMENT

# Times sr-x2, per input megapixel.
LIMIT = 1.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    # glibc reads these variables when a process starts.
    if os.environ.get("MALLOC_TOP_PAD_") is None:
        command = [sys.executable, "-m", "bench.style_speed", *sys.argv[1:]]
        raise SystemExit(subprocess.run(command, env=os.environ | WORKER_ENVIRONMENT, check=False).returncode)
    import torch

    torch.set_num_threads(1)
    models = {
        "sr-x2": packaged("sr-x2"),
        "style": style(256),
        "style, 1,024 tokens": style(512),
        "Magenta": magenta(),
        "StyTr2-like": stytr2_like(),
    }
    rows = race(models, options.side, options.rounds)
    save("style_speed", {"side": options.side, "rounds": options.rounds, "rows": rows, "limit": LIMIT})
    for row in rows:
        print(
            f"{row['network']}, {row['precision']}: {row['seconds_per_megapixel']:.2f} s/MP in tiles of "
            f"{row['tile']}, {row['times_sr_x2']:.2f} times sr-x2"
        )


def style(size: int) -> Any:
    """Return imgtx's network with the memory of a style picture of `size` pixels a side."""
    import torch

    from imgtx.models.style_config import StyleConfig
    from imgtx.models.style_transfer import StyleTransfer

    config = StyleConfig()
    network = StyleTransfer(config).eval()
    with torch.inference_mode():
        state = network.encode_style(torch.rand(1, 3, size, size))

    def paint(tile: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(len(tile), *config.noise_shape(*tile.shape[2:]))
        return network(tile, state, noise=noise)

    return paint


def magenta() -> Any:
    """Return Magenta's transform network, with the scale and shift of each channel as a style would give them."""
    from torch import nn

    def convolution(given: int, made: int, kernel: int, stride: int = 1) -> nn.Sequential:
        return nn.Sequential(
            nn.ReflectionPad2d(kernel // 2),
            nn.Conv2d(given, made, kernel, stride),
            nn.InstanceNorm2d(made, affine=True),
        )

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = convolution(128, 128, 3), convolution(128, 128, 3)

        def forward(self, x: Any) -> Any:
            return x + self.second(self.first(x).relu())

    return nn.Sequential(
        convolution(3, 32, 9), nn.ReLU(), convolution(32, 64, 3, 2), nn.ReLU(), convolution(64, 128, 3, 2), nn.ReLU(),
        *(Block() for _ in range(5)),
        nn.Upsample(scale_factor=2), convolution(128, 64, 3), nn.ReLU(),
        nn.Upsample(scale_factor=2), convolution(64, 32, 3), nn.ReLU(), convolution(32, 3, 9), nn.Sigmoid(),
    ).eval()  # fmt: skip


def stytr2_like() -> Any:
    """Return a Transformer with global attention, with a style of 256 pixels."""
    import torch
    from torch import nn

    width, tokens = 512, (256 // 8) ** 2
    embed = nn.Conv2d(3, width, 8, 8)
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(width, 8, 2048, batch_first=True), 3, enable_nested_tensor=False
    )
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(width, 8, 2048, batch_first=True), 3)
    paint = nn.Sequential(
        nn.Conv2d(width, 256, 3, padding=1), nn.ReLU(), nn.Upsample(scale_factor=2),
        *(layer for _ in range(3) for layer in (nn.Conv2d(256, 256, 3, padding=1), nn.ReLU())),
        nn.Conv2d(256, 128, 3, padding=1), nn.ReLU(), nn.Upsample(scale_factor=2),
        nn.Conv2d(128, 128, 3, padding=1), nn.ReLU(), nn.Conv2d(128, 64, 3, padding=1), nn.ReLU(),
        nn.Upsample(scale_factor=2), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 3, 3, padding=1),
    )  # fmt: skip
    memory = torch.rand(1, tokens, width)
    parts = nn.ModuleList([embed, encoder, decoder, paint]).eval()

    def run(tile: Any) -> Any:
        features = parts[0](tile)
        mixed = parts[2](parts[1](features.flatten(2).mT), memory)
        return parts[3](mixed.mT.unflatten(2, features.shape[2:]))

    return run


if __name__ == "__main__":
    main()
