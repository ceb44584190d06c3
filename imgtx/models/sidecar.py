"""What was measured of another model, kept beside it: `<file>.imgtx.json`, written by `imgtx models probe`.

It is bound to the model's digest: beside another file of the same name it is ignored. With it a run is planned without
torch, as with our own weights, which carry their facts inside.
"""

import json
import logging
import os
from pathlib import Path
from typing import Any

from imgtx.errors import ModelError, UsageError
from imgtx.files import write_atomically
from imgtx.models.info import ModelInfo

log = logging.getLogger("imgtx")

VERSION = 1
# Appended to the whole name of the file or folder.
SUFFIX = ".imgtx.json"


def sidecar_path(model: Path) -> Path:
    """Return the path beside the file or folder `model`."""
    # Otherwise `.` and `..` have no names.
    model = Path(os.path.abspath(model))
    return model.with_name(model.name + SUFFIX)


def read_sidecar(model: Path, digest: str) -> ModelInfo | None:
    """Return the measured info of `model`; None without a sidecar, and, with a warning, for another model's."""
    record = read_record(model, digest)
    return None if record is None else ModelInfo.from_dict(record["info"])


def read_record(model: Path, digest: str) -> dict[str, Any] | None:
    """Read the whole sidecar: digest, info, and what was measured under `probe`."""
    path = sidecar_path(model)
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["digest"] == digest and record["version"] == VERSION:
            ModelInfo.from_dict(record["info"])
            return record
        why = "is of another model" if record["digest"] != digest else "is of another version of imgtx"
    except (OSError, ValueError, KeyError, TypeError, ModelError) as error:
        why = f"cannot be read ({type(error).__name__}: {error})"
    log.warning("%s %s and is ignored: imgtx models probe %s writes it again", path, why, model)
    return None


def write_sidecar(model: Path, digest: str, info: ModelInfo, probe: dict[str, Any]) -> Path:
    """Write the sidecar of `model`, whole or not at all; UsageError where its folder cannot be written."""
    record = {"version": VERSION, "digest": digest, "info": info.to_dict(), "probe": probe}
    path = sidecar_path(model)
    try:
        write_atomically(path, json.dumps(record, indent=1, allow_nan=False) + "\n", durable=False)
    except OSError as error:
        raise UsageError(
            f"what was measured cannot be written to {path} ({error.strerror}): copy the model to a folder that may be "
            f"written and probe it there"
        ) from error
    return path
