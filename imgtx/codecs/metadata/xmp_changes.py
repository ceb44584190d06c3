"""What of an XMP packet a change of the pixels makes untrue: sizes, orientation, resolution, attached files.

Tags that say the same in EXIF are treated as `imgtx.codecs.metadata.exif` treats them.
"""

from fractions import Fraction
from typing import Any

from imgtx.codecs.metadata import Metadata
from imgtx.codecs.metadata.exif import turned_point
from imgtx.codecs.metadata.xmp import XMP, Packet, fields_of, number_of, set_value, value_of

_TIFF = "http://ns.adobe.com/tiff/1.0/"
_EXIF = "http://ns.adobe.com/exif/1.0/"
_DC = "http://purl.org/dc/elements/1.1/"
_PANORAMA = "http://ns.google.com/photos/1.0/panorama/"
_REGIONS = "http://www.metadataworkinggroup.com/schemas/regions/"
_AREA = "http://ns.adobe.com/xmp/sType/Area#"
_SIZE = "http://ns.adobe.com/xap/1.0/sType/Dimensions#"
# Microsoft's areas of people: "x, y, width, height" as shares of a side.
_PEOPLE = "http://ns.microsoft.com/photo/1.2/t/Region#"
# Resolutions of paper and of the sensor, along x and y.
_RATES = ((_TIFF, "XResolution", "YResolution"), (_EXIF, "FocalPlaneXResolution", "FocalPlaneYResolution"))
# Pixels of a panorama along x and y: grow with the picture.
_PANORAMA_X = (
    "CroppedAreaImageWidthPixels",
    "CroppedAreaLeftPixels",
    "FullPanoWidthPixels",
    "LargestValidInteriorRectLeft",
    "LargestValidInteriorRectWidth",
)
_PANORAMA_Y = (
    "CroppedAreaImageHeightPixels",
    "CroppedAreaTopPixels",
    "FullPanoHeightPixels",
    "LargestValidInteriorRectTop",
    "LargestValidInteriorRectHeight",
)
# What says that something is attached to the picture, which is not carried, and small copies of it.
ATTACHMENTS = (
    ("http://ns.google.com/photos/1.0/container/", ""),
    ("http://ns.google.com/photos/1.0/camera/", "Motion"),
    ("http://ns.google.com/photos/1.0/camera/", "MicroVideo"),
    ("http://ns.google.com/photos/1.0/depthmap/", ""),
    ("http://ns.google.com/photos/1.0/image/", ""),
    ("http://ns.google.com/photos/1.0/audio/", ""),
    ("http://ns.google.com/photos/dd/1.0/device/", ""),
    ("http://ns.adobe.com/hdr-gain-map/1.0/", ""),
    ("http://ns.apple.com/HDRGainMap/1.0/", ""),
    (XMP, "Thumbnails"),
)


def without_attachments(packet: Packet) -> None:
    """Remove what speaks of files that are attached to the picture."""
    for namespace, name in ATTACHMENTS:
        packet.remove(namespace, name)


def correct(packet: Packet, source: Metadata, size: tuple[int, int], format: str) -> None:
    """Make a source's packet true of an output of `size` (height, width), upright, in a format."""
    height, width = size
    high, wide = source.enlargement(height, width)
    without_attachments(packet)
    for namespace, name, value in (
        (_TIFF, "Orientation", "1"),
        (_TIFF, "ImageWidth", str(width)),
        (_TIFF, "ImageLength", str(height)),
        (_EXIF, "PixelXDimension", str(width)),
        (_EXIF, "PixelYDimension", str(height)),
        (_DC, "format", f"image/{format}"),
    ):
        if packet.get(namespace, name) not in ("", value):
            packet.replace(namespace, name, value)
    for namespace, across, down in _RATES:
        x, y = packet.find(namespace, across), packet.find(namespace, down)
        if x is not None and y is not None:
            if source.orientation >= 5:
                _exchange(x, y)
            _scale(x, wide, rational=True)
            _scale(y, high, rational=True)
    for names, factor in ((_PANORAMA_X, wide), (_PANORAMA_Y, high)):
        for name in names:
            if (node := packet.find(_PANORAMA, name)) is not None:
                _scale(node, factor)
    if source.orientation > 1 and not _displayed_regions(packet, source):
        for area in packet.elements(_REGIONS, "Area"):
            _turn_area(area, source.orientation)
        for rectangle in packet.values(_PEOPLE, "Rectangle"):
            _turn_rectangle(rectangle, source.orientation)
    for dimensions in packet.elements(_REGIONS, "AppliedToDimensions"):
        sides = fields_of(dimensions)
        for name, side in (("w", width), ("h", height)):
            if (_SIZE, name) in sides:
                set_value(sides[_SIZE, name], str(side))


def _displayed_regions(packet: Packet, source: Metadata) -> bool:
    """Return whether faces and other areas, shares of a side, are those of the picture as displayed.

    By the guidance of the Metadata Working Group they are those as stored; some programs write them otherwise, which
    the size beside them shows where the picture was turned by a quarter.
    """
    if source.orientation < 5:
        return False
    for dimensions in packet.elements(_REGIONS, "AppliedToDimensions"):
        sides = fields_of(dimensions)
        stated = tuple(number_of(sides[_SIZE, name]) if (_SIZE, name) in sides else None for name in "hw")
        if stated == source.size != source.size[::-1]:
            return True
    return False


def _turn_area(area: Any, orientation: int) -> None:
    fields = {name: node for (namespace, name), node in fields_of(area).items() if namespace == _AREA}
    x, y = (number_of(fields[name]) if name in fields else None for name in "xy")
    if x is None or y is None:
        return
    for name, value in zip("xy", turned_point(float(x), float(y), 1.0, 1.0, orientation), strict=True):
        set_value(fields[name], _share(value))
    if orientation >= 5 and "w" in fields and "h" in fields:
        _exchange(fields["w"], fields["h"])


def _turn_rectangle(rectangle: Any, orientation: int) -> None:
    try:
        x, y, width, height = map(float, value_of(rectangle).split(","))
    except ValueError:
        return
    corners = [turned_point(*corner, 1.0, 1.0, orientation) for corner in ((x, y), (x + width, y + height))]
    (left, right), (top, bottom) = map(sorted, zip(*corners, strict=True))
    set_value(rectangle, ", ".join(map(_share, (left, top, right - left, bottom - top))))


def _share(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _exchange(one: Any, other: Any) -> None:
    first, second = value_of(one), value_of(other)
    set_value(one, second)
    set_value(other, first)


def _scale(node: Any, factor: Fraction, *, rational: bool = False) -> None:
    """Multiply a number where it is one; XMP writes resolutions as two whole numbers with a slash."""
    number = number_of(node)
    if number is None or factor == 1:
        return
    made = number * factor
    if rational:
        parts = value_of(node).partition("/")[2].strip()
        # With the same denominator if it can be.
        whole = made * int(parts) if parts.isdigit() else made
        text = f"{whole.numerator}/{parts}" if parts.isdigit() and whole.denominator == 1 else f"{made}"
        set_value(node, text if "/" in text else f"{text}/1")
    else:
        set_value(node, str(round(made)))
