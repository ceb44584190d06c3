"""IPTC datasets as XMP, for formats that hold XMP alone: the mapping of IPTC's own Photo Metadata Standard.

What the packet says already stays as it is.
"""

from collections.abc import Iterator
from xml.sax.saxutils import escape, quoteattr

from imgtx.codecs.metadata.iptc import entries
from imgtx.codecs.metadata.xmp import RDF, XMP, Packet

_PREFIXES = {
    "dc": "http://purl.org/dc/elements/1.1/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "Iptc4xmpCore": "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/",
    "xmp": XMP,
}
# Datasets of record 2: the property, and the list that it is. Those of a date have their time in the next one or so.
_PROPERTIES = {
    4: ("Iptc4xmpCore:IntellectualGenre", ""),
    5: ("dc:title", "Alt"),
    10: ("photoshop:Urgency", ""),
    12: ("Iptc4xmpCore:SubjectCode", "Bag"),
    15: ("photoshop:Category", ""),
    20: ("photoshop:SupplementalCategories", "Bag"),
    25: ("dc:subject", "Bag"),
    40: ("photoshop:Instructions", ""),
    55: ("photoshop:DateCreated", ""),
    62: ("xmp:CreateDate", ""),
    80: ("dc:creator", "Seq"),
    85: ("photoshop:AuthorsPosition", ""),
    90: ("photoshop:City", ""),
    92: ("Iptc4xmpCore:Location", ""),
    95: ("photoshop:State", ""),
    100: ("Iptc4xmpCore:CountryCode", ""),
    101: ("photoshop:Country", ""),
    103: ("photoshop:TransmissionReference", ""),
    105: ("photoshop:Headline", ""),
    110: ("photoshop:Credit", ""),
    115: ("photoshop:Source", ""),
    116: ("dc:rights", "Alt"),
    120: ("dc:description", "Alt"),
    122: ("photoshop:CaptionWriter", ""),
}
_TIMES = {55: 60, 62: 63}
# The escape sequence that says that texts are UTF-8. Programs that do not write it mostly use Windows' code page.
_UTF8 = b"\x1b%G"
# Datasets that say nothing of the picture: versions, and the character set.
_SILENT = {(1, 0), (1, 90), (2, 0), *((2, time) for time in _TIMES.values())}


def add_datasets(packet: Packet, datasets: bytes) -> bool:
    """Say in a packet what datasets say; return whether all of them have a place there."""
    stated: dict[int, list[str]] = {}
    complete, utf8 = True, False
    for record, number, data in entries(datasets):
        utf8 |= (record, number, data) == (1, 90, _UTF8)
        if record == 2 and (number in _PROPERTIES or number in _TIMES.values()):
            stated.setdefault(number, []).append(_text(data, utf8))
        elif (record, number) not in _SILENT:
            complete = False
    for number, (name, kind) in _PROPERTIES.items():
        prefix, _, local = name.partition(":")
        texts = [text for text in _values(number, stated) if text]
        if texts and packet.find(_PREFIXES[prefix], local) is None:
            packet.add(_description(prefix, name, kind, texts))
    return complete


def _values(number: int, stated: dict[int, list[str]]) -> Iterator[str]:
    for text in stated.get(number, ()):
        if number not in _TIMES:
            yield text
        elif len(text) == 8 and text.isdigit():
            time = next(iter(stated.get(_TIMES[number], ())), "")
            date = "-".join(part for part in (text[:4], text[4:6], text[6:]) if part.strip("0"))
            # HHMMSS±HHMM
            clock = f"T{time[:2]}:{time[2:4]}:{time[4:6]}" if len(time) >= 6 and len(date) == 10 else ""
            yield date + clock + (f"{time[6:9]}:{time[9:11]}" if clock and len(time) == 11 else "")


def _text(data: bytes, utf8: bool) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("utf-8" if utf8 else "cp1252", "replace")
    # XML has no place for control characters.
    return "".join(character for character in text if character >= " " or character in "\t\n\r").strip()


def _description(prefix: str, name: str, kind: str, texts: list[str]) -> str:
    names = f'xmlns:rdf="{RDF}" xmlns:{prefix}="{_PREFIXES[prefix]}"'
    if not kind:
        return f"<rdf:Description {names} {name}={quoteattr(texts[0])}/>"
    language = ' xml:lang="x-default"' if kind == "Alt" else ""
    items = "".join(f"<rdf:li{language}>{escape(text)}</rdf:li>" for text in texts[: 1 if language else None])
    return f"<rdf:Description {names}><{name}><rdf:{kind}>{items}</rdf:{kind}></{name}></rdf:Description>"
