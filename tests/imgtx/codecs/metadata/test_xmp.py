"""XMP is carried into every format that holds it, made true of the output, and says what made it."""

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imgtx.codecs import NOTES, Maker, Picture, decode, encode
from imgtx.codecs.metadata.provenance import CHANGED, ENHANCED, MADE
from imgtx.codecs.metadata.xmp import Packet, is_usable
from tests.support import zoo
from tests.support.both_ways import both_ways
from tests.support.metadata import NAMES, exiftool, jpeg_segments, needs_exiftool, packet, properties, xmp_in
from tests.support.pictures import MAX_PIXELS, picture

HELD_BY = ("png", "jpeg", "webp", "tiff", "avif")
MAKER = Maker("imgtx 0.1.0", "super-resolution", "sr-x2", "0123456789abcdef" * 4)
TERMS = "http://cv.iptc.org/newscodes/digitalsourcetype/"


RICH = packet(
    'tiff:Orientation="6" tiff:ImageWidth="64" tiff:ImageLength="48" tiff:XResolution="300/1" tiff:YResolution="150/1" '
    'exif:PixelXDimension="64" dc:format="image/x-other" photoshop:Instructions="Two&#10;lines &amp; &quot;more&quot;" '
    'GPano:FullPanoWidthPixels="640" GPano:CroppedAreaTopPixels="12" GCamera:MotionPhoto="1" GCamera:BurstID="b" '
    'hdrgm:Version="1.0" Iptc4xmpExt:DigitalSourceType="' + TERMS + 'digitalCapture"',
    "<exif:PixelYDimension>48</exif:PixelYDimension>"
    '<dc:title><rdf:Alt><rdf:li xml:lang="x-default">Ein Bild ● 赤 &lt;3</rdf:li></rdf:Alt></dc:title>'
    "<xmp:Thumbnails><rdf:Alt><rdf:li>/9j/</rdf:li></rdf:Alt></xmp:Thumbnails>"
    "<Container:Directory><rdf:Seq><rdf:li/></rdf:Seq></Container:Directory>"
    '<xmpMM:History><rdf:Seq><rdf:li stEvt:action="saved" stEvt:softwareAgent="GIMP"/></rdf:Seq></xmpMM:History>'
    '<mwg-rs:Regions rdf:parseType="Resource"><mwg-rs:AppliedToDimensions stDim:w="64" stDim:h="48"/>'
    '<mwg-rs:RegionList><rdf:Bag><rdf:li rdf:parseType="Resource"><mwg-rs:Name>Ann</mwg-rs:Name>'
    '<mwg-rs:Area stArea:x="0.25" stArea:y="0.125" stArea:w="0.1" stArea:h="0.2" stArea:unit="normalized"/></rdf:li>'
    "</rdf:Bag></mwg-rs:RegionList></mwg-rs:Regions>"
    '<MP:RegionInfo rdf:parseType="Resource"><MP:Regions><rdf:Bag>'
    '<rdf:li MPReg:Rectangle="0.2, 0.025, 0.1, 0.2"/></rdf:Bag></MP:Regions></MP:RegionInfo>',
)


def turned_jpeg(xmp: bytes = RICH, orientation: int = 6) -> bytes:
    """Return a JPEG of 64 x 48 pixels as stored, with a packet, and EXIF's orientation."""
    return zoo.saved(zoo.photo(48, 64), "JPEG", exif=zoo.exif_block(orientation), xmp=xmp)


def enlarged(source: Picture, scale: int = 2) -> Picture:
    height, width, channels = source.pixels.shape
    return replace(source, pixels=np.zeros((height * scale, width * scale, channels), np.uint8), notes=())


@pytest.mark.parametrize("format", HELD_BY)
def test_a_packet_is_carried_and_made_true(format, tmp_path):
    source = decode(turned_jpeg(), max_pixels=MAX_PIXELS)
    assert source.metadata.xmp == RICH
    for made in both_ways(enlarged(source), format, tmp_path)[:2]:
        got = properties(xmp_in(made))
        expected = {
            "tiff:Orientation": "1",
            "tiff:ImageWidth": "96",
            "tiff:ImageLength": "128",
            "exif:PixelXDimension": "96",
            "exif:PixelYDimension": "128",
            # Turned by a quarter, then twice as many pixels on the same paper.
            "tiff:XResolution": "300/1",
            "tiff:YResolution": "600/1",
            "dc:format": f"image/{format}",
            "photoshop:Instructions": 'Two\nlines & "more"',
            "GPano:FullPanoWidthPixels": "1280",
            "GPano:CroppedAreaTopPixels": "24",
            "GCamera:BurstID": "b",
            "rdf:li": "Ein Bild ● 赤 <3",
            "stDim:w": "96",
            "stDim:h": "128",
            "stArea:x": "0.875",
            "stArea:y": "0.25",
            "stArea:w": "0.2",
            "stArea:h": "0.1",
            "MPReg:Rectangle": "0.775, 0.2, 0.2, 0.1",
            "rdf:about": "uuid:1",
        }
        assert {name: got.get(name) for name in expected if name != "rdf:li"} == {
            name: value for name, value in expected.items() if name != "rdf:li"
        }
        assert expected["rdf:li"].encode().replace(b"<", b"&lt;") in xmp_in(made)
        # Their files are not carried.
        assert (
            not {"xmp:Thumbnails", "Container:Directory", "GCamera:MotionPhoto", "hdrgm:Version"} & got.keys()
        )
        assert not any(name.startswith("imgtx:") for name in got)


@pytest.mark.parametrize("format", HELD_BY)
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_grey_and_transparent_pictures_carry_it_too(format, alpha, channels, tmp_path):
    pixels = zoo.photo(20, 30, channels).reshape(20, 30, channels)
    source = picture(pixels, np.full((20, 30), 7, np.uint8) if alpha else None)
    source = replace(
        source, metadata=replace(source.metadata, xmp=packet('dc:format="image/gif"'), size=(20, 30))
    )
    for made in both_ways(source, format, tmp_path, maker=MAKER)[:2]:
        got = properties(xmp_in(made))
        assert (got["dc:format"], got["imgtx:Model"]) == (f"image/{format}", "sr-x2")
        again = decode(made, max_pixels=MAX_PIXELS)
        assert again.metadata.xmp == xmp_in(made)
        assert "xmp-dropped" not in again.notes


@pytest.mark.parametrize("format", HELD_BY)
def test_where_nothing_is_untrue_and_nothing_is_said_its_bytes_stay(format, tmp_path):
    xmp = packet(
        'photoshop:City="A  B" xmp:Rating="3"', "<!-- by hand --><dc:source><![CDATA[<x>]]></dc:source>"
    )
    source = decode(zoo.saved(zoo.photo(), "JPEG", xmp=xmp), max_pixels=MAX_PIXELS)
    for made in both_ways(source, format, tmp_path)[:2]:
        assert xmp_in(made) == xmp


def test_a_format_without_xmp_notes_its_loss(tmp_path):
    source = decode(turned_jpeg(), max_pixels=MAX_PIXELS)
    one, other, notes = both_ways(source, "bmp", tmp_path, maker=MAKER)
    assert notes == ("exif-dropped", "xmp-dropped")
    assert b"xmpmeta" not in one + other
    # Nothing was lost of a picture that had none.
    assert encode(picture(zoo.photo()), "bmp", quality=90, maker=MAKER)[1] == ()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_faces_are_turned_with_the_picture(orientation, tmp_path):
    pixels = zoo.photo(40, 80)
    # A face that is centred on (0.25, 0.3) of the stored picture.
    pixels[8:16, 16:24] = 255
    area = packet(
        elements='<mwg-rs:Regions rdf:parseType="Resource"><mwg-rs:RegionList><rdf:Bag><rdf:li><rdf:Description>'
        '<mwg-rs:Area rdf:parseType="Resource"><stArea:x>0.25</stArea:x><stArea:y>0.3</stArea:y>'
        "<stArea:w>0.1</stArea:w><stArea:h>0.2</stArea:h></mwg-rs:Area></rdf:Description></rdf:li></rdf:Bag></mwg-rs:RegionList></mwg-rs:Regions>"
    )
    data = zoo.saved(pixels, "PNG", exif=zoo.exif_block(orientation))
    source = decode(data, max_pixels=MAX_PIXELS)
    source = replace(source, metadata=replace(source.metadata, xmp=area))
    got = properties(xmp_in(encode(source, "png", quality=90)[0]))
    height, width, _ = source.pixels.shape
    x, y = float(got["stArea:x"]) * width, float(got["stArea:y"]) * height
    wide, high = float(got["stArea:w"]) * width, float(got["stArea:h"]) * height
    box = (slice(round(y - high / 2), round(y + high / 2)), slice(round(x - wide / 2), round(x + wide / 2)))
    assert source.pixels[box].shape == (8, 8, 3)
    assert (source.pixels[box] == 255).all()


def test_faces_that_are_those_of_the_picture_as_displayed_stay():
    displayed = RICH.replace(b'stDim:w="64" stDim:h="48"', b'stDim:w="48" stDim:h="64"')
    source = decode(turned_jpeg(displayed), max_pixels=MAX_PIXELS)
    got = properties(xmp_in(encode(source, "png", quality=90)[0]))
    assert (got["stArea:x"], got["stArea:y"], got["stDim:w"]) == ("0.25", "0.125", "48")


class TestProvenance:
    @pytest.mark.parametrize("format", HELD_BY)
    def test_every_output_says_what_made_it(self, format, tmp_path):
        for made in both_ways(picture(zoo.photo()), format, tmp_path, maker=MAKER)[:2]:
            got = properties(xmp_in(made))
            assert got["imgtx:Software"] == got["stEvt:softwareAgent"] == "imgtx 0.1.0"
            assert (got["imgtx:Task"], got["imgtx:Model"]) == ("super-resolution", "sr-x2")
            assert got["imgtx:ModelDigest"] == MAKER.model_digest
            assert got["Iptc4xmpExt:DigitalSourceType"] == TERMS + "algorithmicallyEnhanced"
            assert "Iptc4xmpExt:AISystemUsed" not in got
        assert xmp_in(encode(picture(zoo.photo()), format, quality=90)[0]) == b""

    def test_the_history_goes_on_and_an_earlier_run_is_replaced(self):
        source = decode(turned_jpeg(), max_pixels=MAX_PIXELS)
        first = decode(encode(source, "png", quality=90, maker=MAKER)[0], max_pixels=MAX_PIXELS)
        second, _ = encode(
            first, "png", quality=90, maker=replace(MAKER, model='a "b" & <c>', task="restoration")
        )
        xmp = xmp_in(second)
        assert [
            xmp.count(word) for word in (b"imgtx:Model=", b"stEvt:softwareAgent=", b"<xmpMM:History")
        ] == [1, 3, 1]
        assert properties(xmp)["imgtx:Model"] == 'a "b" & <c>'

    @pytest.mark.parametrize(
        ("before", "source_type", "after"),
        [
            ("digitalCapture", ENHANCED, ENHANCED),
            ("negativeFilm", CHANGED, CHANGED),
            ("", ENHANCED, ENHANCED),
            # A made picture does not become a photo by being enlarged.
            (MADE, ENHANCED, MADE),
            (MADE, CHANGED, MADE),
            (CHANGED, ENHANCED, CHANGED),
            (CHANGED, CHANGED, CHANGED),
            ("compositeCapture", ENHANCED, "compositeCapture"),
            ("digitalCapture", MADE, MADE),
        ],
    )
    def test_the_source_type_is_never_weakened(self, before, source_type, after):
        xmp = packet(f'Iptc4xmpExt:DigitalSourceType="{TERMS}{before}"') if before else b""
        source = picture(zoo.photo())
        source = replace(source, metadata=replace(source.metadata, xmp=xmp))
        got = properties(
            xmp_in(encode(source, "png", quality=90, maker=replace(MAKER, source_type=source_type))[0])
        )
        assert got["Iptc4xmpExt:DigitalSourceType"] == TERMS + after
        assert ("Iptc4xmpExt:AISystemUsed" in got) == (source_type != ENHANCED)

    def test_a_damaged_packet_is_noted_and_replaced(self, tmp_path):
        source = decode(zoo.saved(zoo.photo(), "JPEG", xmp=b"<x:xmpmeta><rdf"), max_pixels=MAX_PIXELS)
        one, _, notes = both_ways(source, "png", tmp_path, maker=MAKER)
        assert notes == ("xmp-dropped",)
        assert properties(xmp_in(one))["imgtx:Model"] == "sr-x2"


class TestExtendedXmp:
    """JPEG holds 64 KB of a packet in its main segment, and the rest in others."""

    LONG = packet(
        f'photoshop:Instructions="{"i" * 70_000}" photoshop:City="Rome"',
        f"<dc:source>{'s' * 150_000}</dc:source><dc:relation><rdf:Bag>"
        + "".join(f"<rdf:li>{number}</rdf:li>" for number in range(900))
        + "</rdf:Bag></dc:relation>",
    )

    def source(self) -> Picture:
        source = picture(zoo.photo())
        return replace(source, metadata=replace(source.metadata, xmp=self.LONG, size=(48, 64)))

    def test_a_long_packet_is_split_and_joined(self, tmp_path):
        for made in both_ways(self.source(), "jpeg", tmp_path, maker=MAKER)[:2]:
            assert all(len(body) <= 65_533 for _, body in jpeg_segments(made))
            extensions = [
                body for _, body in jpeg_segments(made) if body.startswith(b"http://ns.adobe.com/xmp/ext")
            ]
            assert len(extensions) >= 3
            main = properties(xmp_in(made))
            assert (main["photoshop:City"], main["imgtx:Model"]) == ("Rome", "sr-x2")
            assert main["xmpNote:HasExtendedXMP"].encode() == extensions[0][35:67]
            again = decode(made, max_pixels=MAX_PIXELS)
            assert again.notes == ()
            got = properties(again.metadata.xmp)
            assert (len(got["photoshop:Instructions"]), len(got["dc:source"])) == (70_000, 150_000)
            assert again.metadata.xmp.count(b"<rdf:li>") == 900
            assert "xmpNote:HasExtendedXMP" not in got
            # And whole into a format without such limits.
            assert xmp_in(encode(again, "tiff", quality=90)[0]) == again.metadata.xmp

    def test_a_missing_segment_costs_its_properties_only_and_is_noted(self):
        data, _ = encode(self.source(), "jpeg", quality=90)
        last = [body for _, body in jpeg_segments(data) if body.startswith(b"http://ns.adobe.com/xmp/ext")][
            -1
        ]
        whole = struct.pack(">BBH", 0xFF, 0xE1, len(last) + 2) + last
        got = decode(data.replace(whole, b""), max_pixels=MAX_PIXELS)
        assert got.notes == ("xmp-dropped",)
        assert properties(got.metadata.xmp)["photoshop:City"] == "Rome"

    def test_one_structure_that_is_too_long_moves_whole(self):
        nested = (
            "<dc:relation>"
            + "<rdf:Bag><rdf:li>" * 9
            + "z" * 80_000
            + "</rdf:li></rdf:Bag>" * 9
            + "</dc:relation>"
        )
        source = picture(zoo.photo())
        source = replace(source, metadata=replace(source.metadata, xmp=packet(elements=nested)))
        data, notes = encode(source, "jpeg", quality=90)
        assert notes == ()
        assert b"z" * 80_000 in decode(data, max_pixels=MAX_PIXELS).metadata.xmp

    def test_what_cannot_be_split_is_dropped_with_a_note(self, tmp_path):
        # Not a property, and so in no extension.
        comment = packet().replace(b"<rdf:RDF>", b"<!--" + b"c" * 70_000 + b"--><rdf:RDF>")
        source = picture(zoo.photo())
        source = replace(source, metadata=replace(source.metadata, xmp=comment))
        one, _, notes = both_ways(source, "jpeg", tmp_path)
        assert notes == ("xmp-dropped",)
        assert xmp_in(one) == b""
        assert both_ways(source, "png", tmp_path)[2] == ()

    @needs_exiftool
    def test_exiftool_reads_all_of_it(self, tmp_path):
        path = tmp_path / "long.jpg"
        path.write_bytes(encode(self.source(), "jpeg", quality=90, maker=MAKER)[0])
        got = exiftool(path)
        assert got["XMP-photoshop:Instructions"] == "i" * 70_000
        assert got["XMP-dc:Source"] == "s" * 150_000
        assert len(got["XMP-dc:Relation"]) == 900
        assert got["XMP-imgtx:Model"] == "sr-x2"


class TestPackets:
    def test_other_encodings_and_what_surrounds_a_packet(self):
        text = packet('photoshop:City="Köln"').decode().replace("\ufeff", "")
        for data in (
            text.encode("utf-16-le"),
            ("\ufeff" + text).encode("utf-16-be"),
            b"\xef\xbb\xbf" + text.encode() + b"\0\0",
            b"\n \n" + text.encode(),
        ):
            assert Packet(data).get(NAMES["photoshop"], "City") == "Köln"

    def test_a_changed_packet_is_found_by_programs_that_search_for_it(self):
        whole = packet('photoshop:City="Rome"')
        bare = Packet(whole[whole.index(b"<x:xmpmeta") : whole.index(b"</x:xmpmeta>") + 12])
        assert b"xpacket" not in bare.to_bytes()
        bare.replace(NAMES["photoshop"], "City", "Bern")
        assert bare.to_bytes().startswith(b"<?xpacket begin")
        assert bare.to_bytes().endswith(b'<?xpacket end="w"?>')
        assert Packet(bare.to_bytes()).get(NAMES["photoshop"], "City") == "Bern"

    @pytest.mark.parametrize(
        "bad",
        [
            b"<x/>",
            b"no xml",
            packet()[:-300],
            packet("unbound:x='1'"),
            b'<!DOCTYPE a [<!ENTITY b "c">]>' + packet(),
            packet(elements="<dc:a>" * 5000 + "</dc:a>" * 5000),
            packet(elements="<dc:a/>" * 250_000),
            packet(elements="\x01"),
        ],
    )
    def test_what_is_no_packet_or_an_attack_is_not_used(self, bad):
        assert not is_usable(bad)
        source = picture(zoo.photo())
        source = replace(source, metadata=replace(source.metadata, xmp=bad))
        assert encode(source, "png", quality=90)[1] == ("xmp-dropped",)

    @settings(max_examples=150, deadline=None)
    @given(st.integers(0, len(RICH) - 1), st.binary(max_size=5), st.integers(1, 8))
    def test_no_packet_raises(self, at, noise, orientation):
        source = picture(zoo.photo(4, 5))
        xmp = RICH[:at] + noise + RICH[at + len(noise) :]
        metadata = replace(source.metadata, xmp=xmp, size=(2, 5), orientation=orientation)
        data, notes = encode(replace(source, metadata=metadata), "jpeg", quality=90, maker=MAKER)
        assert {*notes} <= NOTES.keys()
        assert properties(xmp_in(data))["imgtx:Model"] == "sr-x2"


class TestForms:
    """The ways in which other programs store a packet."""

    XMP = packet('photoshop:City="Rome"')

    def test_png_deflated_and_as_imagemagick_stores_it(self):
        import zlib

        deflated = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(self.XMP)
        lines = f"\nxmp\n{len(self.XMP):8d}\n{self.XMP.hex()}\n".encode()
        raw = b"Raw profile type xmp\0\0" + zlib.compress(lines)
        png = zoo.saved(zoo.photo())
        for kind, body in ((b"iTXt", deflated), (b"zTXt", raw)):
            got = decode(png[:33] + zoo.png_chunk(kind, body) + png[33:], max_pixels=MAX_PIXELS)
            assert (got.metadata.xmp, got.notes) == (self.XMP, ())
        got = decode(png[:33] + zoo.png_chunk(b"zTXt", raw[:-9]) + png[33:], max_pixels=MAX_PIXELS)
        assert (got.metadata.xmp, got.notes) == (b"", ("xmp-dropped",))

    @pytest.mark.parametrize("order", ["<", ">"])
    def test_tiff_of_both_byte_orders(self, order):
        got = decode(zoo.rgb_tiff({700: self.XMP}, order=order), max_pixels=MAX_PIXELS)
        assert (got.metadata.xmp, got.notes) == (self.XMP, ())

    def test_64_bit_tiff(self, monkeypatch, tmp_path):
        monkeypatch.setattr("imgtx.codecs.tiff_writer._CLASSIC_BYTES", 100)
        source = picture(zoo.photo())
        source = replace(source, metadata=replace(source.metadata, xmp=self.XMP))
        for made in both_ways(source, "tiff", tmp_path)[:2]:
            assert made[:4] == b"II+\0"
            assert xmp_in(made) == self.XMP

    def test_pillow_reads_it_from_every_format(self, tmp_path):
        source = decode(turned_jpeg(), max_pixels=MAX_PIXELS)
        for format in HELD_BY:
            path = tmp_path / f"a.{format}"
            path.write_bytes(encode(source, format, quality=90, maker=MAKER)[0])
            with Image.open(path) as opened:
                assert b"Ein Bild" in opened.info["xmp"]


@needs_exiftool
@pytest.mark.parametrize("format", HELD_BY)
def test_exiftool_reads_what_is_carried(format, tmp_path: Path):
    source = decode(turned_jpeg(), max_pixels=MAX_PIXELS)
    for made in both_ways(enlarged(source), format, tmp_path, maker=MAKER)[:2]:
        path = tmp_path / f"out.{format}"
        path.write_bytes(made)
        warnings = exiftool(path, "-validate", "-warning")
        assert not any("XMP" in str(value) for name, value in warnings.items() if name.endswith("Warning"))
        got = exiftool(path)
        assert got["XMP-dc:Title"] == "Ein Bild ● 赤 <3"
        assert got["XMP-tiff:Orientation"] == 1
        assert (got["XMP-tiff:ImageWidth"], got["XMP-tiff:ImageHeight"]) == (96, 128)
        assert (got["XMP-tiff:XResolution"], got["XMP-tiff:YResolution"]) == (300, 600)
        assert [event["Action"] for event in got["XMP-xmpMM:History"]] == ["saved", "edited"]
        assert got["XMP-iptcExt:DigitalSourceType"] == TERMS + "algorithmicallyEnhanced"
        assert (got["XMP-imgtx:Task"], got["XMP-imgtx:ModelDigest"]) == (MAKER.task, MAKER.model_digest)
        assert got.get("IFD0:Orientation", 1) == 1
