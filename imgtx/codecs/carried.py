"""What travels beside the pixels, made true of a decoded picture, which is upright, and of a larger output."""

from dataclasses import replace

import imgtx.codecs.metadata.exif as exif
from imgtx.codecs.format import Writer
from imgtx.codecs.metadata import Metadata
from imgtx.codecs.metadata.iptc_to_xmp import add_datasets
from imgtx.codecs.metadata.provenance import Maker, mark
from imgtx.codecs.metadata.xmp import Packet
from imgtx.codecs.metadata.xmp_changes import correct
from imgtx.codecs.picture import Carry, Facts, Picture


def upright_metadata(facts: Facts) -> tuple[bytes, Metadata]:
    """Return a file's EXIF block and metadata as they are true of its pixels once these are upright.

    XMP stays as stored until it is written: `Metadata.orientation` says how the pixels were turned.
    """
    header, metadata = facts.header, facts.metadata
    block = exif.turned(facts.exif, header.orientation, *header.stored_size)
    density = metadata.density and metadata.density.turned(header.orientation)
    size = (header.height, header.width)
    return exif.upright(block), replace(metadata, density=density, size=size, orientation=header.orientation)


def output_metadata(
    carried: Picture | Carry, writer: Writer, format: str, size: tuple[int, int], maker: Maker | None
) -> tuple[bytes, Metadata, tuple[str, ...]]:
    """Return the EXIF block and the metadata that a file of `size` (height, width) may truly carry, and notes.

    The size on paper stays, so that resolutions grow with the pixels. maker: said in XMP, if the format holds it.
    """
    source = carried.metadata
    notes: list[str] = []
    high, wide = source.enlargement(*size)
    block = exif.scaled(exif.resized(exif.bare(carried.exif), *size), wide, high)
    if len(block) > writer.exif_limit:
        block = b""
    if carried.exif and not block:
        notes.append("exif-dropped")
    density = source.density
    if density and density.unit and (high, wide) != (1, 1):
        density = density.times(wide, high)
        notes.append("resolution-scaled")
    if density and not writer.holds_density(density):
        if writer.exif_limit and not carried.exif:
            block = exif.of_density(density)
        if exif.density(block) is None:
            notes.append("resolution-dropped")
        density = None
    iptc = source.iptc if writer.iptc else b""
    if source.iptc and not iptc and not writer.holds_xmp(b""):
        notes.append("iptc-dropped")
    xmp = _output_xmp(source, writer, format, size, maker, notes)
    return block, Metadata(density, xmp, iptc, size), tuple(notes)


def _output_xmp(
    source: Metadata,
    writer: Writer,
    format: str,
    size: tuple[int, int],
    maker: Maker | None,
    notes: list[str],
) -> bytes:
    """Return the packet of an output, or b""."""
    packet: Packet | None = None
    if source.xmp and writer.holds_xmp(b""):
        try:
            packet = Packet(source.xmp)
        except ValueError:
            pass
        else:
            correct(packet, source, size, format)
    if source.xmp and packet is None:
        notes.append("xmp-dropped")
    if not writer.holds_xmp(b""):
        return b""
    if source.iptc and not writer.iptc:
        packet = packet or Packet()
        complete = add_datasets(packet, source.iptc)
        notes += ["iptc->xmp"] if complete else ["iptc->xmp", "iptc-dropped"]
    if maker:
        packet = packet or Packet()
        mark(packet, maker)
    made = packet.to_bytes() if packet else b""
    if not writer.holds_xmp(made):
        # Beyond the size that the source's own packet may have; never of what a maker says alone.
        notes.append("xmp-dropped")
        return b""
    return made
