"""What travels with a picture beside its pixels: one file a kind; here what is carried of resolution, XMP and IPTC."""

import json
from dataclasses import dataclass
from fractions import Fraction

from imgtx.codecs.metadata.density import Density


@dataclass(frozen=True)
class Metadata:
    """What a file says of its picture. It is carried as it is; what a change of the pixels makes untrue is corrected.

    `density` is that of the pixels as they are now, `xmp` a packet (RDF/XML) or b"", `iptc` the datasets of IPTC-IIM or
    b"". `size` is the (height, width) that all of it describes, as displayed, (0, 0) of a picture without a source, and
    `orientation` EXIF's 1..8, by which the stored pixels were turned.
    """

    density: Density | None = None
    xmp: bytes = b""
    iptc: bytes = b""
    size: tuple[int, int] = (0, 0)
    orientation: int = 1

    def enlargement(self, height: int, width: int) -> tuple[Fraction, Fraction]:
        """Return how many times as (high, wide) a picture of that size is as the source; 1 where there is none."""
        source_height, source_width = self.size
        if not source_height or not source_width:
            return Fraction(1), Fraction(1)
        return Fraction(height, source_height), Fraction(width, source_width)


NO_METADATA = Metadata()


def pack_metadata(metadata: Metadata) -> tuple[bytes, bytes, bytes]:
    """Return XMP, IPTC, and the rest as JSON."""
    density = metadata.density
    stated = None if density is None else [str(density.x), str(density.y), density.unit]
    return metadata.xmp, metadata.iptc, json.dumps([stated, metadata.size, metadata.orientation]).encode()


def unpack_metadata(xmp: bytes, iptc: bytes, rest: bytes) -> Metadata:
    """Return the metadata of `pack_metadata`."""
    stated, (height, width), orientation = json.loads(rest)
    density = None if stated is None else Density(Fraction(stated[0]), Fraction(stated[1]), stated[2])
    return Metadata(density, xmp, iptc, (height, width), orientation)
