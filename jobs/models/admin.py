"""What `imgtx models` does to a model store: import weights, move `latest` by hand, read its cards."""

from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from imgtx.errors import ModelError, UsageError
from imgtx.models.adapters.base import Source
from imgtx.models.info import ModelInfo
from imgtx.models.references import OWN, adapter_of, digest_of, find_source, load_model, read_info
from imgtx.models.sidecar import SUFFIX as SIDECAR
from imgtx.models.sidecar import read_record, write_sidecar
from imgtx.models.weight_file import file_digest, opened, read_facts
from pipeline.models.cache import fetch_version
from pipeline.models.references import InStore, parse_reference, split_name
from pipeline.models.resolve import local_model
from pipeline.models.store import MODEL, ModelStore, Pointer, Version
from pipeline.storage.checks import check_destination
from pipeline.storage.store import open_store

# What `imgtx models package` writes beside weights, and its names in a store.
CARD_FILES = {".md": "card.md", ".json": "evaluation.json"}


@dataclass(frozen=True)
class Move:
    """Where `latest` was and where it is now; `before` is None where it was set for the first time."""

    name: str
    before: Pointer | None
    after: Pointer


@dataclass(frozen=True)
class Incoming:
    """What a store takes in: a weight file, its facts for the card, and the files beside it by name."""

    path: Path
    facts: dict[str, Any]
    also: dict[str, bytes]


def import_model(model: str, target: str, endpoint_url: str | None = None) -> tuple[str, Version]:
    """Import a weight file, a packaged model or another store's version as `STORE/NAME`.

    imgtx's own weights bring what `imgtx models package` wrote beside them; third-party weights are converted to
    safetensors and bring what `imgtx models probe` measured. Returns the exact reference and the version; `latest`
    stays. Raises UsageError for a file that is no weight file, ModelError for one that is damaged, cannot be trusted or
    contradicts itself.
    """
    uri, name = split_name(target)
    store = open_store(uri, endpoint_url=endpoint_url)
    check_destination(store)
    source = find_source(local_model(model, endpoint_url))
    with TemporaryDirectory(prefix="imgtx-import-") as folder:
        incoming = own(source) if source.kind == OWN else converted(source, Path(folder))
        card = {**incoming.facts, "from": Path(model).name}
        version = ModelStore(store).add(name, incoming.path.read_bytes(), card, incoming.also)
    return f"{store.uri.rstrip('/')}/{name}@{version.number}", version


def own(source: Source) -> Incoming:
    """Take weights that imgtx wrote, loaded once to see that they fit their config."""
    load_model(source.path)
    also = {
        kept: source.path.with_suffix(suffix).read_bytes()
        for suffix, kept in CARD_FILES.items()
        if source.path.with_suffix(suffix).is_file()
    }
    return Incoming(source.path, facts_of(source.path), also)


def converted(source: Source, folder: Path) -> Incoming:
    """Convert third-party weights to safetensors, loaded once, with their probe's answers bound to the new file."""
    convert = adapter_of(source).convert
    if convert is None:
        raise UsageError(
            f"{source}: a model store takes imgtx's own weights and files that spandrel reads: use this one as it is, "
            f"--model '{source}'"
        )
    digest, path = digest_of(source), folder / f"{source.path.stem}.safetensors"
    convert(source.path, path)
    info = load_model(path).info
    record, also = read_record(source.path, digest), {}
    if record is not None:
        info = ModelInfo.from_dict(record["info"])
        sidecar = write_sidecar(path, file_digest(path), info, record["probe"])
        also[MODEL + SIDECAR] = sidecar.read_bytes()
    facts = {"info": info.to_dict(), "metrics": {}, "converted_from": digest}
    return Incoming(path, facts, also)


def facts_of(path: Path) -> dict[str, Any]:
    """Return what the weights say of themselves, for a card that can be read without them."""
    with opened(path, framework="numpy") as file:
        config, info = read_facts(file, path)
    return {"info": info.to_dict(), "config": asdict(config), "metrics": info.training.get("metrics", {})}


def promote(reference: str, endpoint_url: str | None = None) -> Move:
    """Set `latest` to `STORE/NAME@VERSION` by hand, after its file was checked; a no-op where it is that already."""
    found = parse_reference(reference)
    if not isinstance(found, InStore) or not found.version.isdigit():
        raise UsageError(
            f"{reference} names no version: write STORE/NAME@VERSION; imgtx models list STORE shows them"
        )
    models = ModelStore(open_store(found.store, endpoint_url=endpoint_url))
    before = models.latest(found.name)
    read_info(fetch_version(models, models.version(found.name, found.version)))
    if before is not None and before.version == found.version:
        return Move(found.name, before, before)
    after = models.promote(found.name, found.version, why="by hand", over=before)
    if after is None:
        raise ModelError(f"the latest of {found.store}/{found.name} was moved in the meantime: look again")
    return Move(found.name, before, after)


def rollback(target: str, endpoint_url: str | None = None) -> Move:
    """Set `latest` of `STORE/NAME` back to where it was before."""
    uri, name = split_name(target)
    models = ModelStore(open_store(uri, endpoint_url=endpoint_url))
    before = models.latest(name)
    return Move(name, before, models.rollback(name, why="rollback by hand"))


def store_facts(exact: str, endpoint_url: str | None = None) -> dict[str, Any]:
    """Return what a store has on a version beyond its weights: its card and the history of `latest`; else {}."""
    found = parse_reference(exact)
    if not isinstance(found, InStore):
        return {}
    models = ModelStore(open_store(found.store, endpoint_url=endpoint_url))
    card = models.version(found.name, found.version).card
    known = {name: value for name, value in card.items() if name not in ("info", "config")}
    return {"store": known | {"latest": [asdict(pointer) for pointer in models.history(found.name)]}}
