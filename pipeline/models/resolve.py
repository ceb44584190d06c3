"""Resolve a model reference once: to an exact version, to a file on this machine, to its facts.

The driver calls `resolve_model` once, so that a whole run, and its retry, mean one version; every worker then calls
`local_model` with the exact reference.
"""

from dataclasses import dataclass

from imgtx.errors import UsageError
from imgtx.models.info import ModelInfo
from imgtx.models.references import absolute, read_info, with_files
from pipeline.models.cache import fetch_file, fetch_version
from pipeline.models.folders import fetch_folder
from pipeline.models.references import InStorage, InStore, parse_reference
from pipeline.models.store import LATEST, ModelStore
from pipeline.storage.store import open_store


@dataclass(frozen=True)
class ResolvedModel:
    """A model as a run takes it.

    `reference` means the same in every working directory, and tomorrow: a packaged name, an absolute path, a version,
    a URI. `local` is what `imgtx.load` opens on this machine. `fetched` says whether the model is in storage, so that
    every machine can fetch it.
    """

    reference: str
    local: str
    info: ModelInfo
    digest: str
    fetched: bool


def resolve_model(reference: str, endpoint_url: str | None = None) -> ResolvedModel:
    """Find a model, fetch it where it is in storage, and read its facts.

    Raises UsageError where there is no such model, ModelError for a file that is not what its card says or cannot be
    used, StorageError where the storage fails.
    """
    found = parse_reference(reference)
    exact, local = _located(reference, found, endpoint_url)
    info, digest = read_info(local)
    return ResolvedModel(absolute(exact) if found is None else exact, local, info, digest, found is not None)


def local_model(reference: str, endpoint_url: str | None = None) -> str:
    """Return what `imgtx` opens: packaged names and local paths unchanged, else a checked local copy.

    Raises as `resolve_model`.
    """
    return _located(reference, parse_reference(reference), endpoint_url)[1]


def exact_reference(reference: str, endpoint_url: str | None = None) -> str:
    """Return the reference with `latest` replaced by today's version, and the store's absolute URI; fetch nothing.

    Raises UsageError where there is no such model.
    """
    found = parse_reference(reference)
    return _exact(found, endpoint_url)[0] if isinstance(found, InStore) else reference


def _located(reference: str, found: InStore | InStorage | None, endpoint_url: str | None) -> tuple[str, str]:
    """Return the exact reference and the local one of what `parse_reference` found.

    Files that the reference declares beside the model (a LoRA) are fetched where they are in storage.
    """

    def fetched(file: str) -> str:
        return str(fetch_file(file, endpoint_url)) if "://" in file else file

    if found is None:
        return reference, with_files(reference, fetched)
    if isinstance(found, InStorage) and found.folder:
        folder = fetch_folder(found.uri, found.prefix, endpoint_url)
        return reference, with_files(folder + found.query, fetched)
    if isinstance(found, InStorage):
        return reference, found.prefix + str(fetch_file(found.uri, endpoint_url)) + found.query
    exact, models, number = _exact(found, endpoint_url)
    return exact, str(fetch_version(models, models.version(found.name, number)))


def _exact(found: InStore, endpoint_url: str | None) -> tuple[str, ModelStore, str]:
    """Return the exact reference of a version, its store and its number."""
    store = open_store(found.store, endpoint_url=endpoint_url)
    models = ModelStore(store)
    number = found.version if found.version != LATEST else _latest_of(models, found.name)
    return f"{store.uri.rstrip('/')}/{found.name}@{number}", models, number


def _latest_of(models: ModelStore, name: str) -> str:
    latest = models.latest(name)
    if latest is None:
        numbers = models.numbers(name)
        held = (
            f"it has {', '.join(numbers)}"
            if numbers
            else f"the store has {', '.join(models.names()) or 'no model'}"
        )
        raise UsageError(
            f"{name} has no latest version in {models.store.describe()}; {held}: imgtx models promote sets it"
        )
    return latest.version
