"""Show names and messages that strangers wrote: nothing in them may move the cursor, colour or hide other lines."""

import unicodedata

# Control characters, lone surrogates, line and paragraph separators.
_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
# Characters that change the direction of the text after them.
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    r"""Return the text in one line that is safe on a terminal: a newline as `\n`, ESC as `\x1b`, others likewise."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if unicodedata.category(character) in _CATEGORIES or character in _DIRECTIONS:
        return character.encode("unicode_escape", "surrogatepass").decode("ascii")
    return character
