"""What every back end knows of objects: temporary names, and the version that was listed."""

from imgtx.errors import StorageError

# Prefix of the last component of every temporary name: never listed, swept after a crash.
TEMPORARY = ".imgtx-tmp-"


def as_text(name: str) -> str:
    """Return a file's name as valid Unicode: each byte that is not UTF-8 becomes U+001A and its hexadecimal.

    name: as Python decodes names of files, with such a byte as a lone surrogate.
    """
    if name.isascii():
        return name
    return "".join(f"\x1a{ord(c) - 0xDC00:02x}" if "\udc80" <= c <= "\udcff" else c for c in name)


def is_hidden(key: str) -> bool:
    """Return whether a key is a folder marker or a temporary name of imgtx."""
    return key.endswith("/") or key.rpartition("/")[2].startswith(TEMPORARY)


def check_version(where: str, found: str, wanted: str) -> None:
    """Raise StorageError (reason changed) where the version `found` differs from the one `wanted`.

    An empty version is unknown and equals every other.
    """
    if wanted and found and found != wanted:
        raise StorageError(
            "changed", f"{where} changed after it was listed (version {found}, listed {wanted}): run again"
        )
