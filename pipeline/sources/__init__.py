"""Kinds of sources, one file each: how to list one, what its keys and versions are, how a worker reads an item."""

from pipeline.sources.base import Source, SourceKind
from pipeline.sources.images import IMAGES
from pipeline.sources.prompts import PROMPTS

# A task names those that it accepts (`Task.sources`).
SOURCES = {kind.name: kind for kind in (IMAGES, PROMPTS)}


def open_source(uri: str, kinds: tuple[str, ...], endpoint_url: str | None = None) -> Source:
    """Open `uri` as the first of the named kinds that recognises it, else as the last."""
    known = [SOURCES[name] for name in kinds]
    kind = next((kind for kind in known if kind.recognises(uri)), known[-1])
    return kind.open(uri, endpoint_url)


__all__ = ["SOURCES", "Source", "SourceKind", "open_source"]
