r"""Globs over keys, compiled once to regular expressions that Arrow runs over whole columns.

`*`, `?` and `[a-z]` match within one part of a key, `**` any number of folders, and `\` takes the next character as it
is. A glob without a slash is looked for at every depth, one with a slash from the root of the source; one that ends in
a slash matches folders only. Whatever it matches, file or folder, it matches with everything below. Case counts.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imgtx.errors import UsageError
from pipeline.tables.rows import as_bools

_SPECIAL = frozenset(r"\.^$*+?{}[]|()")
_ANY_FOLDERS = "(?:[^/]*/)*?"
# The length of what is not there.
NONE = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Glob:
    """One glob: `body` is its regular expression, `parts` the globs between its slashes.

    anchored: whether it starts at the root. folders_only: whether it matches no files.
    """

    text: str
    body: str
    parts: tuple[str, ...]
    anchored: bool
    folders_only: bool

    @property
    def expression(self) -> str:
        """Return the regular expression that finds it in a key."""
        start = "^" if self.anchored else "(?:^|/)"
        return f"{start}{self.body}{self._end}"

    @property
    def top_expression(self) -> str:
        """Return the regular expression whose group `top` is the first file or folder of a key that it matches."""
        start = "" if self.anchored else _ANY_FOLDERS
        return f"^(?P<top>{start}{self.body}){self._end}"

    @property
    def _end(self) -> str:
        return "/" if self.folders_only else "(?:/|$)"

    @property
    def beginning(self) -> str:
        """Return what every key that it matches begins with."""
        if not self.anchored:
            return ""
        plain = []
        for part in self.parts:
            start, wild = plain_start(part)
            plain.append(start)
            if wild:
                break
        return "/".join(plain)

    @property
    def key(self) -> str:
        """Return the only key that it matches if it has no wildcard, else ""."""
        wild = any(plain_start(part)[1] for part in self.parts)
        return self.beginning if self.anchored and not wild and not self.folders_only else ""


@dataclass(frozen=True)
class Globs:
    """Several globs, of which a key must match one."""

    globs: tuple[Glob, ...]

    @classmethod
    def parse(cls, texts: Iterable[str], option: str) -> "Globs":
        """Return the globs of an option; raises UsageError for one that cannot match anything."""
        return cls(tuple(parse_glob(text, option) for text in texts))

    def __bool__(self) -> bool:
        return bool(self.globs)

    def matches(self, keys: pa.Array) -> np.ndarray:
        """Return which keys are matched, or are below a folder that is: bool (keys,)."""
        if not self.globs:
            return np.zeros(len(keys), bool)
        return as_bools(pc.match_substring_regex(keys, self._expression))

    def matches_folder(self, folder: str) -> bool:
        """Return whether a folder is matched, or below one that is."""
        return bool(self.globs) and self._compiled.search(f"{folder}/") is not None

    def tops(self, keys: pa.Array) -> pa.Array:
        """Return the first file or folder of each key that is matched, a folder with its slash; null where none is."""
        shortest, lengths = pa.nulls(len(keys), pa.string()), np.full(len(keys), NONE)
        for glob in self.globs:
            tops = pc.struct_field(pc.extract_regex(keys, glob.top_expression), "top")
            length = lengths_of(tops)
            shortest = pc.if_else(pa.array(length < lengths), tops, shortest)
            lengths = np.minimum(length, lengths)
        is_folder = pc.less(pc.binary_length(shortest), pc.binary_length(keys))
        return pc.if_else(is_folder, pc.binary_join_element_wise(shortest, "", "/"), shortest)

    @cached_property
    def _expression(self) -> str:
        return "|".join(glob.expression for glob in self.globs)

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self._expression)


def common_beginning(texts: Iterable[str]) -> str:
    """Return what all of these texts begin with, "" where there are none."""
    texts = sorted(texts)
    if not texts:
        return ""
    first, last = texts[0], texts[-1]
    differs = (place for place in range(len(first)) if first[place] != last[place : place + 1])
    return first[: next(differs, len(first))]


def lengths_of(texts: pa.Array) -> np.ndarray:
    """Return the bytes of each text, NONE for null: int64 (texts,)."""
    return pc.fill_null(pc.binary_length(texts).cast(pa.int64()), NONE).to_numpy(zero_copy_only=False)


def parse_glob(text: str, option: str, *, anchored: bool = False) -> Glob:
    """Return a glob; raises UsageError, naming the option, for one that cannot match anything.

    anchored: whether it starts at the root even without a slash.
    """
    shortened = text.removeprefix("./")
    anchored = anchored or "/" in text.removesuffix("/")
    folders_only = shortened.endswith("/")
    parts = [part for part in shortened.split("/") if part]
    while len(parts) > 1 and parts[-1] == "**":
        # What a glob matches it matches with everything below: `.git/**` is the folder `.git`.
        parts.pop()
        folders_only = True
    if not parts or any(part in (".", "..") for part in parts) or "\0" in text:
        raise UsageError(
            f"{option} {text!r} matches nothing: give a glob of keys relative to the source, such as '*.jpg' or "
            "'2019/**'"
        )
    body = ""
    for place, part in enumerate(parts):
        last = place == len(parts) - 1
        body += _ANY_FOLDERS if part == "**" and not last else _expression_of(part) + "/" * (not last)
    try:
        re.compile(body)
    except re.error as error:
        raise UsageError(
            f"{option} {text!r} is not a glob ({error}): write a range as [a-z], or a backslash before a bracket that "
            "is part of a name"
        ) from error
    return Glob(text, body, tuple(parts), anchored, folders_only)


def escaped(name: str) -> str:
    """Return a glob that matches exactly this name."""
    return "".join(f"\\{character}" if character in "*?[\\" else character for character in name)


def is_glob(text: str) -> bool:
    """Return whether a text has a wildcard."""
    return plain_start(text)[1]


def plain_start(part: str) -> tuple[str, bool]:
    """Return what a part of a glob begins with before its first wildcard, and whether it has one."""
    plain, place = "", 0
    while place < len(part):
        if part[place] in "*?" or _class_at(part, place):
            return plain, True
        if part[place] == "\\" and place + 1 < len(part):
            place += 1
        plain += part[place]
        place += 1
    return plain, False


def _expression_of(part: str) -> str:
    """Return the regular expression of what is between two slashes."""
    made, place = "", 0
    while place < len(part):
        character = part[place]
        if character == "*":
            while part[place + 1 : place + 2] == "*":
                place += 1
            made += "[^/]*"
        elif character == "?":
            made += "[^/]"
        elif listed := _class_at(part, place):
            made += _class_expression(listed)
            place += len(listed) - 1
        else:
            if character == "\\" and place + 1 < len(part):
                place += 1
                character = part[place]
            made += f"\\{character}" if character in _SPECIAL else character
        place += 1
    return made


def _class_at(part: str, place: int) -> str:
    """Return the bracket expression that begins at `place`, such as `[!a-z]`; "" where none does."""
    if part[place] != "[":
        return ""
    first = place + 1 + (part[place + 1 : place + 2] in ("!", "^"))
    # A closing bracket right after the opening one is a character of the class.
    end = part.find("]", first + 1)
    return part[place : end + 1] if end > 0 else ""


def _class_expression(listed: str) -> str:
    inner, negated = listed[1:-1], listed[1] in "!^"
    inner = inner[1:] if negated else inner
    inner = "".join(f"\\{c}" if c in r"\[]^&~|" else c for c in inner)
    return f"[^/{inner}]" if negated else f"[{inner}]"
