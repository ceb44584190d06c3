"""What every back end knows of objects: temporary names, and the version that was listed."""

import re

from imgtx.errors import StorageError

# Prefix of the last component of every temporary name: never listed, swept after a crash.
TEMPORARY = ".imgtx-tmp-"
# Begins the code of a byte in a key.
_MARK = "\x1a"
_CODE = re.compile(r"\x1a(1a|[89a-f][0-9a-f])")


def as_text(name: str) -> str:
    """Return a file's name as valid Unicode: each byte that is not UTF-8 becomes U+001A and its hexadecimal.

    name: as Python decodes names of files, with such a byte as a lone surrogate. U+001A itself becomes U+001A and 1a,
    so that `as_name` returns the same name again.
    """
    if name.isascii() and _MARK not in name:
        return name
    return "".join(map(_coded, name))


def as_name(text: str) -> str:
    """Return the name of a file of which `as_text` made this text."""
    return _CODE.sub(_decoded, text) if _MARK in text else text


def _coded(character: str) -> str:
    if character == _MARK:
        return f"{_MARK}1a"
    return f"{_MARK}{ord(character) - 0xDC00:02x}" if "\udc80" <= character <= "\udcff" else character


def _decoded(code: re.Match[str]) -> str:
    byte = int(code[1], 16)
    return _MARK if byte < 0x80 else chr(0xDC00 + byte)


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
