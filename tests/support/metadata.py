"""Read metadata without imgtx: the segments and chunks of files by hand, and everything by exiftool where it is."""

import json
import shutil
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

# Prefixes and namespaces of the packets that tests make and read.
NAMES = {
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "x": "adobe:ns:meta/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "xmpMM": "http://ns.adobe.com/xap/1.0/mm/",
    "stEvt": "http://ns.adobe.com/xap/1.0/sType/ResourceEvent#",
    "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/",
    "stArea": "http://ns.adobe.com/xmp/sType/Area#",
    "stDim": "http://ns.adobe.com/xap/1.0/sType/Dimensions#",
    "MP": "http://ns.microsoft.com/photo/1.2/",
    "MPReg": "http://ns.microsoft.com/photo/1.2/t/Region#",
    "GPano": "http://ns.google.com/photos/1.0/panorama/",
    "GCamera": "http://ns.google.com/photos/1.0/camera/",
    "Container": "http://ns.google.com/photos/1.0/container/",
    "hdrgm": "http://ns.adobe.com/hdr-gain-map/1.0/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "xmpNote": "http://ns.adobe.com/xmp/note/",
    "imgtx": "urn:imgtx:1.0/",
}
DECLARED = " ".join(f'xmlns:{prefix}="{name}"' for prefix, name in NAMES.items())
EXIFTOOL = shutil.which("exiftool")
needs_exiftool = pytest.mark.skipif(EXIFTOOL is None, reason="exiftool is not installed")


def exiftool(path: Path, *options: str) -> dict[str, Any]:
    """Return what exiftool reads in a file, by "group:tag"; numbers as numbers."""
    command = [str(EXIFTOOL), "-j", "-n", "-G1", "-a", "-struct", *options, str(path)]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)[0]


def jpeg_segments(data: bytes) -> list[tuple[int, bytes]]:
    """Return (marker, body) of each segment before the first scan."""
    found, at = [], 2
    while data[at + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", data, at + 2)
        found.append((data[at + 1], data[at + 4 : at + 2 + length]))
        at += 2 + length
    return found


def png_chunks(data: bytes) -> dict[bytes, bytes]:
    """Return the last body of each type of chunk."""
    found, at = {}, 8
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        found[kind] = data[at + 8 : at + 8 + length]
        at += 12 + length
    return found


def webp_chunks(data: bytes) -> dict[bytes, bytes]:
    """Return the body of each type of chunk."""
    found, at = {}, 12
    while at < len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        found[kind] = data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
    return found


def tiff_tag(data: bytes, tag: int) -> bytes:
    """Return the bytes of a tag of the first directory, of a type of 1 or 4 bytes; b"" where there is none."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    count, offset = ("Q", "Q") if big else ("H", "I")
    (at,) = struct.unpack_from(order + offset, data, 8 if big else 4)
    (entries,) = struct.unpack_from(order + count, data, at)
    at += struct.calcsize(count)
    step = 20 if big else 12
    for place in range(at, at + entries * step, step):
        number, kind, values = struct.unpack_from(f"{order}HH{offset}", data, place)
        if number == tag:
            (start,) = struct.unpack_from(order + offset, data, place + step - struct.calcsize(offset))
            return data[start : start + values * (4 if kind == 4 else 1)]
    return b""


def xmp_in(data: bytes) -> bytes:
    """Return the XMP packet of a file, in JPEG the main one; b"" where there is none."""
    if data.startswith(b"\xff\xd8"):
        head = b"http://ns.adobe.com/xap/1.0/\0"
        packets = [body for marker, body in jpeg_segments(data) if marker == 0xE1 and body.startswith(head)]
        return packets[0][len(head) :] if packets else b""
    if data.startswith(b"\x89PNG"):
        return png_chunks(data).get(b"iTXt", b"").removeprefix(b"XML:com.adobe.xmp" + bytes(5))
    if data.startswith(b"RIFF"):
        return webp_chunks(data).get(b"XMP ", b"")
    if data[4:12] == b"ftypavif":
        # The item's place is in tables; its own beginning and end are unmistakable.
        start = data.find(b"<?xpacket begin")
        return data[start : data.index(b"?>", data.index(b"<?xpacket end")) + 2] if start >= 0 else b""
    return tiff_tag(data, 700) if data[:2] in (b"II", b"MM") else b""


def iptc_in(data: bytes) -> bytes:
    """Return the IPTC datasets of a file; b"" where there are none."""
    resource = b""
    if data.startswith(b"\xff\xd8"):
        head = b"Photoshop 3.0\0"
        resource = b"".join(body[len(head) :] for marker, body in jpeg_segments(data) if marker == 0xED)
    elif data.startswith(b"\x89PNG"):
        text = zlib.decompress(png_chunks(data).get(b"zTXt", b"").partition(b"\0\0")[2] or zlib.compress(b""))
        resource = bytes.fromhex("".join(text.decode().split()[2:]))
    elif data[:2] in (b"II", b"MM"):
        return tiff_tag(data, 33723).rstrip(b"\0")
    if not resource:
        return b""
    signature, number, name, length = struct.unpack_from(">4sHHI", resource)
    assert (signature, number, name) == (b"8BIM", 0x0404, 0)
    return resource[12 : 12 + length]


def packet(attributes: str = "", elements: str = "") -> bytes:
    """Return a packet as Adobe's programs write it, with padding."""
    text = (
        f'<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta {DECLARED}><rdf:RDF>'
        f'<rdf:Description rdf:about="uuid:1" {attributes}>{elements}</rdf:Description></rdf:RDF></x:xmpmeta>'
        f'{" " * 200}\n<?xpacket end="w"?>'
    )
    return text.encode()


def properties(xmp: bytes) -> dict[str, str]:
    """Return the simple properties of a packet, and those of elements anywhere in it, by "prefix:name"."""
    prefixes = {name: prefix for prefix, name in NAMES.items()}
    found: dict[str, str] = {}
    for element in ElementTree.fromstring(xmp.strip(b"\0")).iter():
        for name, value in ((element.tag, element.text or ""), *element.attrib.items()):
            namespace, _, local = name[1:].partition("}") if name.startswith("{") else ("", "", name)
            found[f"{prefixes.get(namespace, '?')}:{local}"] = value
    return found
