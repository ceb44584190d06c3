"""The safetensors format in plain Python: tensors and metadata in one file, nothing to execute.

Written always by this; read by it only on a bare GPU machine, where the safetensors package is missing.
Source: the format's own description: 8 bytes of header length, a JSON header of dtype, shape and byte range for each
tensor and "__metadata__" of strings, then the bytes without gaps.
"""

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

MOST_HEADER_BYTES = 100_000_000
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "|u1", "BOOL": "|b1"}
_ALIGNMENT = 8


class SafetensorError(Exception):
    """The file is not a whole safetensors file."""


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write `tensors` (any of DTYPES, C order) under their names, sorted; the same input gives the same bytes."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    start = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        dtype = next(word for word, kind in DTYPES.items() if np.dtype(kind) == tensor.dtype)
        header[name] = {
            "dtype": dtype,
            "shape": list(tensor.shape),
            "data_offsets": [start, start + tensor.nbytes],
        }
        start += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(tensors):
            file.write(np.ascontiguousarray(tensors[name]).data)
        file.flush()
        os.fsync(file.fileno())


class TensorFile:
    """Reads a file as `safetensors.safe_open` does, as far as `imgtx.models.weight_file` asks; SafetensorError if it is none.

    Whatever the framework, tensors come as numpy arrays.
    """

    def __init__(self, path: Path, framework: str = "numpy"):
        self._file = Path(path).open("rb")  # noqa: SIM115 - closed by __exit__
        try:
            self._header = self._read_header()
        except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
            self._file.close()
            raise SafetensorError(f"header: {error}") from error

    def __enter__(self) -> "TensorFile":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def metadata(self) -> dict[str, str] | None:
        return self._header.get("__metadata__")

    def keys(self) -> list[str]:
        return [name for name in self._header if name != "__metadata__"]

    def get_tensor(self, name: str) -> np.ndarray:
        entry = self._header[name]
        start, end = entry["data_offsets"]
        self._file.seek(self._first + start)
        return np.frombuffer(bytearray(self._file.read(end - start)), DTYPES[entry["dtype"]]).reshape(
            entry["shape"]
        )

    def _read_header(self) -> dict[str, Any]:
        size = os.fstat(self._file.fileno()).st_size
        (length,) = struct.unpack("<Q", self._file.read(8))
        if length > min(MOST_HEADER_BYTES, size - 8):
            raise ValueError(f"{length} bytes long in a file of {size}")
        header = json.loads(self._file.read(length))
        self._first = 8 + length
        ends = 0
        entries = [entry for name, entry in header.items() if name != "__metadata__"]
        for entry in sorted(entries, key=lambda entry: entry["data_offsets"]):
            start, end = entry["data_offsets"]
            count = int(np.prod(entry["shape"], dtype=np.int64))
            if start != ends or end - start != count * np.dtype(DTYPES[entry["dtype"]]).itemsize:
                raise ValueError("byte ranges that do not fit the shapes")
            ends = end
        if self._first + ends != size:
            raise ValueError(f"{self._first + ends} bytes announced in a file of {size}")
        return header


safe_open = TensorFile  # the safetensors package's own name
