"""What a training leaves to read in its folder: JSON lines, TensorBoard events, a picture of the curves."""

import json
from pathlib import Path
from typing import Any, TextIO

from imgtx.training.curves import draw_curves, read_log
from imgtx.training.event_file import EventFile

LOG, CURVES = "log.jsonl", "curves.png"
SCALARS = ("loss", "lr", "samples_per_second", "valid_psnr_y")


class Record:
    """Writes each report as it comes; the curves are drawn anew at every validation. A context manager."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._log = (folder / LOG).open("a+", encoding="utf-8")
        _end_last_line(self._log)
        self._events = EventFile(folder)

    def __enter__(self) -> "Record":
        return self

    def __exit__(self, *exception: object) -> None:
        self._log.close()
        self._events.close()

    def __call__(self, values: dict[str, Any]) -> None:
        self._log.write(json.dumps(values) + "\n")
        self._log.flush()
        self._events.add(values["step"], {name: values[name] for name in SCALARS if name in values})
        if "valid_psnr_y" in values:
            draw_curves(read_log(self.folder / LOG)).save(self.folder / CURVES)


def _end_last_line(log: TextIO) -> None:
    """A process that was killed amid a line must not spoil the next one's first."""
    log.seek(0)
    if not log.read().endswith("\n") and log.tell():
        log.write("\n")
