"""Find the start pictures that rows of a table name: as keys of one folder, or wherever each of them is.

A picture's version, as its storage tells it, is part of the version of each of its rows, so that exactly these run
again when it changes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from imgtx.errors import StorageError, UsageError
from pipeline.sources.images import image_versions
from pipeline.sources.prompt_rows import CellError
from pipeline.storage.checks import check_source
from pipeline.storage.store import Store, open_store
from pipeline.tables.schemas import BAD_VALUE


@dataclass(frozen=True)
class PicturesIn:
    """Start pictures under one root, which is listed once: rows name their keys."""

    store: Store
    option: str

    @cached_property
    def known(self) -> Mapping[str, str]:
        """Return the version of every picture by its key."""
        table = image_versions(self.store)
        return dict(zip(table["key"].to_pylist(), table["version"].to_pylist(), strict=True))

    def check(self) -> None:
        """Raise UsageError where the root cannot be read."""
        check_source(self.store, self.option)

    def find(self, name: str) -> tuple[str, str]:
        """Return key and version of the picture that a row names; CellError where there is none."""
        if name not in self.known:
            raise CellError(BAD_VALUE, f"has the start picture {name!r}, which is not in {self.option}")
        return name, self.known[name]

    def read(self, key: str, version: str) -> bytes:
        """Return a picture's bytes; StorageError where it is gone or has changed."""
        return self.store.read(key, version=version)


@dataclass(frozen=True)
class PicturesAnywhere:
    """Start pictures by URI or path, which is relative to `folder`: each is asked for once, when a row names it."""

    folder: str
    endpoint_url: str | None = None
    known: dict[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Check nothing: no row may name a picture."""

    def find(self, name: str) -> tuple[str, str]:
        """Return location and version of the picture that a row names; CellError where there is none.

        Raises StorageError where the storage does not say.
        """
        absolute = "://" in name or name.startswith(("/", "~"))
        location = name if absolute else f"{self.folder.rstrip('/')}/{name}"
        if location not in self.known:
            try:
                store, key = self._open(location)
                facts = store.stat(key) if key else None
            except UsageError as error:
                raise CellError(BAD_VALUE, f"has the start picture {name!r}: {error}") from error
            except StorageError as error:
                if error.reason != "unsafe_key":
                    raise
                facts = None
            if facts is None:
                raise CellError(BAD_VALUE, f"has the start picture {name!r}, and there is none at {location}")
            self.known[location] = facts[1]
        return location, self.known[location]

    def read(self, key: str, version: str) -> bytes:
        """Return a picture's bytes; StorageError where it is gone or has changed."""
        store, name = self._open(key)
        return store.read(name, version=version)

    def _open(self, location: str) -> tuple[Store, str]:
        folder, _, name = location.rpartition("/")
        return open_store(folder or "/", endpoint_url=self.endpoint_url), name


StartPictures = PicturesIn | PicturesAnywhere
