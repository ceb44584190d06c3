"""XMP packets: parsed, changed and written again. ISO 16684-1, with part 3 for what JPEG cannot hold in one segment.

A packet is RDF in XML: `rdf:Description` elements whose properties are attributes or child elements. What is not
changed keeps its meaning, and a packet without a change its bytes.
"""

import hashlib
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any
from xml.dom import Node, minidom
from xml.parsers.expat import ExpatError

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
XMP = "http://ns.adobe.com/xap/1.0/"
_XMLNS = "http://www.w3.org/2000/xmlns/"
_NOTE = "http://ns.adobe.com/xmp/note/"
# Bytes of a packet; a larger one is an attack or an accident.
XMP_LIMIT = 16 * 2**20
# Elements and attributes: each takes a kilobyte once it is parsed.
_MAX_NODES = 200_000
# What surrounds a packet in a file, so that programs find it in formats that they do not know.
_BEGIN, _END = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>', '<?xpacket end="w"?>'
_NEW = (
    f'{_BEGIN}\n<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}"></rdf:RDF></x:xmpmeta>\n{_END}'
)


class Packet:
    """A parsed packet, a new one by default. Raises ValueError for bytes that are not one."""

    def __init__(self, data: bytes = b""):
        self._data = data
        text = _utf8(data) if data else _NEW.encode()
        if b"<!DOCTYPE" in text or text.count(b"<") + text.count(b"=") > _MAX_NODES or len(text) > XMP_LIMIT:
            raise ValueError("an XMP packet with a DTD, or too large")
        try:
            self._document = minidom.parseString(text)
            found = self._document.getElementsByTagNameNS(RDF, "RDF")
            self._written = to_text(self._document)
        except (ExpatError, RecursionError) as error:
            raise ValueError(f"not an XMP packet: {error}") from error
        if not found:
            raise ValueError("an XMP packet without rdf:RDF")
        self.rdf = found[0]

    @property
    def descriptions(self) -> list[Any]:
        """Return the elements that hold the properties."""
        return [node for node in self.rdf.childNodes if _is(node, RDF, "Description")]

    def properties(self) -> Iterator[tuple[Any, Any]]:
        """Yield (description, attribute or child element) of each property."""
        for description in self.descriptions:
            attributes = [*description.attributes.values()]
            yield from (
                (description, node) for node in attributes if node.namespaceURI not in (_XMLNS, RDF, None)
            )
            elements = [node for node in description.childNodes if node.nodeType == Node.ELEMENT_NODE]
            yield from ((description, node) for node in elements)

    def find(self, namespace: str, name: str) -> Any:
        """Return the attribute or element of a property; None where there is none."""
        return next((node for _, node in self.properties() if _is(node, namespace, name)), None)

    def get(self, namespace: str, name: str) -> str:
        """Return a simple value; "" where there is none."""
        node = self.find(namespace, name)
        return "" if node is None else value_of(node)

    def replace(self, namespace: str, name: str, value: str) -> None:
        """Set a simple property where the packet has it."""
        if (node := self.find(namespace, name)) is not None:
            set_value(node, value)

    def remove(self, namespace: str, name: str = "") -> bool:
        """Remove the properties of a namespace whose names begin so; return whether there were any."""
        doomed = [
            (description, node)
            for description, node in self.properties()
            if node.namespaceURI == namespace and node.localName.startswith(name)
        ]
        for description, node in doomed:
            _detach(description, node)
        return bool(doomed)

    def elements(self, namespace: str, name: str) -> list[Any]:
        """Return all elements of that name, however deep."""
        return [*self.rdf.getElementsByTagNameNS(namespace, name)]

    def values(self, namespace: str, name: str) -> list[Any]:
        """Return all elements and attributes of that name, however deep."""
        everywhere = self.rdf.getElementsByTagName("*")
        attributes = (element.getAttributeNodeNS(namespace, name) for element in everywhere)
        return [*self.elements(namespace, name), *filter(None, attributes)]

    def add(self, xml: str) -> None:
        """Append the elements of `xml`, which declares its own namespaces, to the descriptions."""
        about = self.descriptions[0].getAttributeNS(RDF, "about") if self.descriptions else ""
        for node in fragment(xml):
            made = self._document.importNode(node, True)
            made.setAttributeNS(RDF, "rdf:about", about)
            self.rdf.appendChild(made)

    def append_to(self, parent: Any, xml: str) -> None:
        """Append the elements of `xml`, which declares its own namespaces, to an element."""
        for node in fragment(xml):
            parent.appendChild(self._document.importNode(node, True))

    def take(self, other: "Packet") -> None:
        """Append the descriptions of another packet."""
        for description in other.descriptions:
            _inherit(description, description.parentNode)
            self.rdf.appendChild(self._document.importNode(description, True))

    def to_bytes(self) -> bytes:
        """Return the packet as UTF-8: the bytes that it was parsed from, if nothing changed."""
        text = to_text(self._document)
        if self._data and text == self._written:
            return self._data
        return (text if "<?xpacket begin" in text else f"{_BEGIN}\n{text}\n{_END}").encode()


def is_usable(data: bytes) -> bool:
    """Return whether bytes are a packet."""
    try:
        Packet(data)
    except ValueError:
        return False
    return True


def joined(main: bytes, parts: list[bytes]) -> tuple[bytes, bool]:
    """Return one packet of a JPEG's main packet and the bodies of its extension segments, and whether all were used.

    Each body is a digest of 32 characters, the length of all and the offset of this one in 32 bits, and the bytes.
    """
    if not parts:
        return main, True
    try:
        packet = Packet(main)
        named = packet.get(_NOTE, "HasExtendedXMP").encode()
        mine = [(int.from_bytes(part[36:40], "big"), part[40:]) for part in parts if part[:32] == named]
        whole = b"".join(data for _, data in sorted(mine))
        packet.take(Packet(whole))
    except ValueError:
        return main, False
    packet.remove(_NOTE, "HasExtendedXMP")
    return packet.to_bytes(), len(mine) == len(parts)


def split(data: bytes, room: int) -> tuple[bytes, bytes]:
    """Return a main packet of at most `room` bytes and a packet of the properties that it has no room for, or b"".

    Raises ValueError where the main packet cannot become so small.
    """
    if len(data) <= room:
        return data, b""
    packet, extension = Packet(data), Packet()
    # Names the extension, which is not known yet.
    packet.add(
        f'<rdf:Description xmlns:rdf="{RDF}" xmlns:xmpNote="{_NOTE}" xmpNote:HasExtendedXMP="{"0" * 32}"/>'
    )
    excess = len(packet.to_bytes()) - room
    largest = sorted(packet.properties(), key=lambda found: -len(_text_of(found[1])))
    for description, node in largest:
        if excess <= 0:
            break
        if _is(node, _NOTE, "HasExtendedXMP"):
            continue
        excess -= len(_text_of(node).encode())
        holder = description.cloneNode(False)
        _inherit(holder, description)
        for attribute in [*holder.attributes.values()]:
            if attribute.namespaceURI not in (_XMLNS, RDF):
                holder.removeAttributeNode(attribute)
        _detach(description, node)
        if node.nodeType == Node.ATTRIBUTE_NODE:
            holder.setAttributeNS(node.namespaceURI, node.name, node.value)
        else:
            holder.appendChild(node)
        extension.rdf.appendChild(holder)
    more = to_text(extension.rdf.parentNode).encode()
    packet.replace(_NOTE, "HasExtendedXMP", digest_of(more))
    made = packet.to_bytes()
    if len(made) > room:
        raise ValueError(f"an XMP packet of {len(made)} bytes in structures that cannot be split")
    return made, more


def digest_of(extension: bytes) -> str:
    """Return the 32 characters by which a main packet names its extension."""
    return hashlib.md5(extension, usedforsecurity=False).hexdigest().upper()


def set_value(node: Any, value: str) -> None:
    """Set the simple value of an attribute or element."""
    if node.nodeType == Node.ATTRIBUTE_NODE:
        node.value = value
        return
    for child in [*node.childNodes]:
        node.removeChild(child)
    node.appendChild(node.ownerDocument.createTextNode(value))


def fields_of(structure: Any) -> dict[tuple[str, str], Any]:
    """Return the attributes and elements of a structure by (namespace, name): in it, or in a Description in it."""
    found: dict[tuple[str, str], Any] = {}
    for place in (structure, *(child for child in structure.childNodes if _is(child, RDF, "Description"))):
        for node in (*place.attributes.values(), *place.childNodes):
            if node.nodeType in (Node.ATTRIBUTE_NODE, Node.ELEMENT_NODE) and node.namespaceURI not in (
                _XMLNS,
                RDF,
            ):
                found[node.namespaceURI or "", node.localName] = node
    return found


def number_of(node: Any) -> Fraction | None:
    """Return the number or rational that an attribute or element states; None if it states none."""
    try:
        return Fraction(value_of(node).strip())
    except (ValueError, ZeroDivisionError):
        return None


def fragment(xml: str) -> list[Any]:
    """Return the top elements of `xml`."""
    root: Any = minidom.parseString(f"<all>{xml}</all>").documentElement
    return [*root.childNodes]


def _inherit(element: Any, ancestor: Any) -> None:
    """Declare on an element the prefixes that are declared on an ancestor or above it."""
    while ancestor is not None and ancestor.nodeType == Node.ELEMENT_NODE:
        for attribute in ancestor.attributes.values():
            if attribute.namespaceURI == _XMLNS and not element.hasAttributeNS(_XMLNS, attribute.localName):
                element.setAttributeNS(_XMLNS, attribute.name, attribute.value)
        ancestor = ancestor.parentNode


def _is(node: Any, namespace: str, name: str) -> bool:
    return node.namespaceURI == namespace and node.localName == name


def value_of(node: Any) -> str:
    """Return the simple value of an attribute or element as it is written."""
    if node.nodeType == Node.ATTRIBUTE_NODE:
        return node.value
    return "".join(child.data for child in node.childNodes if child.nodeType == Node.TEXT_NODE)


def _detach(description: Any, node: Any) -> None:
    if node.nodeType == Node.ATTRIBUTE_NODE:
        description.removeAttributeNode(node)
    else:
        description.removeChild(node)


def _text_of(node: Any) -> str:
    return f"{node.name}={node.value}" if node.nodeType == Node.ATTRIBUTE_NODE else to_text(node)


def to_text(node: Any) -> str:
    """Return a node as XML. minidom's own writer loses line breaks in attributes."""
    if node.nodeType == Node.DOCUMENT_NODE:
        return "\n".join(to_text(child) for child in node.childNodes)
    if node.nodeType == Node.ELEMENT_NODE:
        attributes = "".join(f' {name}="{_escaped(value)}"' for name, value in node.attributes.items())
        inner = "".join(to_text(child) for child in node.childNodes)
        return (
            f"<{node.tagName}{attributes}>{inner}</{node.tagName}>"
            if inner
            else f"<{node.tagName}{attributes}/>"
        )
    if node.nodeType == Node.PROCESSING_INSTRUCTION_NODE:
        return f"<?{node.target} {node.data}?>"
    if node.nodeType == Node.COMMENT_NODE:
        return f"<!--{node.data}-->"
    return _escaped(node.data, lines=False)


def _escaped(text: str, *, lines: bool = True) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#13;")
    return text.replace('"', "&quot;").replace("\n", "&#10;").replace("\t", "&#9;") if lines else text


def _utf8(data: bytes) -> bytes:
    """Return a packet as UTF-8 without what surrounds it. Raises ValueError (UnicodeDecodeError)."""
    for encoding, start in (("utf-16-le", b"<\0"), ("utf-16-be", b"\0<")):
        bare = data.removeprefix("\ufeff".encode(encoding))
        if bare.startswith(start):
            text = bare[: len(bare) // 2 * 2].decode(encoding)
            data = re.sub(r"^<\?xml[^>]*\?>", "", text).encode()
            break
    return data[max(0, data.find(b"<")) : data.rfind(b">") + 1]
