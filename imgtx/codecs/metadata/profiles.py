"""ICC profiles: their headers, and those tags that say colour by curves and primaries. ICC.1:2022, https://www.color.org"""

import struct
from collections.abc import Callable

import numpy as np

# From levels, as shares of the highest, to light, as a share of white; arrays of float64.
Curve = Callable[[np.ndarray], np.ndarray]

# Tags of a profile at most; a real one has some twenty.
_MAX_TAGS = 200
# How many parameters each type of parametric curve has.
_PARAMETERS = {0: 1, 1: 3, 2: 4, 3: 5, 4: 7}


def profile_fits(icc: bytes, channels: int) -> bool:
    """Return whether a profile is whole and describes the colour space of pixels with 1 or 3 `channels`."""
    whole = len(icc) >= 132 and icc[36:40] == b"acsp" and struct.unpack_from(">I", icc)[0] <= len(icc)
    return whole and icc[16:20] == (b"GRAY" if channels == 1 else b"RGB ")


def profile_tag(icc: bytes, name: bytes) -> bytes:
    """Return the bytes of a tag; b"" where the profile has none, or one that reaches beyond its end."""
    count = min(int.from_bytes(icc[128:132], "big"), _MAX_TAGS)
    for at in range(132, min(132 + 12 * count, len(icc) - 11), 12):
        tag, offset, length = struct.unpack_from(">4sII", icc, at)
        if tag == name:
            return icc[offset : offset + length] if offset + length <= len(icc) else b""
    return b""


def profile_xyz(icc: bytes, name: bytes) -> np.ndarray | None:
    """Return the XYZ, (3,) float64, of a tag of that type; None where there is none."""
    tag = profile_tag(icc, name)
    return np.array(_fixed(tag, 8, 3)) if tag[:4] == b"XYZ " and len(tag) >= 20 else None


def profile_curve(icc: bytes, name: bytes) -> Curve | None:
    """Return the curve of a tag; None where there is none that can be used."""
    tag = profile_tag(icc, name)
    if tag[:4] == b"curv" and len(tag) >= 12:
        return _table_curve(tag)
    if tag[:4] == b"para" and len(tag) >= 12:
        (kind,) = struct.unpack_from(">H", tag, 8)
        if kind in _PARAMETERS and len(tag) >= 12 + 4 * _PARAMETERS[kind]:
            return _parametric_curve(kind, _fixed(tag, 12, _PARAMETERS[kind]))
    return None


def _table_curve(tag: bytes) -> Curve | None:
    (count,) = struct.unpack_from(">I", tag, 8)
    if count == 0:
        return lambda levels: levels
    if len(tag) < 12 + 2 * count:
        return None
    table = np.frombuffer(tag, ">u2", count, 12).astype(float)
    if count == 1:
        return lambda levels: levels ** (table[0] / 256)
    return lambda levels: np.interp(levels, np.linspace(0, 1, count), table / 65535)


def _parametric_curve(kind: int, parameters: list[float]) -> Curve:
    """Return (a x + b) ** g + e from x = d on, and c x + f below."""
    g, a, b, c, d, e, f = 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0
    if kind == 0:
        (g,) = parameters
    elif kind in (1, 2):
        g, a, b, *rest = parameters
        d = -b / a if a else 0.0
        e = f = rest[0] if rest else 0.0
    elif kind == 3:
        g, a, b, c, d = parameters
    else:
        g, a, b, c, d, e, f = parameters

    def curve(levels: np.ndarray) -> np.ndarray:
        return np.where(levels >= d, np.maximum(a * levels + b, 0) ** g + e, c * levels + f)

    return curve


def _fixed(data: bytes, at: int, count: int) -> list[float]:
    """Return numbers of 16 bits before and 16 bits behind the point."""
    return [number / 65536 for number in struct.unpack_from(f">{count}i", data, at)]
