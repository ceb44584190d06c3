"""Prompts as token numbers: a closed vocabulary of words, and letters for every other word.

A prompt is lower-cased, accents are removed, punctuation separates words and has no token of its own. A word of the
vocabulary is one token; any other word is spelled, one token for each letter or digit of a-z and 0-9, and one
"unknown" token for each other letter (a network that saw a word's letters only knows nothing of its meaning, but two
such words differ). Every prompt begins with the same first token, so that an empty one has a token too.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

PAD, UNKNOWN, START = 0, 1, 2
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
FIRST_LETTER = START + 1
FIRST_WORD = FIRST_LETTER + len(LETTERS)

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Tokens:
    """One prompt: `numbers` begins with START, is not padded; `spelled` counts words that are not in the vocabulary.

    `cut` counts the tokens at the prompt's end that did not fit.
    """

    numbers: tuple[int, ...]
    cut: int = 0
    spelled: int = 0


class Tokenizer:
    """Words to numbers; `size` is the number of different tokens."""

    def __init__(self, vocabulary: Sequence[str], max_tokens: int):
        self.max_tokens = max_tokens
        self.size = FIRST_WORD + len(vocabulary)
        self._words = {word: FIRST_WORD + i for i, word in enumerate(vocabulary)}

    def __call__(self, prompt: str, style: str = "") -> Tokens:
        """Return the tokens of `prompt`, at most `max_tokens` of them.

        With `style`, `in <style> style` follows, and is never cut: the prompt is.
        """
        ending, spelled_ending = self._numbers(f"in {style} style" if style else "")
        numbers, spelled = self._numbers(prompt)
        room = max(0, self.max_tokens - 1 - len(ending))
        cut = max(0, len(numbers) - room)
        kept = [START, *numbers[:room], *ending]
        return Tokens(tuple(kept[: self.max_tokens]), cut, spelled + spelled_ending)

    def unknown(self, text: str) -> list[str]:
        """Return the words that are spelled, without those of one letter, which is a token of its own."""
        return [word for word in words_of(text) if word not in self._words and len(word) > 1]

    def _numbers(self, text: str) -> tuple[list[int], int]:
        numbers: list[int] = []
        spelled = 0
        for word in words_of(text):
            number = self._words.get(word)
            if number is not None:
                numbers.append(number)
            else:
                numbers += spell(word)
                spelled += 1
        return numbers, spelled


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case, without accents and punctuation."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return _WORD.findall("".join(c for c in plain if not unicodedata.combining(c)).replace("'", ""))


def spell(word: str) -> list[int]:
    """Return a token for each letter of a word."""
    return [FIRST_LETTER + at if (at := LETTERS.find(letter)) >= 0 else UNKNOWN for letter in word]
