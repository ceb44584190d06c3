"""Refuse what imgtx does not read, and turn every exception of a decoder into `ImageError`."""

import re
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
# Lines of decoders' messages that say nothing of the file: the call that failed, or what the program did about it.
_SAYS_NOTHING = re.compile(
    r"unable to |the decoder went on|libpng read error|bad seek to|read gave \d+ warnings|cannot identify image file",
    re.IGNORECASE,
)
# The names of functions and modules before what they say: `VipsJpeg: `, `tiff2vips: `, `LZWDecode: `.
_SPEAKER = re.compile(r"^(?:\w+: +)+")
# Objects of Python: `<_io.BytesIO object at 0x7f2a>`.
_OBJECT = re.compile(r" ?<[^<>]* object at 0x[0-9a-f]+>")


def foreign_error(start: bytes, file: BinaryIO, advice: str) -> ImageError:
    """Return the error for a file of no format that is read: animated, unsupported, corrupt or not_an_image.

    `start` is its first 32 bytes; `advice` says what imgtx reads and ends the message.
    """
    kind = _foreign_format(start)
    if kind:
        return ImageError("unsupported", f"a {kind} image; {advice}")
    file.seek(0)
    beginning = file.read(64)
    is_page = beginning.lstrip().lower().startswith((b"<!doctype html", b"<html"))
    what = "an HTML page" if is_page else "not an image"
    return ImageError("not_an_image", f"the bytes are {what} (they begin {beginning[:12]!r}); {advice}")


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
        # What `struct` says of its buffers tells a user nothing.
        why = "" if isinstance(error, struct.error) else _in_brackets(error)
        raise ImageError(
            "truncated", f"the {format} header ends too early{why}: fetch the file again"
        ) from error
    except MemoryError as error:
        raise ImageError("out_of_memory", f"no memory to read the {format} header: {error}") from error
    except Exception as error:
        raise _header_error(format, error, advice) from error


def _header_error(format: str, error: Exception, advice: str) -> ImageError:
    message, why = str(error), _in_brackets(error)
    if "cannot handle" in message or "Unsupported" in message:
        return ImageError("unsupported", f"this {format}{why} cannot be read; {advice}")
    if "truncated" in message.lower():
        return ImageError("truncated", f"the {format} header ends too early{why}: fetch the file again")
    return ImageError("corrupt", f"the {format} header cannot be read{why}: repair or replace the file")


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
        message = str(error).lower()
        if cut or isinstance(error, EOFError) or any(word in message for word in _TRUNCATED):
            reason, what = "truncated", "ends before its pixels do"
        else:
            reason, what = "corrupt", "cannot be decoded"
        raise ImageError(
            reason, f"the {format} {what}{_in_brackets(error)}: fetch or make the file again"
        ) from error


def _in_brackets(error: Exception) -> str:
    """Return what a decoder says of the file, as " (Using code not yet in table)", or "".

    Left out are the names of the decoder's functions and objects, and lines that speak of the decoder alone.
    """
    # libvips repeats its message for every strip.
    lines = [_SPEAKER.sub("", line.strip(), count=1) for line in str(error).splitlines()]
    said = [_OBJECT.sub("", line) for line in lines if line and not _SAYS_NOTHING.match(line)]
    return f" ({shorten('; '.join(dict.fromkeys(said)), 400)})" if said else ""
