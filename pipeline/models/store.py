"""A model store: versions of models under one root, in a folder or a bucket, and which of them is the latest.

    store = ModelStore(open_store("s3://bucket/models"))
    made = store.add("sr-x2", Path("runs/sr-x2.safetensors").read_bytes(), card={"info": ...})
    store.promote("sr-x2", made.number, why="by hand", over=store.latest("sr-x2"))

    <name>/<version>/model.safetensors    created and never overwritten, as all that follows
    <name>/<version>/card.md, ...         what else came with it
    <name>/<version>/card.json            last: a version without it is not there. The checksums of all its files
    <name>/latest/<generation>.json       the highest one says which version is the latest, since when, and why

Every object is made by a conditional create, so of any number of writers one wins: a version is immutable, and the
pointer moves by compare-and-swap, for its next generation can be made once. Generations stay: they are its history.
A writer that was killed leaves a number without a card, which is not used again. Nothing here is ever unpickled.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

from imgtx.errors import ModelError, StorageError, UsageError
from pipeline.storage.store import Store
from pipeline.user import user_name

MODEL, CARD, LATEST = "model.safetensors", "card.json", "latest"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Cards that are read at the same time.
_AT_ONCE = 16


@dataclass(frozen=True)
class Version:
    """One complete version of a model. `card` says how it was made and holds the checksums of its `files`."""

    name: str
    # "0001", counted upwards.
    number: str
    card: dict[str, Any]

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        """By name: `sha256` in hex and `bytes`."""
        return self.card["files"]

    @property
    def digest(self) -> str:
        """SHA-256 of the weight file in hex, which is what a recipe holds."""
        return self.files[MODEL]["sha256"]


@dataclass(frozen=True)
class Pointer:
    """Where `latest` is. `below` is the generation that a rollback goes back to, 0 for none."""

    version: str
    why: str
    by: str
    # UTC, for users: never compared.
    moved: str
    below: int = 0
    generation: int = 0


class ModelStore:
    """The models under a Store. Every method raises StorageError where the storage fails."""

    def __init__(self, store: Store):
        self.store = store

    def names(self) -> list[str]:
        """Return models that have a version, in the order of their names."""
        return sorted({name for name, _ in self._complete("")})

    def numbers(self, name: str) -> list[str]:
        """Return the complete versions of a model, oldest first."""
        return sorted((number for found, number in self._complete(f"{name}/") if found == name), key=int)

    def versions(self, name: str = "") -> list[Version]:
        """Read every complete version of one model or, for "", of all; by name, oldest first."""
        found = sorted(self._complete(f"{name}/" if name else ""), key=lambda item: (item[0], int(item[1])))
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(lambda item: self._read_version(*item), found))

    def version(self, name: str, number: str) -> Version:
        """Read one version; UsageError where the store has none of it, ModelError for a card that cannot be read."""
        try:
            return self._read_version(name, number)
        except StorageError as error:
            if error.reason != "not_found":
                raise
            raise UsageError(self._missing(f"{name}@{number}", name)) from error

    def add(
        self, name: str, weights: bytes, card: Mapping[str, Any], also: Mapping[str, bytes] | None = None
    ) -> Version:
        """Put a weight file with its card, and other files by name, as the next version; `latest` stays.

        The same weights twice are the same version: the one that has them, whole, is returned as it is.
        """
        check_name(name)
        contents = {MODEL: weights} | dict(also or {})
        sums = {
            file: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            for file, data in contents.items()
        }
        for known in reversed(self.versions(name)):
            # read back, so that what was damaged in the store can be brought in once more
            if known.digest == sums[MODEL]["sha256"] and self._holds(known, weights):
                return known
        number = self._claim(name, weights)
        for file, data in contents.items():
            if file != MODEL and not self.store.create(f"{name}/{number}/{file}", data):
                raise ModelError(f"{self._where(name, number)} has a {file} of another writer: add it again")
        facts = {"name": name, "version": number, "created": _now(), "by": user_name(), "files": sums}
        complete = Version(name, number, dict(card) | facts)
        if not self.store.create(f"{name}/{number}/{CARD}", _encode(complete.card)):
            raise ModelError(f"{self._where(name, number)} has a card of another writer: add it again")
        return complete

    def latest(self, name: str) -> Pointer | None:
        """Return where the pointer is now; None where it was never set."""
        generations = self._generations(name)
        return self._read_pointer(name, generations[-1]) if generations else None

    def history(self, name: str) -> list[Pointer]:
        """Return every place where the pointer was, oldest first."""
        return [self._read_pointer(name, generation) for generation in self._generations(name)]

    def promote(self, name: str, number: str, *, why: str, over: Pointer | None) -> Pointer | None:
        """Move `latest` to a version, unless it has moved since the caller read it as `over`: then None.

        Raises UsageError where there is no such version.
        """
        self.version(name, number)
        return self._point(
            name, over, Pointer(number, why, user_name(), _now(), over.generation if over else 0)
        )

    def rollback(self, name: str, *, why: str = "rollback") -> Pointer:
        """Move `latest` back to where it was before; a second one goes further back, not forth again.

        Raises UsageError where there is nothing to go back to, ModelError where another writer moved it in the
        meantime.
        """
        now = self.latest(name)
        if now is None or not now.below:
            state = f"is at its first version {now.version}" if now else "was never set"
            raise UsageError(
                f"{self._where(name)} cannot be rolled back: its latest {state}; promote another version instead"
            )
        before = self._read_pointer(name, now.below)
        moved = self._point(name, now, Pointer(before.version, why, user_name(), _now(), before.below))
        if moved is None:
            raise ModelError(f"the latest of {self._where(name)} was moved in the meantime: look again")
        return moved

    def _point(self, name: str, over: Pointer | None, to: Pointer) -> Pointer | None:
        generation = (over.generation if over else 0) + 1
        record = asdict(to)
        del record["generation"]
        if not self.store.create(f"{name}/{LATEST}/{generation:06d}.json", _encode(record)):
            return None
        return Pointer(**record, generation=generation)

    def _claim(self, name: str, weights: bytes) -> str:
        """Put the weights under the next free number; of racing writers each gets its own."""
        while True:
            taken = [int(m[1]) for key in self._keys(f"{name}/") if (m := _version_key(name, key))]
            number = f"{max(taken, default=0) + 1:04d}"
            if self.store.create(f"{name}/{number}/{MODEL}", weights):
                return number

    def _holds(self, version: Version, weights: bytes) -> bool:
        try:
            return self.store.read(f"{version.name}/{version.number}/{MODEL}") == weights
        except StorageError as error:
            if error.reason != "not_found":
                raise
            return False

    def _complete(self, prefix: str) -> set[tuple[str, str]]:
        matches = (re.fullmatch(rf"([^/]+)/(\d+)/{re.escape(CARD)}", key) for key in self._keys(prefix))
        return {(match[1], match[2]) for match in matches if match and NAME.fullmatch(match[1])}

    def _generations(self, name: str) -> list[int]:
        prefix = f"{name}/{LATEST}/"
        matches = (re.fullmatch(rf"{re.escape(prefix)}(\d+)\.json", key) for key in self._keys(prefix))
        return sorted(int(match[1]) for match in matches if match)

    def _keys(self, prefix: str) -> list[str]:
        try:
            return [key for batch in self.store.list(prefix) for key in batch.column("key").to_pylist()]
        except StorageError as error:
            if error.reason == "not_found" and self.store.is_local:
                # A store that does not exist yet.
                return []
            raise

    def _read_version(self, name: str, number: str) -> Version:
        where = f"{self._where(name, number)}/{CARD}"
        card = _decode(self.store.read(f"{name}/{number}/{CARD}"), where)
        files = card.get("files")
        if not isinstance(files, dict):
            files = {}
        whole = MODEL in files and all(
            isinstance(sums, dict)
            and re.fullmatch("[0-9a-f]{64}", str(sums.get("sha256")))
            and type(sums.get("bytes")) is int
            for sums in files.values()
        )
        if not whole:
            raise ModelError(f"{where} has no checksums of its files: imgtx models import writes such a card")
        return Version(name, number, card)

    def _read_pointer(self, name: str, generation: int) -> Pointer:
        where = f"{name}/{LATEST}/{generation:06d}.json"
        values = _decode(self.store.read(where), self._where(where))
        try:
            known = {
                field.name: values[field.name] for field in fields(Pointer) if field.name != "generation"
            }
        except KeyError as error:
            raise ModelError(f"{self._where(where)} lacks {error}: imgtx models promote writes it") from error
        return Pointer(**known, generation=generation)

    def _missing(self, what: str, name: str) -> str:
        numbers = self.numbers(name)
        known = (
            f"it has {', '.join(numbers)}"
            if numbers
            else f"its models are {', '.join(self.names()) or 'none'}"
        )
        return f"no {what} in the model store {self.store.describe()}; {known}: imgtx models list shows them"

    def _where(self, *parts: str) -> str:
        return "/".join((self.store.uri.rstrip("/"), *parts))


def check_name(name: str) -> None:
    """UsageError for what cannot be a model's name in a store."""
    if not NAME.fullmatch(name) or name.endswith(".safetensors"):
        raise UsageError(
            f"the model's name {name!r}: expected letters, digits, dots, hyphens and underscores, for example sr-x2"
        )


def _version_key(name: str, key: str) -> re.Match[str] | None:
    return re.match(rf"{re.escape(name)}/(\d+)/", key)


def _encode(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=1) + "\n").encode()


def _decode(data: bytes, where: str) -> dict[str, Any]:
    try:
        values = json.loads(data)
    except ValueError as error:
        raise ModelError(f"{where} cannot be read ({error}): it is damaged, or not imgtx's") from error
    if not isinstance(values, dict):
        raise ModelError(f"{where} holds no table: it is damaged, or not imgtx's")
    return values


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
