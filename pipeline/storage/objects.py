"""What every back end knows of objects: temporary names, and the version that was listed."""

from imgtx.errors import StorageError

# Prefix of the last component of every temporary name: never listed, swept after a crash.
TEMPORARY = ".imgtx-tmp-"


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
