"""Kinds of sources, one file each: how to list one, what its keys and versions are, how a worker reads an item."""

from collections.abc import Sequence
from dataclasses import replace

from imgtx.errors import UsageError
from pipeline.sources.base import Source, SourceKind
from pipeline.sources.images import IMAGES
from pipeline.sources.prompts import PROMPTS
from pipeline.sources.selection import Selection, selection_of
from pipeline.spec import RunSpec

# A task names those that it accepts (`Task.sources`).
SOURCES = {kind.name: kind for kind in (IMAGES, PROMPTS)}


def open_source(
    uri: str, kinds: Sequence[str], endpoint_url: str | None = None, selection: Selection | None = None
) -> Source:
    """Open `uri` as the first of the named kinds that recognises it, else as the last.

    selection: the keys that it lists. One that only reads items, such as a worker's, needs none.
    """
    kind = _kind_of(uri, kinds)
    source = kind.open(uri, endpoint_url)
    return kind.select(source, selection) if kind.select and selection else source


def open_selected(spec: RunSpec, kinds: Sequence[str]) -> Source:
    """Open the source of a spec, to be listed as the spec says."""
    return open_source(spec.source, kinds, spec.endpoint_url, selection_of(spec))


def located(spec: RunSpec, kinds: Sequence[str]) -> RunSpec:
    """Return a spec whose source is a root, and `source_glob` what is meant inside it, where a file or a glob is given.

    Raises UsageError for a selection in a source whose items are not files.
    """
    kind = _kind_of(spec.source, kinds)
    if kind.locate is None:
        for name in ("include", "exclude", "keys"):
            if getattr(spec, name):
                raise UsageError(f"--{name} chooses files, and {spec.source} is a table: leave it out")
        return spec
    if spec.source_glob:
        return spec
    root, glob = kind.locate(spec.source, spec.endpoint_url)
    return replace(spec, source=root, source_glob=glob or None)


def _kind_of(uri: str, kinds: Sequence[str]) -> SourceKind:
    known = [SOURCES[name] for name in kinds]
    return next((kind for kind in known if kind.recognises(uri)), known[-1])


__all__ = ["SOURCES", "Source", "SourceKind", "located", "open_selected", "open_source"]
