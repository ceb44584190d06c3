"""What made a picture, said in its XMP: software, task and model, and IPTC's digital source type.

Nothing of it names a file, a user or a time, so that the same pixels give the same bytes on every machine.
"""

from dataclasses import dataclass
from xml.sax.saxutils import quoteattr

from imgtx.codecs.metadata.xmp import RDF, XMP, Packet, set_value

# IPTC's terms, https://cv.iptc.org/newscodes/digitalsourcetype/: a picture that a model improved, one that a generative
# model changed in part, and one that it made.
ENHANCED = "algorithmicallyEnhanced"
CHANGED = "compositeWithTrainedAlgorithmicMedia"
MADE = "trainedAlgorithmicMedia"
_TERMS = "http://cv.iptc.org/newscodes/digitalsourcetype/"
# Terms of a source that say more than the output's: a made picture stays one when it is enlarged.
_STRONGER = {
    ENHANCED: (
        "composite",
        "trainedAlgorithmicMedia",
        "algorithmicMedia",
        "virtualRecording",
        "dataDrivenMedia",
    ),
    CHANGED: ("trainedAlgorithmicMedia",),
    MADE: (),
}
_EXTENSION = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_MANAGEMENT = "http://ns.adobe.com/xap/1.0/mm/"
_EVENT = "http://ns.adobe.com/xap/1.0/sType/ResourceEvent#"
# Our own properties.
NAMESPACE = "urn:imgtx:1.0/"


@dataclass(frozen=True)
class Maker:
    """What made a picture: `software` with its version, the task, the model's name and the digest of its weights.

    `source_type` is one of IPTC's terms above.
    """

    software: str
    task: str
    model: str
    model_digest: str
    source_type: str = ENHANCED


def mark(packet: Packet, maker: Maker) -> None:
    """Say in a packet what made the picture that it describes; what it says of an earlier run of imgtx is replaced."""
    packet.remove(NAMESPACE)
    stated = {
        "Software": maker.software,
        "Task": maker.task,
        "Model": maker.model,
        "ModelDigest": maker.model_digest,
    }
    own = " ".join(f"imgtx:{name}={quoteattr(value)}" for name, value in stated.items() if value)
    packet.add(f'<rdf:Description xmlns:rdf="{RDF}" xmlns:imgtx="{NAMESPACE}" {own}/>')
    _set_source_type(packet, maker)
    if maker.source_type != ENHANCED:
        for name, value in (("AISystemUsed", maker.model), ("AISystemVersionUsed", maker.software)):
            _set(packet, _EXTENSION, f"Iptc4xmpExt:{name}", value)
    if maker.source_type == MADE:
        _set(packet, XMP, "xmp:CreatorTool", maker.software)
    _add_event(packet, maker)


def _set_source_type(packet: Packet, maker: Maker) -> None:
    stated = packet.get(_EXTENSION, "DigitalSourceType").strip().rpartition("/")[2]
    if not stated.startswith(_STRONGER[maker.source_type]) or not stated:
        _set(packet, _EXTENSION, "Iptc4xmpExt:DigitalSourceType", _TERMS + maker.source_type)


def _set(packet: Packet, namespace: str, name: str, value: str) -> None:
    prefix, _, local = name.partition(":")
    if (node := packet.find(namespace, local)) is not None:
        set_value(node, value)
    else:
        described = f'xmlns:{prefix}="{namespace}" {name}={quoteattr(value)}'
        packet.add(f'<rdf:Description xmlns:rdf="{RDF}" {described}/>')


def _add_event(packet: Packet, maker: Maker) -> None:
    """Append an entry to the history of the picture."""
    action = "created" if maker.source_type == MADE else "edited"
    parameters = f"{maker.task} with {maker.model}, model digest {maker.model_digest}"
    names = f'xmlns:rdf="{RDF}" xmlns:stEvt="{_EVENT}"'
    event = (
        f"<rdf:li {names} stEvt:action={quoteattr(action)} stEvt:softwareAgent={quoteattr(maker.software)} "
        f'stEvt:parameters={quoteattr(parameters)} stEvt:changed="/"/>'
    )
    history = packet.find(_MANAGEMENT, "History")
    lists = history.getElementsByTagNameNS(RDF, "Seq") if hasattr(history, "getElementsByTagNameNS") else []
    if lists:
        packet.append_to(lists[0], event)
    elif history is None:
        packet.add(
            f'<rdf:Description xmlns:rdf="{RDF}" xmlns:xmpMM="{_MANAGEMENT}"><xmpMM:History><rdf:Seq>{event}</rdf:Seq>'
            "</xmpMM:History></rdf:Description>"
        )
