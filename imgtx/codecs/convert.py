"""The rules by which samples change form, each with its name in the ledger (`NOTES`).

`Converter` takes stored samples to pixels, `reduced` takes pixels to what a format can hold. Both work on any strip of
rows, so that pictures in memory and pictures on disk go by the same rules.
"""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from imgtx.codecs.format import Writer
from imgtx.codecs.lab import LAB_FORMS, lab_to_srgb
from imgtx.codecs.metadata.profiles import profile_fits
from imgtx.codecs.picture import Facts, Header, Picture

if TYPE_CHECKING:
    from PIL.Image import Image

# Every conversion and loss that the notes of `decode` and `encode` may name.
NOTES = {
    "full-size-taken": "the TIFF begins with a smaller copy of its picture; the full-size one was taken",
    "oriented": "turned as its EXIF orientation says; the tag now says upright",
    "palette->rgb": "palette colours written out",
    "1bit->grey": "black and white became 0 and 255",
    "lowbit->grey": "2 or 4 bit grey scaled exactly to 8 bit",
    "cmyk->srgb": "CMYK converted to sRGB through its own profile, perceptual intent",
    "cmyk->rgb": "CMYK without a usable profile converted by (255 - ink) * (255 - black) / 255",
    "lab->srgb": "L*a*b* under a white of D50 converted to sRGB; colours that sRGB does not have are clipped",
    "alpha-unpremultiplied": "colours that were multiplied by their alpha were divided by it",
    "16bit->8bit": "the output format has 8 bits: value / 257, rounded",
    "alpha->white": "the output format has no alpha: laid over white",
    "grey->rgb": "the output format has no grey: three equal channels",
    "icc->srgb": "the output format holds no such profile: converted through it to sRGB, perceptual intent",
    "gamma->srgb": "a PNG's gamma and primaries, which other formats do not hold: converted to sRGB",
    "cicp->srgb": "a PNG's cICP colour description, which other formats do not hold: converted to sRGB",
    "icc-dropped": "the profile is damaged, of another colour space, or means sRGB where the output format holds none",
    "resolution-scaled": "dots per inch were multiplied by the scale, in EXIF too: the picture keeps its size on paper",
    "resolution-dropped": "dots per inch, or the shape of pixels, which the output format cannot hold, are not carried",
    "exif-dropped": "the EXIF block is damaged, too large, or the output format holds none",
    "xmp-dropped": "XMP that is damaged or too large, or that the output format has no place for, is not carried",
    "iptc->xmp": "the output format has no place for IPTC datasets: said in XMP, as IPTC maps them",
    "iptc-dropped": "IPTC datasets that are damaged, or that the output format has no place for, are not carried",
    "photoshop-dropped": "Photoshop's resources other than IPTC are not carried",
    "text-dropped": "text chunks and comments are not carried",
    "sbit-dropped": "that only some bits of a PNG's levels count (sBIT) is not true of the output",
    "chromaticities-dropped": "a TIFF's primaries, white or transfer curves, without a profile, are not carried",
    "chunks-dropped": "PNG and WebP chunks for which there is no other note are not carried",
    "tags-dropped": "TIFF tags for which there is no other note are not carried (of maps, of programs)",
    "app-segments-dropped": "JPEG segments for which there is no other note are not carried",
    "extra-channel-dropped": "a channel that is not stated to be alpha is not carried",
    "levels-scaled": "levels of another depth than 8 or 16 bits scaled to all levels of these",
    "turned": "turned or mirrored as the AVIF or HEIC file says",
    "largest-taken": "an icon of several sizes: the largest was taken",
    "layers-merged": "the flat picture of a PSD was taken; its layers are not carried",
    "gain-map-dropped": "the gain map, by which HDR screens show the picture brighter, is not carried",
    "motion-video-dropped": "the video of a motion photo is not carried",
    "depth-dropped": "the depth map beside the picture is not carried",
    "audio-dropped": "the sound beside the picture is not carried",
    "end-missing": "the file lacks its end marker (JPEG's EOI, PNG's IEND), or it is damaged; every pixel is there",
    "damaged-chunk-dropped": "a PNG chunk that decides no pixel fails its checksum and was left out, as viewers do",
    "trailing-bytes-dropped": "the file goes on behind the picture's end; what follows is not carried",
    "damage-accepted": "the file ends too early; what the decoder recovered was taken, `missing` is the share of "
    "rows without pixels",
    "detail-missing": "the truncated picture is stored coarse to fine, or ends within its first rows: it lacks detail",
    "extra-pictures-dropped": "the further pictures in a JPEG, AVIF or HEIC file are not carried",
}
_FORM_NOTES = {
    "palette": "palette->rgb",
    "1bit": "1bit->grey",
    "lowbit": "lowbit->grey",
    **dict.fromkeys(LAB_FORMS.values(), "lab->srgb"),
}


class Converter:
    """Converts samples as stored to pixels and alpha, by the rules of `NOTES`, in any strip of rows.

    `icc` is the profile of the converted pixels, `colour` their PNG chunks (`imgtx.codecs.colour`), `notes` every
    conversion and loss of the picture.
    """

    def __init__(self, facts: Facts):
        self._header = facts.header
        self._cmyk: Callable[[np.ndarray], np.ndarray] | None = None
        self._in_lab = facts.header.form in LAB_FORMS.values()
        described = facts.header.form != "cmyk" and not self._in_lab
        self.icc = facts.icc if described and profile_fits(facts.icc, facts.header.channels) else b""
        self.colour = facts.colour
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
        # Profiles of Lab say what is true of it anyway.
        said = "cmyk->srgb" in notes or (self._in_lab and facts.icc[16:20] == b"Lab ")
        if facts.icc and not self.icc and not said:
            notes.append("icc-dropped")
        self.notes = tuple(notes)

    def __call__(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """(rows, width, bands) as stored -> pixels (rows, width, 1 or 3), alpha (rows, width) or None."""
        if self._cmyk:
            return self._cmyk(samples), None
        alpha = samples[:, :, -1] if self._header.alpha else None
        colours = samples.shape[2] - self._header.alpha
        if colours < (1 if self._header.form == "palette" else self._header.channels):
            raise ValueError(f"{samples.shape[2]} bands; its header states {self._header}")
        if self._in_lab:
            return lab_to_srgb(samples[:, :, :3], self._header.form), alpha
        if self._header.channels == 3 and colours < 3:
            # libvips makes a palette of greys grey.
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


def oriented(plane: np.ndarray, orientation: int) -> np.ndarray:
    """Turn (height, width, ...) from EXIF orientation 1..8 to upright; returns a view."""
    if orientation >= 5:
        plane = plane.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        plane = plane[::-1]
    if orientation in (2, 3, 6, 7):
        plane = plane[:, ::-1]
    return plane


def reduced(
    pixels: np.ndarray,
    alpha: np.ndarray | None,
    writer: Writer,
    to_srgb: Callable[[np.ndarray], np.ndarray] | None,
    notes: list[str],
) -> tuple[np.ndarray, np.ndarray | None]:
    """Convert pixels (rows, width, 1 or 3) and alpha (rows, width) to what a format can hold.

    Takes any strip of rows; each conversion is added to `notes` once. to_srgb: `Shown.convert` of
    `imgtx.codecs.colour`, whose notes are not added here.
    """

    def note(name: str) -> None:
        if name not in notes:
            notes.append(name)

    if to_srgb:
        pixels = to_srgb(pixels)
    if pixels.dtype == np.uint16 and not writer.depth16:
        note("16bit->8bit")
        pixels = _to_8bit(pixels)
        alpha = None if alpha is None else _to_8bit(alpha)
    if alpha is not None and not writer.alpha:
        note("alpha->white")
        cover = alpha[:, :, None].astype(np.uint16)
        pixels = ((pixels * cover + 255 * (255 - cover) + 127) // 255).astype(np.uint8)
        alpha = None
    if pixels.shape[2] == 1 and not writer.grey:
        note("grey->rgb")
        pixels = np.repeat(pixels, 3, axis=2)
    return pixels, alpha


def _to_8bit(values: np.ndarray) -> np.ndarray:
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def as_stated(samples: np.ndarray, header: Header) -> np.ndarray:
    """Return a decoder's samples (height, width, bands). Raises ValueError if they contradict the header."""
    if samples.shape[:2] != header.stored_size or samples.itemsize * 8 != header.depth:
        raise ValueError(f"the pixels are {samples.shape} {samples.dtype}, its header {header.stored_size}")
    return samples


def widened(samples: np.ndarray, bits: int) -> np.ndarray:
    """Scale levels of `bits`, which a decoder shifted to the top of its 8 or 16, to all levels of these."""
    full = np.iinfo(samples.dtype)
    if bits == full.bits:
        return samples
    top = 2**bits - 1
    table = (np.arange(top + 1, dtype=np.int64) * full.max + top // 2) // top
    return table.astype(samples.dtype)[samples >> (full.bits - bits)]


def from_pillow(image: "Image", header: Header) -> np.ndarray:
    """Load an image that Pillow opened: (height, width, bands) uint8 as stored."""
    image.load()
    mode = ("L" if header.channels == 1 else "RGB") + ("A" if header.alpha else "")
    if image.mode != mode:
        image = image.convert(mode)
    samples = np.asarray(image)
    return as_stated(samples[:, :, None] if samples.ndim == 2 else samples, header)


def to_pillow(picture: Picture) -> "Image":
    """Make a Pillow image of an 8-bit picture."""
    from PIL import Image

    samples = picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])
    return Image.fromarray(samples[:, :, 0] if samples.shape[2] == 1 else samples)
