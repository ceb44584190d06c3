"""What decides how a picture's levels display, and the way from there to sRGB, which a picture without any means.

It is an ICC profile, or a PNG's chunks: cICP, else iCCP, else sRGB, else gAMA with cHRM (PNG, third edition, section
13.4; where there is only one of the last two, the other is sRGB's). A format that can hold it gets it as it is. For any
other the levels are converted to sRGB, which clips what sRGB does not have. HDR cannot be converted so and is refused.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import imgtx.codecs.vips as vips
from imgtx.codecs.format import Writer
from imgtx.codecs.metadata.profiles import Curve, profile_curve, profile_fits, profile_tag, profile_xyz
from imgtx.codecs.srgb import ICC_WHITE, SRGB_PRIMARIES, adapted, srgb_light, srgb_light_of_xyz, to_xyz
from imgtx.errors import ImageError

# PNG chunks that decide how pixels display, beside iCCP. Two had other names before PNG's third edition.
CHUNKS = (b"cICP", b"sRGB", b"gAMA", b"cHRM", b"mDCV", b"cLLI", b"mDCv", b"cLLi")
# Bytes of the longest of them.
LONGEST_CHUNK = 32

# (pixels (rows, width, 1 or 3) uint8 or uint16) -> the same in sRGB.
Convert = Callable[[np.ndarray], np.ndarray]
# sRGB's gamma in 1/100,000, and how far off it and primaries may be stated.
_SRGB_GAMMA, _ROUNDED = 45455, 100
_D65 = (31270, 32900)


def _bt709_light(levels: np.ndarray) -> np.ndarray:
    return np.where(levels < 0.081, levels / 4.5, ((levels + 0.099) / 1.099) ** (1 / 0.45))


def _power(exponent: float) -> Curve:
    return lambda levels: levels**exponent


# Codes of ITU-T H.273, which cICP uses.
_PRIMARIES = {
    1: SRGB_PRIMARIES,
    4: (31000, 31600, 67000, 33000, 21000, 71000, 14000, 8000),
    5: (*_D65, 64000, 33000, 29000, 60000, 15000, 6000),
    6: (*_D65, 63000, 34000, 31000, 59500, 15500, 7000),
    7: (*_D65, 63000, 34000, 31000, 59500, 15500, 7000),
    9: (*_D65, 70800, 29200, 17000, 79700, 13100, 4600),
    11: (31400, 35100, 68000, 32000, 26500, 69000, 15000, 6000),
    12: (*_D65, 68000, 32000, 26500, 69000, 15000, 6000),
}
_CURVES: dict[int, Curve] = {
    1: _bt709_light,
    4: _power(2.2),
    5: _power(2.8),
    6: _bt709_light,
    8: _power(1.0),
    13: srgb_light,
    14: _bt709_light,
    15: _bt709_light,
}
_HDR = {16: "PQ", 18: "HLG"}


@dataclass(frozen=True)
class Shown:
    """What a file of a format carries of a picture's colour, and `convert` for its levels if it cannot carry it all.

    `chunks` are whole PNG chunks. `notes` name what is converted or dropped.
    """

    icc: bytes = b""
    chunks: bytes = b""
    convert: Convert | None = None
    notes: tuple[str, ...] = ()


def shown_by(writer: Writer, name: str, icc: bytes, chunks: bytes, channels: int) -> Shown:
    """Return how a picture of 1 or 3 `channels` with a profile and PNG chunks, either b"", comes into a format.

    Raises `ImageError` (unsupported) for HDR, and for a cICP chunk of unknown meaning, that the format cannot hold.
    """
    usable = profile_fits(icc, channels)
    if writer.colour_chunks:
        kept = icc if usable else b""
        return Shown(kept, _without_srgb(chunks) if kept else chunks, notes=_dropped(icc, kept))
    stated = parsed(chunks)
    if b"cICP" in stated:
        return _by_cicp(stated[b"cICP"], name, icc, channels)
    if usable and writer.icc and profile_fits(icc, channels if writer.grey else 3):
        return Shown(icc)
    if usable:
        _refuse_hdr(_transfer_of_profile(icc), name)
        convert = _through_profile(icc, channels)
        return Shown(convert=convert, notes=("icc->srgb",) if convert else ("icc-dropped",))
    dropped = _dropped(icc, b"")
    if b"sRGB" in stated:
        return Shown(notes=dropped)
    gamma, primaries = _gamma(stated), _primaries(stated)
    if abs(gamma - _SRGB_GAMMA) <= _ROUNDED and _is_srgb(primaries):
        return Shown(notes=dropped)
    curve = srgb_light if b"gAMA" not in stated else _power(100_000 / gamma)
    matrix = None if channels == 1 else _matrix(primaries)
    return Shown(convert=_to_srgb([curve], matrix), notes=(*dropped, "gamma->srgb"))


def parsed(chunks: bytes) -> dict[bytes, bytes]:
    """Return the bodies of PNG chunks by their names."""
    found, at = {}, 0
    while at < len(chunks):
        length, kind = struct.unpack_from(">I4s", chunks, at)
        found[kind] = chunks[at + 8 : at + 8 + length]
        at += 12 + length
    return found


def _without_srgb(chunks: bytes) -> bytes:
    """Leave out sRGB, which some readers prefer to a profile."""
    kept, at = b"", 0
    while at < len(chunks):
        length, kind = struct.unpack_from(">I4s", chunks, at)
        kept += b"" if kind == b"sRGB" else chunks[at : at + 12 + length]
        at += 12 + length
    return kept


def _dropped(icc: bytes, kept: bytes) -> tuple[str, ...]:
    return ("icc-dropped",) if icc and not kept else ()


def _by_cicp(body: bytes, name: str, icc: bytes, channels: int) -> Shown:
    primaries, curve, mixed, full_range = body
    _refuse_hdr(curve, name)
    if primaries not in _PRIMARIES or curve not in _CURVES or mixed or not full_range:
        raise ImageError(
            "unsupported",
            f"a PNG whose cICP chunk says {primaries}, {curve}, {mixed}, {full_range}, which imgtx cannot convert to "
            f"sRGB for {name}: write png, which keeps it",
        )
    dropped = ("icc-dropped",) if icc else ()
    if curve == 13 and primaries == 1:
        return Shown(notes=dropped)
    matrix = None if channels == 1 else _matrix(_PRIMARIES[primaries])
    return Shown(convert=_to_srgb([_CURVES[curve]], matrix), notes=("cicp->srgb",))


def _refuse_hdr(transfer: int, name: str) -> None:
    if transfer in _HDR:
        raise ImageError(
            "unsupported",
            f"an HDR picture ({_HDR[transfer]}), which {name} cannot hold: write png, or convert it to SDR first",
        )


def _transfer_of_profile(icc: bytes) -> int:
    """Return the code of the transfer function that a profile's tag cicp states, 0 where it has none."""
    tag = profile_tag(icc, b"cicp")
    return tag[9] if len(tag) >= 12 else 0


def _through_profile(icc: bytes, channels: int) -> Convert | None:
    """Return the way through a profile, None where it means sRGB or cannot be used."""
    convert = _by_curves(icc, channels) or _by_tables(icc, channels)
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    grid = np.stack(np.meshgrid(*[steps] * channels, indexing="ij"), axis=-1).reshape(
        len(steps), -1, channels
    )
    try:
        change = convert(grid).astype(int) - grid
    except Exception:
        # Whole by its header, and of no use to the colour engine.
        return None
    return convert if np.abs(change).max() > 1 else None


def _by_curves(icc: bytes, channels: int) -> Convert | None:
    """Return the exact way through a profile of curves and primaries, None for one of tables.

    Not by the colour engine: it interpolates grey curves between 33 points, up to 10 levels off in the shadows.
    """
    if profile_tag(icc, b"A2B0"):
        return None
    if channels == 1:
        curve = profile_curve(icc, b"kTRC")
        if curve is None or icc[20:24] != b"XYZ ":
            return None
        return _to_srgb([curve])
    curves = [c for name in (b"rTRC", b"gTRC", b"bTRC") if (c := profile_curve(icc, name)) is not None]
    colours = [xyz for name in (b"rXYZ", b"gXYZ", b"bXYZ") if (xyz := profile_xyz(icc, name)) is not None]
    if len(curves) < 3 or len(colours) < 3:
        return None
    of_srgb, white = to_xyz(SRGB_PRIMARIES)
    return _to_srgb(curves, np.linalg.inv(adapted(white, ICC_WHITE) @ of_srgb) @ np.stack(colours, axis=1))


def _by_tables(icc: bytes, channels: int) -> Convert:
    """Return the way of the colour engine. Grey stays grey: a grey profile has no tint."""

    def convert(pixels: np.ndarray) -> np.ndarray:
        made = vips.through_profile(pixels, icc)
        return made if channels == 3 else made[:, :, 1:2]

    return convert


def _gamma(stated: dict[bytes, bytes]) -> int:
    return struct.unpack(">I", stated[b"gAMA"])[0] if b"gAMA" in stated else _SRGB_GAMMA


def _primaries(stated: dict[bytes, bytes]) -> tuple[int, ...]:
    """Return white, red, green and blue as stated; sRGB's where they cannot be, as readers take it."""
    primaries = struct.unpack(">8I", stated[b"cHRM"]) if b"cHRM" in stated else SRGB_PRIMARIES
    try:
        usable = bool(np.isfinite(_to_srgb_light(primaries)).all())
    except (np.linalg.LinAlgError, ZeroDivisionError):
        usable = False
    return primaries if usable else SRGB_PRIMARIES


def _matrix(primaries: tuple[int, ...]) -> np.ndarray | None:
    return None if _is_srgb(primaries) else _to_srgb_light(primaries)


def _is_srgb(primaries: tuple[int, ...]) -> bool:
    return all(abs(a - b) <= _ROUNDED for a, b in zip(primaries, SRGB_PRIMARIES, strict=True))


def _to_srgb(curves: list[Curve], matrix: np.ndarray | None = None) -> Convert:
    """Return the way from levels to sRGB's: a curve for each channel or one for all, and a matrix of light, if any.

    Without matrix products and powers of pixels, so that a pixel comes out the same in strips of any size.
    """

    def convert(pixels: np.ndarray) -> np.ndarray:
        top = np.iinfo(pixels.dtype).max
        levels = np.arange(top + 1) / top
        lights = [curve(levels) for curve in curves]
        # The light from which on a level is rounded up.
        steps = srgb_light((np.arange(top) + 0.5) / top)
        if matrix is None:
            tables = [np.searchsorted(steps, light, side="right").astype(pixels.dtype) for light in lights]
            bands = [tables[band % len(tables)][pixels[:, :, band]] for band in range(pixels.shape[2])]
            return np.stack(bands, axis=-1)
        made = np.empty_like(pixels)
        red, green, blue = (lights[band % len(lights)][pixels[:, :, band]] for band in range(3))
        for band, (r, g, b) in enumerate(matrix):
            made[:, :, band] = np.searchsorted(steps, red * r + green * g + blue * b, side="right")
        return made

    return convert


def _to_srgb_light(primaries: tuple[int, ...]) -> np.ndarray:
    """Return the matrix from linear RGB of these primaries to sRGB's, white to white (Bradford)."""
    of_primaries, white = to_xyz(primaries)
    return srgb_light_of_xyz(white) @ of_primaries
