"""What a JPEG has behind or beside its picture is not carried, and each kind of it has a note."""

import io
import struct

import pytest
from PIL import Image

from imgtx.codecs import NOTES, decode
from imgtx.codecs.formats.jpeg_attachments import ISO_GAIN_MAP
from imgtx.codecs.spool import spool_in
from tests.support import zoo
from tests.support.metadata import NAMES
from tests.support.pictures import MAX_PIXELS

HDRGM = f'<x xmlns:hdrgm="{NAMES["hdrgm"]}" hdrgm:Version="1.0"/>'.encode()
VIDEO = struct.pack(">I", 24) + b"ftypmp42\0\0\0\0isommp42" + b"\xff\xd8\xff video " * 500
ISO = struct.pack(">BBH", 0xFF, 0xE2, len(ISO_GAIN_MAP) + 6) + ISO_GAIN_MAP + bytes(4)


def jpeg(height: int = 48, width: int = 64, **options) -> bytes:
    return zoo.saved(zoo.photo(height, width), "JPEG", **options)


def multi_picture() -> bytes:
    """Return two views in one file, as stereo cameras write them."""
    out = io.BytesIO()
    first, second = (Image.fromarray(pixels) for pixels in (zoo.photo(), zoo.photo()[::-1].copy()))
    first.save(out, "MPO", save_all=True, append_images=[second])
    return out.getvalue()


def with_iso(data: bytes) -> bytes:
    return data[:2] + ISO + data[2:]


EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
DEPTH = f'<x xmlns:GDepth="{"http://ns.google.com/photos/1.0/depthmap/"}" GDepth:Data="AAAA"/>'.encode()
AUDIO = f'<x xmlns:GAudio="{"http://ns.google.com/photos/1.0/audio/"}" GAudio:Data="AAAA"/>'.encode()
FILES = {
    "nothing": (jpeg(), ()),
    "a second picture": (jpeg() + jpeg(20, 30), ("extra-pictures-dropped",)),
    "padding before it": (jpeg() + bytes(4096) + jpeg(20, 30), ("extra-pictures-dropped",)),
    "views": (multi_picture(), ("extra-pictures-dropped",)),
    "gain map of Adobe's": (jpeg(xmp=HDRGM) + jpeg(20, 30, xmp=HDRGM), ("gain-map-dropped",)),
    "gain map of ISO": (with_iso(jpeg()) + with_iso(jpeg(20, 30)), ("gain-map-dropped",)),
    "gain map of Apple's": (
        jpeg() + jpeg(20, 30, xmp=b"<x a='urn:com:apple:photo:2020:aux:hdrgainmap'/>"),
        ("gain-map-dropped",),
    ),
    "gain map that is gone": (with_iso(jpeg(xmp=HDRGM)), ()),
    "motion photo": (jpeg() + VIDEO, ("motion-video-dropped",)),
    "motion photo of Samsung's": (
        jpeg() + b"\0\0\x30\x0a\x10\0\0\0MotionPhoto_Data" + VIDEO,
        ("motion-video-dropped",),
    ),
    "gain map and motion photo": (
        jpeg(xmp=HDRGM) + jpeg(20, 30, xmp=HDRGM) + VIDEO,
        ("gain-map-dropped", "motion-video-dropped"),
    ),
    "gain map and a view": (
        jpeg() + with_iso(jpeg(20, 30)) + jpeg(),
        ("gain-map-dropped", "extra-pictures-dropped"),
    ),
    "depth behind": (jpeg() + b"DualShot_DepthMap" + bytes(99), ("depth-dropped",)),
    "depth in XMP": (jpeg(xmp=DEPTH), ("depth-dropped",)),
    "sound in XMP": (jpeg(xmp=AUDIO), ("audio-dropped",)),
    "zeros": (jpeg() + bytes(512), ("trailing-bytes-dropped",)),
    "other bytes": (jpeg() + b"whatever" * 9, ("trailing-bytes-dropped",)),
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_lost_is_named(name, tmp_path):
    data, notes = FILES[name]
    assert decode(data, max_pixels=MAX_PIXELS).notes == notes
    assert spool_in(io.BytesIO(data), tmp_path, max_pixels=MAX_PIXELS).notes == notes
    assert {*notes} <= NOTES.keys()


def test_depth_in_extended_xmp_is_named():
    main = b'<x xmlns:n="http://ns.adobe.com/xmp/note/" n:HasExtendedXMP="%s"/>' % (b"0" * 32)
    body = EXTENSION + b"0" * 32 + struct.pack(">II", len(DEPTH), 0) + DEPTH
    data = jpeg(xmp=main)
    data = data[:20] + struct.pack(">BBH", 0xFF, 0xE1, len(body) + 2) + body + data[20:]
    assert "depth-dropped" in decode(data, max_pixels=MAX_PIXELS).notes
