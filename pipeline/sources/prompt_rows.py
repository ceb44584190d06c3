"""Turn rows of a table of prompts into LISTED rows: an output for each sample, with a key of its own.

The rules (docs/guides/generate.md states them for users):

- A row's key is its cell in the column that `Reading.key` names, else a hash of all that the row asks for. The first
  sample has that key, the others `<key>-2`, `<key>-3` ... and the seeds that follow the row's.
- The version is a hash of what the row asks for and of its start picture's version, so that a row runs again exactly
  when one of them changes.
- A row that cannot be used fails under its key, or as `row-<number>`. One that repeats another is skipped. Two rows
  that ask for different pictures under one key end the command.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from imgtx.errors import UsageError
from imgtx.models.generation import LARGEST_SEED
from pipeline.sources.keys import complaint_about
from pipeline.sources.tabular import Broken, Columns, Line, Types, Values
from pipeline.tables.hashing import hash64
from pipeline.tables.schemas import BAD_PROMPT, BAD_VALUE, DUPLICATE, FAILED, LISTED, SKIPPED
from pipeline.tables.spill import Rows, Spill, buckets_for

PROMPT, SEED, SAMPLES, IMAGE = "prompt", "seed", "samples", "image"
TEXTS = ("negative", "style", IMAGE)
WHOLE = ("steps", "width", "height")
NUMBERS = ("guidance", "strength")
# The columns that mean something; others are kept with the row's key (`pipeline.prompt_record`).
COLUMNS = (PROMPT, SEED, SAMPLES, *TEXTS, *WHOLE, *NUMBERS)
MAX_SAMPLES = 10_000

BATCH_ROWS = 1 << 16
# Of the prompt, in the key of a row without one, so that people find their pictures.
SLUG = 40
# As `json.dumps(..., ensure_ascii=False)`, which makes an encoder for each call.
_ENCODE = json.JSONEncoder(ensure_ascii=False).encode
_NO_WORDS = re.compile(r"[\W_]+")
# `line` is the row's number in the table, from 1; `version` and `key` are hashes.
_SEEN = pa.schema([("key", pa.uint64()), ("version", pa.uint64()), ("place", pa.int64())])
_NUMBERED = pa.schema([*LISTED, ("line", pa.int64())])


@dataclass(frozen=True)
class Reading:
    """How a table is read: the columns of keys ("" for none) and prompts, and what holds where a row says nothing."""

    key: str = ""
    prompt: str = PROMPT
    seed: int = 0
    samples: int = 1


class CellError(Exception):
    """A row that cannot be used: the reason of the ledger, and why."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


class Pictures(Protocol):
    """Where rows find their start pictures (`pipeline.sources.start_pictures`)."""

    @property
    def known(self) -> Mapping[str, str]:
        """The versions of pictures by key: of all, or of those that were found so far."""

    def find(self, name: str) -> tuple[str, str]:
        """Return key and version of the picture that a row names; CellError where there is none."""


def wanted_columns(there: Types | None, reading: Reading, table: str) -> Columns:
    """Return the columns to read; UsageError for a table without prompts or keys, or with columns of other types.

    there: its columns; None where each row names its own.
    """
    if there is None:
        return [*COLUMNS, *{reading.prompt, reading.key} - {*COLUMNS, ""}]
    for name, remedy in ((reading.prompt, "name it by --prompt-column"), (reading.key, "correct --key")):
        if name and name not in there:
            raise UsageError(f"{table} has no column {name!r}: it has {', '.join(there) or 'none'}; {remedy}")
    for name in (reading.prompt, *TEXTS):
        kind = there.get(name)
        if kind is not None and not _is_text(kind):
            raise UsageError(f"the column {name!r} of {table} holds {kind}: it must hold text")
    return [name for name in there if name in COLUMNS or name in (reading.prompt, reading.key)]


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    known = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_binary)
    return any(is_kind(kind) for is_kind in (*known, pa.types.is_large_binary, pa.types.is_null))


def listed(
    lines: Iterable[Line], reading: Reading, *, images: Pictures | None, local_destination: bool
) -> Iterator[pa.RecordBatch]:
    """Return batches of LISTED for a table's rows, in their order; rows that repeat others are marked.

    images: the start pictures that rows may name. All rows go through local disk, so that memory
    holds one batch. Raises UsageError where two rows ask for different pictures under one key.
    """
    found, seen = Rows(_NUMBERED), Spill(_SEEN)
    every = (row for number, line in enumerate(lines, 1) for row in rows_of(number, line, reading, images))
    for rows in _in_batches(every):
        table = _checked(_as_table(rows), local_destination=local_destination)
        keys, places = hash64(table["key"]), np.arange(found.num_rows, found.num_rows + len(table))
        columns = (keys, hash64(table["version"]), places)
        seen.add(pa.table([pa.array(column) for column in columns], schema=_SEEN), keys)
        found.add(table)
    repeated = _repeated(seen, found)
    for start in range(0, found.num_rows, BATCH_ROWS):
        table = found.slice(start, BATCH_ROWS)
        here = repeated[(repeated >= start) & (repeated < start + len(table))] - start
        if len(here):
            table = _skipped(table, here)
        yield from table.select(LISTED.names).combine_chunks().to_batches()


def asked_of(values: Values, reading: Reading) -> tuple[dict[str, Any], int, int]:
    """Return what a row asks for, without its seed; its seed; and its number of samples. Raises CellError."""
    asked: dict[str, Any] = {PROMPT: _prompt(values.get(reading.prompt))}
    for name in TEXTS:
        if (text := values.get(name)) not in (None, ""):
            asked[name] = _text(name, text)
    for name in WHOLE:
        if (number := _whole(name, values.get(name))) is not None:
            asked[name] = number
    for name in NUMBERS:
        if (share := _number(name, values.get(name))) is not None:
            asked[name] = share
    seed, samples = _whole(SEED, values.get(SEED)), _whole(SAMPLES, values.get(SAMPLES))
    samples = reading.samples if samples is None else samples
    if not 1 <= samples <= MAX_SAMPLES:
        raise CellError(BAD_VALUE, f"samples is {samples}: expected 1 to {MAX_SAMPLES}")
    seed = reading.seed if seed is None else seed
    if not 0 <= seed <= LARGEST_SEED - samples:
        raise CellError(BAD_VALUE, f"seed is {seed}: expected 0 to 2**63 - 1")
    return asked, seed, samples


def _prompt(value: Any) -> str:
    if value is None or _is_nan(value):
        raise CellError(BAD_PROMPT, "has no prompt")
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if not isinstance(value, str):
        raise CellError(BAD_PROMPT, f"has the prompt {value!r:.50}, which is no text")
    _check_utf8("prompt", value, BAD_PROMPT)
    if not value.strip():
        raise CellError(BAD_PROMPT, "has an empty prompt")
    return value


def _text(name: str, value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if not isinstance(value, str):
        raise CellError(BAD_VALUE, f"has {name} = {value!r:.50}, which is no text")
    _check_utf8(name, value, BAD_VALUE)
    return value


def _check_utf8(name: str, value: str, reason: str) -> None:
    if value.isascii():
        return
    try:
        value.encode()
    except UnicodeEncodeError as error:
        after = f", after {value[: error.start][-20:]!r}" if error.start else ""
        raise CellError(
            reason, f"has a {name} that is not UTF-8 at character {error.start + 1}{after}"
        ) from None


def _whole(name: str, value: Any) -> int | None:
    """Return a whole number; None where the cell is empty."""
    number = _number(name, value)
    if number is None:
        return None
    if number != int(number):
        raise CellError(BAD_VALUE, f"has {name} = {value!r:.50}: expected a whole number")
    try:
        # A float holds no large seed exactly.
        return int(value)
    except ValueError:
        return int(number)


def _number(name: str, value: Any) -> float | None:
    """Return a finite number; None where the cell is empty."""
    if value is None or _is_nan(value):
        return None
    if isinstance(value, str):
        value = value.strip()
        if not value:
            return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isfinite(number):
        return number
    raise CellError(BAD_VALUE, f"has {name} = {value!r:.50}: expected a number")


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def rows_of(number: int, line: Line, reading: Reading, images: Pictures | None) -> Iterator[tuple]:
    """Yield the columns of _NUMBERED for every sample of a row.

    number: of the row in its table, from 1. images: the start pictures that it may name.
    """
    key = f"row-{number}"
    try:
        if isinstance(line, Broken):
            raise CellError(BAD_VALUE, line.why)
        if reading.key:
            key = _key(line.get(reading.key), reading.key)
        asked, seed, samples = asked_of(line, reading)
        image = _start_picture(asked, images)
    except CellError as error:
        message = f"row {number} {error}: correct the table"
        yield key, 0, _digest(repr(line)), "", None, "", FAILED, error.reason, message, number
        return
    base = _ENCODE(asked)
    if not reading.key:
        key = f"{_slug(asked[PROMPT])}-{_digest(f'{base} {seed}')}"
    size = len(asked[PROMPT].encode())
    for sample in range(samples):
        conditions = f'{base[:-1]}, "seed": {seed + sample}}}'
        version = _digest(f"{conditions} {image[1]}" if image else conditions)
        own = f"{key}-{sample + 1}" if sample else key
        yield own, size, version, key if sample else "", image, conditions, "", "", "", number


def _key(value: Any, column: str) -> str:
    """Return a row's key as text. Raises CellError."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or isinstance(value, bool | float | list | dict) or not str(value).strip():
        raise CellError(BAD_VALUE, f"has no key in the column {column!r}")
    _check_utf8(f"key in {column!r}", str(value), BAD_VALUE)
    return str(value)


def _start_picture(asked: dict[str, Any], images: Pictures | None) -> tuple[str, str] | None:
    """Return key and version of the row's start picture, None where it has none. Raises CellError."""
    name = asked.get(IMAGE)
    if name is None:
        return None
    if images is None:
        raise CellError(BAD_VALUE, f"has the start picture {name!r}, and nothing says where it is")
    return images.find(name)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _slug(prompt: str) -> str:
    return _NO_WORDS.sub("-", prompt[: 2 * SLUG].lower()).strip("-")[:SLUG].strip("-") or "prompt"


def _in_batches(rows: Iterator[tuple]) -> Iterator[list[tuple]]:
    batch: list[tuple] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _as_table(rows: list[tuple]) -> pa.Table:
    key, size, version, item, image, conditions, status, reason, message, line = zip(*rows, strict=True)
    inputs = [[{"role": IMAGE, "key": i[0], "version": i[1]}] if i else [] for i in image]
    columns = [key, size, version, item, inputs, conditions, status, reason, message, line]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, _NUMBERED, strict=True)]
    return pa.table(arrays, schema=_NUMBERED)


def _checked(table: pa.Table, *, local_destination: bool) -> pa.Table:
    """Refuse the rows whose key no output can have; those that are refused already keep their reason."""
    complaint = complaint_about(
        table["key"].combine_chunks(), local_destination=local_destination, remedy="change it in the table"
    )
    wrong = pc.and_(pc.not_equal(complaint, ""), pc.equal(table["status"], ""))
    if not pc.any(wrong).as_py():
        return table
    new = {"status": FAILED, "reason": "unsafe_key", "message": complaint}
    for name, value in new.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, _NUMBERED.field(name), pc.if_else(wrong, value, table[name]))
    return table


def _repeated(seen: Spill, found: Rows) -> np.ndarray:
    """Return the places of rows that ask for the same as an earlier row of the same key: sorted int64.

    Raises UsageError for two rows of one key that differ.
    """
    repeated = [np.zeros(0, np.int64)]
    buckets = buckets_for(seen.num_rows)
    for index in range(buckets):
        rows = seen.read(index, buckets)
        key, version, place = (rows[name].to_numpy() for name in _SEEN.names)
        order = np.lexsort((place, key))
        key, version, place = key[order], version[order], place[order]
        again = np.flatnonzero(key[1:] == key[:-1]) + 1
        differ = again[version[again] != version[again - 1]]
        if len(differ):
            raise _ambiguous(found, place[differ[0] - 1], place[differ[0]])
        repeated.append(place[again])
    return np.sort(np.concatenate(repeated))


def _ambiguous(found: Rows, first: int, second: int) -> UsageError:
    rows = [found.slice(int(place), 1).to_pylist()[0] for place in (first, second)]
    lines = " and ".join(f"{row['line']:,}" for row in rows)
    return UsageError(
        f"the rows {lines} of the table have the key {rows[0]['key']!r} and differ: each output needs its own key; "
        "change one, or leave --key out"
    )


def _skipped(table: pa.Table, places: np.ndarray) -> pa.Table:
    """Mark the rows at `places` as repetitions, each under a key that no other row has."""
    mask = np.zeros(len(table), bool)
    mask[places] = True
    key, line = table["key"].combine_chunks(), table["line"].combine_chunks().cast(pa.string())
    own = pc.binary_join_element_wise(key, line, "~row-")
    new = {"key": own, "status": SKIPPED, "reason": DUPLICATE, "message": ""}
    for name, value in new.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, _NUMBERED.field(name), pc.if_else(pa.array(mask), value, table[name]))
    return table
