"""TensorBoard's event file, written by hand: a few scalars need none of its packages.

A file of records: 8 bytes of length and their checksum, an `Event` message of protocol buffers, its checksum.
Source: `tensorboard/compat/proto/event.proto` and `summary.proto`, `tensorflow/core/lib/io/record_writer.cc`.
"""

import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

CASTAGNOLI = 0x82F63B78  # the reflected polynomial of CRC-32C
VERSION = b"brain.Event:2"


class EventFile:
    """One process's scalars in `folder`; TensorBoard joins the files of several, so that resuming opens a new one."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        started = time.time()
        name = f"events.out.tfevents.{started:.6f}.{socket.gethostname()}"
        self._file: BinaryIO = (folder / name).open("xb")
        self._write(_double(1, started) + _bytes(3, VERSION))

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write `scalars` at `step` now: a killed training keeps its curve."""
        values = b"".join(
            _bytes(1, _bytes(1, name.encode()) + _float(2, value)) for name, value in scalars.items()
        )
        self._write(_double(1, time.time()) + _varint(2, step) + _bytes(5, values))
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _write(self, event: bytes) -> None:
        length = struct.pack("<Q", len(event))
        self._file.write(length + _masked_crc(length) + event + _masked_crc(event))


def _number(value: int) -> bytes:
    """A varint: seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _varint(field: int, value: int) -> bytes:
    return _number(field << 3) + _number(value)


def _double(field: int, value: float) -> bytes:
    return _number(field << 3 | 1) + struct.pack("<d", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _number(field << 3 | 2) + _number(len(value)) + value


def _float(field: int, value: float) -> bytes:
    return _number(field << 3 | 5) + struct.pack("<f", value)


def _masked_crc(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _table_entry(index: int) -> int:
    for _ in range(8):
        index = index >> 1 ^ (CASTAGNOLI if index & 1 else 0)
    return index


_TABLE = [_table_entry(index) for index in range(256)]
