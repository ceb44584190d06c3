"""Small archives, a small model, and the contents of a destination, for tests of whole runs."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from imgtx.models.config import ModelConfig
from imgtx.models.info import ModelInfo
from imgtx.models.transformer import EncoderDecoder
from imgtx.models.weights import save_weights
from pipeline.ledger.ledger import Ledger
from pipeline.storage.objects import TEMPORARY
from pipeline.storage.store import Store, open_store
from pipeline.tables.schemas import IMAGES
from tests.support.zoo import photo, saved

# A table of a training spec: a network that trains some hundred steps a second.
TINY_NETWORK = """[model]
dim = 16
heads = 1
window = 4
encoder_blocks = 1
decoder_blocks = 1
detail_channels = 4
detail_blocks = 1
"""
FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "tif": "TIFF"}


def save_tiny_model(path: Path, *, seed: int = 0, scale: int = 2, holes: bool = False) -> str:
    """Save a small model that differs from bicubic, a different one for each seed, and return its path.

    At scale 1 it restores; with `holes` it fills them.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = ModelConfig(
            scale=scale,
            dim=16,
            heads=1,
            encoder_blocks=1,
            decoder_blocks=1,
            detail_channels=8,
            detail_blocks=1,
            in_channels=4 if holes else 3,
            holes=holes,
        )
        network = EncoderDecoder(config)
        torch.nn.init.normal_(network.head.weight, std=0.01)
    task = "inpainting" if holes else "restoration" if scale == 1 else "super-resolution"
    info = ModelInfo(
        path.stem, task, scale, config.multiple, config.multiple, config.in_channels, masks=holes
    )
    save_weights(path, network, info)
    return str(path)


def picture(number: int) -> tuple[str, bytes]:
    """Return (key, bytes) of image `number`: no two have the same pixels; formats and sizes alternate."""
    suffix = sorted(FORMATS)[number % len(FORMATS)]
    pixels = photo(24 + number % 11, 32 + number % 7).copy()
    pixels[:3, :8] = np.frombuffer(hashlib.sha256(str(number).encode()).digest()[:24], np.uint8).reshape(8, 3)
    return f"{number % 3}/image-{number:04d}.{suffix}", saved(pixels, FORMATS[suffix])


def fill(store: Store, count: int, start: int = 0) -> list[str]:
    """Write `count` pictures to a store and return their keys."""
    pictures = [picture(number) for number in range(start, start + count)]
    for key, data in pictures:
        store.write(key, data)
    return [key for key, _ in pictures]


@dataclass(frozen=True)
class Destination:
    """The files of a destination, and the rows of its ledger."""

    # Key -> current ledger row.
    rows: dict[str, dict[str, Any]]
    # Name under images/ -> sha256.
    files: dict[str, str]
    temporary: list[str]

    @property
    def outputs(self) -> dict[str, str]:
        """Return key -> sha256 of the file that its written row names."""
        return {k: self.files[row["output"]] for k, row in self.rows.items() if row["status"] == "written"}


def look(uri: str) -> Destination:
    """Read every byte of a destination."""
    store = open_store(uri)
    rows = Ledger(store).current().to_pylist()
    keys = [key for batch in store.list(IMAGES) for key in batch["key"].to_pylist()]
    files = {key.removeprefix(IMAGES): hashlib.sha256(store.read(key)).hexdigest() for key in keys}
    temporary = [str(p) for p in Path(uri).rglob(f"{TEMPORARY}*")] if store.is_local else []
    assert len({row["key"] for row in rows}) == len(rows)
    return Destination({row["key"]: row for row in rows}, files, temporary)


def assert_sound(found: Destination) -> None:
    """Assert that written rows and files match one to one, byte for byte, and that no temporary file is left."""
    written = [row for row in found.rows.values() if row["status"] == "written"]
    assert sorted(found.files) == sorted(row["output"] for row in written)
    assert {row["output"]: row["out_sha256"] for row in written} == found.files
    assert found.temporary == []
