"""IPTC datasets are carried byte for byte where a format holds them, and said in XMP where it holds that alone."""

import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgtx.codecs import NOTES, Picture, decode, encode
from imgtx.codecs.metadata import iptc
from imgtx.codecs.metadata.xmp import Packet
from tests.support import zoo
from tests.support.both_ways import both_ways
from tests.support.metadata import exiftool, iptc_in, jpeg_segments, needs_exiftool, xmp_in
from tests.support.pictures import MAX_PIXELS, picture

DC, PHOTOSHOP = "http://purl.org/dc/elements/1.1/", "http://ns.adobe.com/photoshop/1.0/"


def dataset(record: int, number: int, value: bytes) -> bytes:
    """Return a dataset; one of 32 KB and more has its length in four bytes."""
    if len(value) < 0x8000:
        return struct.pack(">BBBH", 0x1C, record, number, len(value)) + value
    return struct.pack(">BBBHI", 0x1C, record, number, 0x8004, len(value)) + value


IIM = (
    dataset(1, 90, b"\x1b%G")
    + dataset(2, 0, b"\0\4")
    + dataset(2, 25, b"one")
    + dataset(2, 25, "zwölf".encode())
    + dataset(2, 55, b"20240229")
    + dataset(2, 60, b"101500+0200")
    + dataset(2, 80, b"A. Nobody")
    + dataset(2, 90, b"Berlin")
    + dataset(2, 120, "Die Überschrift <3".encode())
)


def described(data: bytes = IIM, xmp: bytes = b"") -> Picture:
    source = picture(zoo.photo())
    return replace(source, metadata=replace(source.metadata, iptc=data, xmp=xmp, size=(48, 64)))


def with_segment(jpeg: bytes, *bodies: bytes) -> bytes:
    segments = b"".join(struct.pack(">BBH", 0xFF, 0xED, len(body) + 2) + body for body in bodies)
    return jpeg[:20] + segments + jpeg[20:]


@pytest.mark.parametrize("format", ["png", "jpeg", "tiff"])
def test_datasets_are_carried_byte_for_byte(format, tmp_path):
    for made in both_ways(described(), format, tmp_path)[:2]:
        assert iptc_in(made) == IIM
        again = decode(made, max_pixels=MAX_PIXELS)
        assert again.metadata.iptc == IIM
        assert again.notes == ()


@pytest.mark.parametrize("format", ["png", "jpeg", "tiff"])
@pytest.mark.parametrize("length", [1, 2, 3, 33_000, 200_000])
def test_of_any_length(format, length, tmp_path):
    data = IIM + dataset(2, 202, b"\x1c" * length)
    for made in both_ways(described(data), format, tmp_path)[:2]:
        assert decode(made, max_pixels=MAX_PIXELS).metadata.iptc == data
        if format == "jpeg":
            assert all(len(body) <= 65_533 for _, body in jpeg_segments(made))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("written", ["bytes", "numbers", "swapped numbers"])
def test_tags_of_bytes_and_of_numbers(order, written):
    padded = IIM + bytes(-len(IIM) % 4)
    if written == "bytes":
        tag: bytes | list[int] = IIM
    else:
        other = {"<": ">", ">": "<"}[order]
        numbers = struct.unpack(f"{order if written == 'numbers' else other}{len(padded) // 4}I", padded)
        tag = [*numbers]
    got = decode(zoo.rgb_tiff({33723: tag}, order=order), max_pixels=MAX_PIXELS)
    assert got.metadata.iptc == IIM
    assert got.notes == ()


def test_photoshops_other_resources_are_noted():
    jpeg = zoo.saved(zoo.photo(), "JPEG")
    named = b"8BIM" + struct.pack(">H", 0x07D0) + b"\4path\0" + struct.pack(">I", 3) + b"abc\0"
    digest = b"8BIM" + struct.pack(">HHI", 0x0425, 0, 16) + bytes(16)
    both = named + iptc.to_resource(IIM) + digest
    for bodies in ([iptc.SEGMENT + both], [iptc.SEGMENT + both[:40], iptc.SEGMENT + both[40:]]):
        got = decode(with_segment(jpeg, *bodies), max_pixels=MAX_PIXELS)
        assert (got.metadata.iptc, got.notes) == (IIM, ("photoshop-dropped",))
    without = decode(with_segment(jpeg, iptc.SEGMENT + iptc.to_resource(IIM) + digest), max_pixels=MAX_PIXELS)
    assert (without.metadata.iptc, without.notes) == (IIM, ())
    tiff = decode(zoo.rgb_tiff({34377: both}), max_pixels=MAX_PIXELS)
    assert (tiff.metadata.iptc, tiff.notes) == (IIM, ("photoshop-dropped",))


def test_a_damaged_end_is_noted():
    jpeg = zoo.saved(zoo.photo(), "JPEG")
    for bad, kept in ((IIM[:-1], IIM[: IIM.rindex(b"\x1c")]), (b"what", b""), (IIM + b"rest", IIM)):
        got = decode(with_segment(jpeg, iptc.SEGMENT + iptc.to_resource(bad)), max_pixels=MAX_PIXELS)
        assert (got.metadata.iptc, got.notes) == (kept, ("iptc-dropped",))


@pytest.mark.parametrize("format", ["webp", "avif"])
@pytest.mark.parametrize("with_xmp", [False, True])
def test_formats_of_xmp_alone_say_them_there(format, with_xmp, tmp_path):
    xmp = Packet()
    xmp.add(
        '<rdf:Description xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
        f'xmlns:photoshop="{PHOTOSHOP}" photoshop:City="Rome"/>'
    )
    source = described(IIM, xmp.to_bytes() if with_xmp else b"")
    for made in both_ways(source, format, tmp_path)[:2]:
        got = Packet(xmp_in(made))
        assert got.get(PHOTOSHOP, "DateCreated") == "2024-02-29T10:15:00+02:00"
        # What the packet says already stays.
        assert got.get(PHOTOSHOP, "City") == ("Rome" if with_xmp else "Berlin")
        text = xmp_in(made).decode()
        for part in (
            "<rdf:li>one</rdf:li><rdf:li>zwölf</rdf:li>",
            ">Die Überschrift &lt;3<",
            "<rdf:Seq><rdf:li>A. No",
        ):
            assert part in text
    assert both_ways(source, format, tmp_path)[2] == ("iptc->xmp",)


def test_datasets_without_a_place_in_xmp_are_noted(tmp_path):
    rare = described(IIM + dataset(2, 118, b"contact"))
    assert both_ways(rare, "webp", tmp_path)[2] == ("iptc->xmp", "iptc-dropped")
    assert both_ways(rare, "bmp", tmp_path)[2] == ("iptc-dropped",)
    assert {"iptc->xmp", "iptc-dropped"} <= NOTES.keys()


def test_texts_without_a_character_set(tmp_path):
    made, _ = encode(described(dataset(2, 90, b"K\xf6ln\x01")), "webp", quality=90)
    assert Packet(xmp_in(made)).get(PHOTOSHOP, "City") == "Köln"


@given(st.binary(max_size=60), st.integers(0, 200), st.binary(max_size=9))
def test_no_datasets_raise(start, at, noise):
    for bad in (start, b"\x1c" + start, IIM[:at] + noise + IIM[at:]):
        kept = iptc.datasets(bad)
        assert bad.startswith(kept)
        assert iptc.datasets(kept) == kept
        iptc.from_resources(b"8BIM" + bad)
        iptc.from_raw_profile(b"\niptc\n" + bad)
        encode(replace(described(kept), pixels=zoo.photo(2, 3)), "webp", quality=90)


@needs_exiftool
@pytest.mark.parametrize("format", ["png", "jpeg", "tiff", "webp"])
def test_exiftool_reads_them(format, tmp_path):
    for made in both_ways(described(), format, tmp_path)[:2]:
        path = tmp_path / f"out.{format}"
        path.write_bytes(made)
        got = exiftool(path)
        if format == "webp":
            assert got["XMP-dc:Subject"] == ["one", "zwölf"]
            assert got["XMP-dc:Description"] == "Die Überschrift <3"
            assert got["XMP-dc:Creator"] == ["A. Nobody"]
            assert got["XMP-photoshop:DateCreated"] == "2024:02:29 10:15:00+02:00"
        else:
            assert got["IPTC:Keywords"] == ["one", "zwölf"]
            assert got["IPTC:Caption-Abstract"] == "Die Überschrift <3"
        warnings = exiftool(path, "-validate", "-warning")
        assert not any("IPTC" in str(value) for name, value in warnings.items() if name.endswith("Warning"))
