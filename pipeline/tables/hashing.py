"""A stable 64-bit hash of whole Arrow string columns, and the bucket of each key.

Tabulation hashing: the hash is the sum, modulo 2**64, of one random word per (position, byte). Two strings collide
with probability 2**-64. Unlike Python's `hash` it is the same on every machine and in every process. It distributes
work and finds candidates; where equality must be exact, the strings themselves are compared. Written by hand because
xxhash and its like take one string per call, where this takes a column.
"""

from functools import cache

import numpy as np
import pyarrow as pa

# Bounds the temporaries: 8 bytes for every byte of this many strings.
_ROWS_AT_ONCE = 1 << 16
# Longer strings reuse the words of earlier positions; S3 keys have at most 1024 bytes.
_POSITIONS = 4096


def hash64(strings: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return the hashes of a string column: uint64 of shape (rows,). Nulls hash like the empty string."""
    chunks = strings.chunks if isinstance(strings, pa.ChunkedArray) else [strings]
    hashes = [
        _hash_chunk(chunk.slice(start, _ROWS_AT_ONCE))
        for chunk in chunks
        for start in range(0, len(chunk), _ROWS_AT_ONCE)
    ]
    return np.concatenate(hashes) if hashes else np.zeros(0, np.uint64)


def bucket_of(keys: pa.Array | pa.ChunkedArray, buckets: int) -> np.ndarray:
    """Return the bucket of each key among `buckets`, a power of two: int64 of shape (rows,).

    Bucket i of n consists of the buckets i and i + n of 2n, so that a file split for one count serves another.
    """
    if buckets < 1 or buckets & (buckets - 1):
        raise ValueError(f"{buckets} buckets: the count must be a power of two, 1 or more")
    return (hash64(keys) & np.uint64(buckets - 1)).astype(np.int64)


def among(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return which values are in `known`, a sorted array: bool of the shape of `values`."""
    place = np.searchsorted(known, values)
    found = place < len(known)
    found[found] = known[place[found]] == values[found]
    return found


def _hash_chunk(strings: pa.Array) -> np.ndarray:
    strings = strings.cast(pa.large_string()).fill_null("")
    _, offset_buffer, data_buffer = strings.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[strings.offset : strings.offset + len(strings) + 1]
    data = np.frombuffer(data_buffer or b"", np.uint8)[offsets[0] : offsets[-1]].astype(np.intp)
    starts = offsets - offsets[0]
    position = np.arange(len(data)) - np.repeat(starts[:-1], np.diff(starts))
    position &= _POSITIONS - 1
    running = np.zeros(len(data) + 1, np.uint64)
    np.cumsum(_words()[position * 256 + data], out=running[1:])
    return running[starts[1:]] - running[starts[:-1]]


@cache
def _words() -> np.ndarray:
    """Return the random word of each (position, byte): splitmix64 of its index, so that no seed has to be stored."""
    x = np.arange(1, _POSITIONS * 256 + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
