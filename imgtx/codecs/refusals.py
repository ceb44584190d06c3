"""Refuse what imgtx does not read, and turn every exception of a decoder into `ImageError`."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import shorten
from typing import BinaryIO

from imgtx.errors import ImageError

# Formats that are not read, by the beginning of their files: the message can name them.
_FOREIGN = {
    b"\x76\x2f\x31\x01": "openexr",
}
# Words of decoders' messages that mean a file which ends too early.
_TRUNCATED = (
    "truncated",
    "premature",
    "end of file",
    "end of stream",
    "not enough",
    "unexpected end",
    "incomplete",
)


def foreign_error(start: bytes, file: BinaryIO, advice: str) -> ImageError:
    """Return the error for a file of no format that is read: animated, unsupported, corrupt or not_an_image.

    `start` is its first 32 bytes; `advice` says what imgtx reads and ends the message.
    """
    kind = _foreign_format(start)
    if kind:
        return ImageError("unsupported", f"a {kind} image; {advice}")
    file.seek(0)
    text = file.read(64).lstrip().lower()
    what = "an HTML page" if text.startswith((b"<!doctype html", b"<html")) else "not an image"
    return ImageError("not_an_image", f"the bytes are {what} (they begin {text[:12]!r}); {advice}")


def _foreign_format(start: bytes) -> str:
    return next((name for signature, name in _FOREIGN.items() if start.startswith(signature)), "")


@contextmanager
def header_errors(format: str, advice: str) -> Iterator[None]:
    """Turn any exception of reading a header into `ImageError`; `advice` says what imgtx reads.

    Parsers raise anything: SyntaxError, KeyError, OverflowError, warnings as errors.
    """
    try:
        yield
    except ImageError:
        raise
    except (struct.error, EOFError) as error:
        raise ImageError(
            "truncated", f"the {format} header ends too early ({error}): fetch the file again"
        ) from error
    except MemoryError as error:
        raise ImageError("out_of_memory", f"no memory to read the {format} header: {error}") from error
    except Exception as error:
        raise _header_error(format, error, advice) from error


def _header_error(format: str, error: Exception, advice: str) -> ImageError:
    message = str(error) or type(error).__name__
    if "cannot handle" in message or "Unsupported" in message:
        return ImageError("unsupported", f"this {format} ({message}) cannot be read; {advice}")
    if "truncated" in message.lower():
        return ImageError(
            "truncated", f"the {format} header ends too early ({message}): fetch the file again"
        )
    return ImageError(
        "corrupt", f"the {format} header cannot be read ({message}): repair or replace the file"
    )


@contextmanager
def decoder_errors(format: str, *, cut: bool = False) -> Iterator[None]:
    """Turn any exception of a decoder into `ImageError`: truncated, corrupt or out_of_memory.

    cut: the file is known to lack its end.
    """
    try:
        yield
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(
            "out_of_memory", f"no memory to decode the {format}: give the worker more"
        ) from error
    except Exception as error:
        # libvips repeats its message for every strip.
        lines = dict.fromkeys(str(error).splitlines())
        message = shorten(" ".join(lines), 400) or type(error).__name__
        if cut or isinstance(error, EOFError) or any(word in message.lower() for word in _TRUNCATED):
            reason, advice = "truncated", "ends before its pixels do"
        else:
            reason, advice = "corrupt", "cannot be decoded"
        raise ImageError(
            reason, f"the {format} {advice} ({message}): fetch or make the file again"
        ) from error
