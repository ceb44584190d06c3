"""What an adapter is: one file that finds, digests and loads the models of one library or format."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

if TYPE_CHECKING:
    # This imports torch.
    from imgtx.models.contract import ImageModel
    from imgtx.models.info import ModelInfo


@dataclass(frozen=True)
class Source:
    """Where a model is and which adapter reads it, by prefix.

    `declared` is what a reference says after its `?`; a name that it gives several times has a value on each line.
    """

    kind: str
    path: Path
    declared: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.kind}:{self.path}{as_query(self.declared)}"


def as_query(declared: Mapping[str, str]) -> str:
    """Return `?name=value&...` as `imgtx.models.references` reads it, "" where nothing is declared."""
    pairs = [(name, value) for name, values in declared.items() for value in values.split("\n")]
    query = "&".join(f"{name}={quote(value, safe='/:@,;~!$()*')}" for name, value in pairs)
    return f"?{query}" if query else ""


class Adapter(Protocol):
    """A module of this package. Importing it is cheap: its library and torch are imported in `load` alone."""

    @property
    def PREFIX(self) -> str:  # noqa: N802 - a module's constant
        """`PREFIX:PATH` names a model of this kind outright."""

    @property
    def SUFFIXES(self) -> tuple[str, ...]:  # noqa: N802 - a module's constant
        """File suffixes that this kind of model may have, in local folders and in storage."""

    @property
    def IS_FOLDER(self) -> bool:  # noqa: N802 - a module's constant
        """Whether a model is a folder rather than a file."""

    @property
    def MARK(self) -> str:  # noqa: N802 - a module's constant
        """The file by which a folder is known, "" for files."""

    @property
    def FORM(self) -> str:  # noqa: N802 - a module's constant
        """What to write for a file whose suffix says nothing: "prefix:{path} for ..."; "" to stay silent."""

    @property
    def DECLARES(self) -> bool:  # noqa: N802 - a module's constant
        """Whether references end in `?name=value&...`, which says what the file does not."""

    @property
    def facts(self) -> "Callable[[Source], tuple[ModelInfo, dict[str, Any]]] | None":
        """Return the info of a model that was never probed and what else its files say; None where `load` must."""

    @property
    def convert(self) -> Callable[[Path, Path], None] | None:
        """Write a file's tensors as safetensors for a model store; None where that is impossible."""

    @property
    def folder_files(
        self,
    ) -> "Callable[[Collection[str], Callable[[str], bytes], str], Collection[str]] | None":
        """Return which of a folder's files a model is made of, for storage to fetch; None for files.

        From the names of its files, relative to it; a function that reads one; and the folder's name for messages.
        Raises UsageError and ModelError as `load`.
        """

    def recognizes(self, path: Path) -> bool:
        """Return whether `path` without a prefix is a model of this kind."""

    def digest(self, source: Source) -> str:
        """Return the SHA-256 in hex of everything that decides what the model computes."""

    def load(self, source: Source, digest: str) -> "ImageModel":
        """Return the model, in float32 on the CPU.

        Raises UsageError where its library is missing, ModelError where the file cannot be trusted or used.
        """
