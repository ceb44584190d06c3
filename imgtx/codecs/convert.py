"""The rules by which samples change form, each with the name that the ledger gives it (`NOTES`).

`Converter` takes stored samples to pixels, `reduced` takes pixels to what 8-bit formats hold. Both work on
any strip of rows, so that pictures in memory and pictures on disk go by the same rules.
"""

import io
import struct
from collections.abc import Callable

import numpy as np

from imgtx.codecs.picture import Facts

# Every conversion that `decode` and `encode` may name in a picture's notes.
NOTES = {
    "oriented": "turned as its EXIF orientation says; the tag now says upright",
    "palette->rgb": "palette colours written out",
    "1bit->grey": "black and white became 0 and 255",
    "lowbit->grey": "2 or 4 bit grey scaled exactly to 8 bit",
    "cmyk->srgb": "CMYK converted to sRGB through its own profile, perceptual intent",
    "cmyk->rgb": "CMYK without a usable profile converted by (255 - ink) * (255 - black) / 255",
    "alpha-unpremultiplied": "colours that were multiplied by their alpha were divided by it",
    "16bit->8bit": "the output format has 8 bits: value / 257, rounded",
    "alpha->white": "the output format has no alpha: laid over white",
    "grey->rgb": "the output format has no grey: three equal channels",
    "icc-dropped": "the profile is damaged, of another colour space, or the output format holds none",
    "exif-dropped": "the EXIF block is damaged, too large, or the output format holds none",
    "xmp-dropped": "XMP is not carried",
    "iptc-dropped": "IPTC is not carried",
    "photoshop-dropped": "Photoshop's resources are not carried",
    "text-dropped": "text chunks and comments are not carried",
    "gamma-dropped": "a PNG gamma other than sRGB's, without a profile, is not carried",
    "chromaticities-dropped": "primaries, white or transfer curves, without a profile, are not carried",
    "cicp-dropped": "PNG's cICP colour description is not carried",
    "chunks-dropped": "PNG and WebP chunks for which there is no other word are not carried",
    "tags-dropped": "TIFF tags for which there is no other word are not carried (of maps, of programs)",
    "app-segments-dropped": "JPEG segments for which there is no other word are not carried",
    "extra-channel-dropped": "a channel that is not stated to be alpha is not carried",
    "extra-pictures-dropped": "the further pictures of a multi-picture JPEG are not carried",
}
_FORM_NOTES = {"palette": "palette->rgb", "1bit": "1bit->grey", "lowbit": "lowbit->grey"}


class Converter:
    """Samples as stored -> pixels and alpha, by the rules of `NOTES`; works on any strip of rows.

    `icc` is the profile of the pixels it delivers, `notes` every conversion and loss of the picture.
    """

    def __init__(self, facts: Facts):
        self._header = facts.header
        self._cmyk: Callable[[np.ndarray], np.ndarray] | None = None
        self.icc = (
            facts.icc
            if facts.header.form != "cmyk" and profile_fits(facts.icc, facts.header.channels)
            else b""
        )
        notes = list(facts.notes)
        if facts.header.orientation != 1:
            notes.append("oriented")
        if facts.header.form in _FORM_NOTES:
            notes.append(_FORM_NOTES[facts.header.form])
        if facts.premultiplied:
            notes.append("alpha-unpremultiplied")
        if facts.header.form == "cmyk":
            self._cmyk, note = _cmyk_converter(facts.icc)
            notes.append(note)
        if facts.icc and not self.icc and "cmyk->srgb" not in notes:
            notes.append("icc-dropped")
        self.notes = tuple(notes)

    def __call__(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """`samples` (rows, width, bands) -> pixels (rows, width, 1 or 3), alpha (rows, width) or None."""
        if self._cmyk:
            return self._cmyk(samples), None
        alpha = samples[:, :, -1] if self._header.alpha else None
        colours = samples.shape[2] - self._header.alpha
        if colours < (1 if self._header.form == "palette" else self._header.channels):
            raise ValueError(f"{samples.shape[2]} bands; its header tells of {self._header}")
        if self._header.channels == 3 and colours < 3:  # libvips makes a grey palette grey
            return np.repeat(samples[:, :, :1], 3, axis=2), alpha
        return samples[:, :, : self._header.channels], alpha


def _cmyk_converter(icc: bytes) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    from PIL import Image, ImageCms

    def image(samples: np.ndarray) -> Image.Image:
        height, width, _ = samples.shape
        return Image.frombytes("CMYK", (width, height), np.ascontiguousarray(samples[:, :, :4]))

    if icc[16:20] == b"CMYK":
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            to_srgb = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), "CMYK", "RGB")
        except (ImageCms.PyCMSError, OSError):
            pass
        else:
            return lambda samples: np.asarray(ImageCms.applyTransform(image(samples), to_srgb)), "cmyk->srgb"
    return lambda samples: np.asarray(image(samples).convert("RGB")), "cmyk->rgb"


def profile_fits(icc: bytes, channels: int) -> bool:
    """Whether a profile is whole and of the colour space that pixels with so many channels have."""
    whole = len(icc) >= 132 and icc[36:40] == b"acsp" and struct.unpack_from(">I", icc)[0] <= len(icc)
    return whole and icc[16:20] == (b"GRAY" if channels == 1 else b"RGB ")


def oriented(plane: np.ndarray, orientation: int) -> np.ndarray:
    """A view of (height, width, ...) turned from EXIF orientation 1..8 to upright."""
    if orientation >= 5:
        plane = plane.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        plane = plane[::-1]
    if orientation in (2, 3, 6, 7):
        plane = plane[:, ::-1]
    return plane


def reduced(
    pixels: np.ndarray, alpha: np.ndarray | None, format: str, notes: list[str]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels and alpha as jpeg, webp and bmp can hold them: 8 bit, no alpha but in webp, no grey in webp.

    Takes any strip of rows; each rule is named in `notes` once.
    """

    def note(name: str) -> None:
        if name not in notes:
            notes.append(name)

    if pixels.dtype == np.uint16:
        note("16bit->8bit")
        pixels = _to_8bit(pixels)
        alpha = None if alpha is None else _to_8bit(alpha)
    if alpha is not None and format != "webp":
        note("alpha->white")
        cover = alpha[:, :, None].astype(np.uint16)
        pixels = ((pixels * cover + 255 * (255 - cover) + 127) // 255).astype(np.uint8)
        alpha = None
    if format == "webp" and pixels.shape[2] == 1:
        note("grey->rgb")
        pixels = np.repeat(pixels, 3, axis=2)
    return pixels, alpha


def _to_8bit(values: np.ndarray) -> np.ndarray:
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
