"""A made-up kind of model: a picture of the colour that its row asks for, `number` steps darker.

The file names another file; pictures whose name begins with "late" wait until that one is there.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgtx.models.info import ModelInfo

if TYPE_CHECKING:
    from torch import Tensor

    from imgtx.models.adapters.base import Source

PREFIX = "flat"
SUFFIXES = (".flat",)
IS_FOLDER = DECLARES = False
MARK = ""
FORM = "flat:{path} for one colour"
facts = convert = folder_files = None
DARKER = 10


def recognizes(path: Path) -> bool:
    return path.suffix == ".flat"


def digest(source: "Source") -> str:
    return hashlib.sha256(source.path.read_bytes()).hexdigest()


class Flat:
    """The model; see `imgtx.models.contract.ImageModel`."""

    def __init__(self, path: Path, digest: str):
        self.info = ModelInfo("flat", "restoration", 1, multiple=1, halo=0, dtypes=("float32",), largest=64)
        self.digest, self.gate = digest, Path(path.read_text())
        self.record: dict[str, Any] = {}

    def prepare(self, conditions: dict[str, Any]) -> None:
        """Return None: no state is shared by all rows."""

    def __call__(self, batch: "Tensor", state: None, rows: Sequence[Mapping[str, Any]] = ()) -> "Tensor":
        made = batch.clone()
        for picture, row in zip(made, rows, strict=True):
            while row["name"].startswith("late") and not self.gate.exists():
                time.sleep(0.05)
            for channel, level in zip(picture, row["colour"], strict=True):
                channel.fill_((level - DARKER * row["number"]) / 255)
        return made


def load(source: "Source", digest: str) -> Flat:
    return Flat(source.path, digest)
