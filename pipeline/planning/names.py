"""Name each output under `images/` from the listed keys alone.

An output mirrors its key; only the suffix changes when the format does. Names that a file system could take for one
another (they differ only in letter case or Unicode form, or one is a folder of another) get a short hash of their key
before the suffix: every member of such a group, so that no name depends on which key came first. The same listing
always gives the same names, no matter how much of it an earlier run has done.
"""

import re
import unicodedata
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imgtx.codecs import SUFFIXES, output_format, suffix_for
from pipeline.sources.keys import without_tail
from pipeline.tables.hashing import hash64

# Hex digits after the "~" at each level; a name climbs until it is unique.
DIGITS = (0, 8, 16, 32, 64)
# Bytes in one component of a path, on every common file system.
_MAX_BYTES = 255


def plain_names(keys: pa.Array, requested: str) -> pa.Array:
    """Return each key with the suffix of its output's format: the output's name unless another key shares it.

    requested: a writable format, or "same" for the format that the key's suffix stands for. A key without an image
    suffix, such as one made from a line of a table, gets that of the requested format; with "same" it keeps its name.
    Spaces and dots behind an image suffix are left out.
    """
    trimmed = without_tail(keys)
    lowered = pc.ascii_lower(trimmed)
    is_image = pc.match_substring_regex(lowered, rf"({'|'.join(map(re.escape, SUFFIXES))})$")
    names = keys = pc.if_else(is_image, trimmed, keys)
    if requested != "same":
        whole = pc.binary_join_element_wise(keys, suffix_for(requested), "")
        names = pc.if_else(is_image, keys, whole)
    for suffix, source_format in SUFFIXES.items():
        target = output_format(source_format, requested)
        if target == source_format:
            continue
        ends = pc.ends_with(lowered, suffix)
        if not pc.any(ends).as_py():
            continue
        stems = pc.utf8_slice_codeunits(keys, 0, -len(suffix))
        replaced = pc.binary_join_element_wise(stems, suffix_for(target), "")
        names = pc.if_else(ends, replaced, names)
    return names


def hashed_names(plain: pa.Array, keys: pa.Array, levels: np.ndarray) -> pa.Array:
    """Return the plain names with part of their key's hash before the suffix; a component over 255 bytes is cut.

    levels: (rows,), from 1 up; index into DIGITS.
    """
    rows = zip(plain.to_pylist(), keys.to_pylist(), levels.tolist(), strict=True)
    return pa.array([_hashed_name(name, key, DIGITS[level]) for name, key, level in rows], pa.string())


def fold(names: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return names as a file system sees them that ignores letter case and Unicode form; "/" stays "/"."""
    names = names.combine_chunks() if isinstance(names, pa.ChunkedArray) else names
    foreign = pc.invert(pc.string_is_ascii(names))
    folded = pc.ascii_lower(names)
    if not pc.any(foreign).as_py():
        return folded
    # Arrow lowers letters but does not fold case ("ß" and "SS" differ). Only names beyond ASCII pay for Python.
    exact = [
        unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        for name in names.filter(foreign).to_pylist()
    ]
    return pc.replace_with_mask(folded, foreign, pa.array(exact, pa.string()))


def folder_hashes(folded: pa.Array) -> np.ndarray:
    """Return hashes of every folder that the names are in, at any depth.

    They hold for hashed names too: a hash before the suffix changes no folder.
    """
    levels, names = [], folded
    while len(names := pc.unique(_parents(names))):
        levels.append(hash64(names))
    return np.concatenate(levels) if levels else np.zeros(0, np.uint64)


def _parents(names: pa.Array) -> pa.Array:
    """Return the folder of each name that is in one; names at the top are left out."""
    nested = names.filter(pc.match_substring(names, "/"))
    return pc.list_element(pc.split_pattern(nested, "/", max_splits=1, reverse=True), 0)


def too_long(names: pa.Array) -> np.ndarray:
    """Return which names have a last component over the limit, even if their key's has not: bool (rows,)."""
    long = pc.greater(pc.binary_length(names), _MAX_BYTES).to_numpy(zero_copy_only=False)
    for row in np.flatnonzero(long):
        long[row] = len(names[row].as_py().rpartition("/")[2].encode()) > _MAX_BYTES
    return long


def _hashed_name(name: str, key: str, digits: int) -> str:
    folder, slash, last = name.rpartition("/")
    stem, dot, suffix = last.rpartition(".")
    if not dot:
        stem, suffix = suffix, ""
    tail = f"~{sha256(key.encode()).hexdigest()[:digits]}{dot}{suffix}"
    room = max(0, _MAX_BYTES - len(tail.encode()))
    cut = stem.encode()[:room].decode(errors="ignore")
    # Not half of the code of a byte (`pipeline.storage.objects`).
    return folder + slash + (cut if cut == stem else re.sub("\x1a.?$", "", cut)) + tail


def format_of(output: str) -> str:
    """Return the format that an output's name promises: PNG bytes read from `a.jpg` are written as JPEG."""
    # By its end, as listings are classified: `.png` alone is a name too.
    lowered = output.lower()
    return next(format for suffix, format in SUFFIXES.items() if lowered.endswith(suffix))
