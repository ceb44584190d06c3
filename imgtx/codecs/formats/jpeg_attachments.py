"""What a JPEG has behind or beside its picture, such as gain maps and videos: it is not carried, and each has a note.

Ultra HDR and motion photos (https://developer.android.com/media/platform), multi-picture files (CIPA DC-007), ISO
21496-1, and what phones wrote before these.
"""

import io
import re
from typing import BinaryIO

from imgtx.codecs.formats.jpeg_end import find_end
from imgtx.codecs.picture import dropped

# Begins the segment in which a gain map and its picture say what they are.
ISO_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1\0"
# Found in the first segments of a gain map: that, or what XMP says of Adobe's and Apple's.
_GAIN_MAPS = (
    ISO_GAIN_MAP,
    b"http://ns.adobe.com/hdr-gain-map/1.0/",
    b"http://ns.apple.com/HDRGainMap/1.0/",
    b"urn:com:apple:photo:2020:aux:hdrgainmap",
)
_DEPTHS = (
    b"http://ns.apple.com/depthData/1.0/",
    b"urn:mpeg:hevc:2015:auxid:2",
    b"http://ns.google.com/photos/dd/1.0/",
    b"DualShot_DepthMap",
)
# What XMP holds within itself, as text.
_XMP_DEPTH = (b"http://ns.google.com/photos/1.0/depthmap/",)
_XMP_PICTURE, _XMP_AUDIO = (
    b"http://ns.google.com/photos/1.0/image/",
    b"http://ns.google.com/photos/1.0/audio/",
)
_START = b"\xff\xd8\xff"
# The box that begins a video, behind its length.
_VIDEO = re.compile(rb"ftyp(isom|iso\d|mp4\d|mp42|avc1|qt  |3gp\d|M4V |MSNV|hvc1)")
# Bytes of what follows a picture that are looked at, of the beginning of each part of it, and parts at most.
_TAIL, _HEAD, _PARTS = 2**26, 2**16, 16


def attachment_notes(file: BinaryIO, trailing: int, xmp: bytes) -> tuple[str, ...]:
    """Return a note of each kind of thing that is lost. trailing: bytes behind the picture's end. xmp: all packets."""
    lost = {
        "gain_map": False,
        "motion_video": False,
        "depth": _any(_XMP_DEPTH, xmp),
        "audio": _XMP_AUDIO in xmp,
        "extra_pictures": _XMP_PICTURE in xmp,
        "trailing_bytes": False,
    }
    file.seek(-trailing, io.SEEK_END)
    rest = file.read(min(trailing, _TAIL))
    for _ in range(_PARTS):
        rest = rest.lstrip(b"\0")
        if not rest.startswith(_START):
            break
        head = rest[:_HEAD]
        kind = "gain_map" if _any(_GAIN_MAPS, head) else "depth" if _any(_DEPTHS, head) else "extra_pictures"
        lost[kind] = True
        behind = find_end(io.BytesIO(rest)).trailing
        rest = rest[len(rest) - behind :]
    if rest:
        is_video, is_depth = bool(_VIDEO.search(rest[:_HEAD])), _any(_DEPTHS, rest)
        lost["motion_video"] = is_video
        lost["depth"] |= is_depth
        lost["trailing_bytes"] = not (is_video or is_depth)
    elif trailing and not any(lost.values()):
        # Zeros alone.
        lost["trailing_bytes"] = True
    return dropped(**lost)


def _any(words: tuple[bytes, ...], data: bytes) -> bool:
    return any(word in data for word in words)
