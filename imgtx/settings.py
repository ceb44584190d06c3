"""Read specs: TOML and NAME=VALUE settings, with names and types checked against a dataclass."""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

from imgtx.errors import UsageError

Values = dict[str, Any]

TYPE_NAMES = {
    int: "a whole number",
    float: "a number",
    str: "text",
    dict: "a table",
    bool: "true or false",
    list: "a list",
}


def read_toml(path: Path) -> Values:
    """Return the tables of a TOML file; UsageError if it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"no spec at {path}: give a TOML file; jobs/specs/ holds examples") from error
    except OSError as error:
        raise UsageError(f"the spec {path} cannot be read ({error.strerror}): give a TOML file") from error
    except ValueError as error:
        raise UsageError(f"the spec {path} is not valid TOML ({error}): correct that line") from error


def to_toml(values: Values) -> str:
    """Return TOML that reads as the same values. None and empty tables are left out, because TOML has no null."""
    # Imported late: `python -m imgtx.training` runs on machines without it.
    import tomli_w

    return tomli_w.dumps(_without_nulls(values))


def _without_nulls(values: Values) -> Values:
    filled = {name: _without_nulls(v) if isinstance(v, dict) else v for name, v in values.items()}
    return {name: value for name, value in filled.items() if value is not None and value != {}}


def parse_settings(settings: Sequence[str]) -> Values:
    """Parse `("a=1", "b.c=two")` to {"a": 1, "b": {"c": "two"}}; values are TOML, bare words are strings."""
    values: Values = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        names = [part.strip() for part in name.split(".")]
        if not equals or not all(names):
            raise UsageError(f"--set {setting}: give NAME=VALUE, for example --set limit=10")
        table: Values = {names[-1]: _parse_value(text.strip())}
        for parent in reversed(names[:-1]):
            table = {parent: table}
        values = merge(values, table)
    return values


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def merge(values: Values, changes: Values) -> Values:
    """Return `values` with `changes` applied table by table: fields that are not named keep their values."""
    merged = dict(values)
    for name, change in changes.items():
        old = merged.get(name)
        merged[name] = merge(old, change) if isinstance(old, dict) and isinstance(change, dict) else change
    return merged


def check_fields(values: Values, cls: type, where: str, *, without: Sequence[str] = ()) -> None:
    """Raise UsageError for a name that is not a field of the dataclass `cls`, or a value of another type.

    `where` starts the message; `without` names fields that cannot be set here.
    """
    check_values(values, {f.name: f.type for f in fields(cls) if f.name not in without}, where)


def check_values(values: Values, kinds: Mapping[str, Any], where: str) -> None:
    """Raise UsageError for a name that is not in `kinds`, or a value of another type than it gives there."""
    for name, value in values.items():
        if name not in kinds:
            near = difflib.get_close_matches(name, kinds, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(kinds)}"
            raise UsageError(f"{where}: unknown field {name!r}; {hint}")
        _check_type(name, value, kinds[name], where)


def _check_type(name: str, value: Any, kind: Any, where: str) -> None:
    union = get_args(kind) if get_origin(kind) is UnionType else (kind,)
    allowed = [get_origin(k) or k for k in union if k is not type(None)]
    if (
        type(value) in allowed
        or (float in allowed and type(value) is int)
        or not TYPE_NAMES.keys() >= set(allowed)
    ):
        # The dataclass itself checks types that are not in TYPE_NAMES.
        return
    wanted = " or ".join(TYPE_NAMES[k] for k in allowed)
    given = TYPE_NAMES.get(type(value), "of another kind")
    raise UsageError(f"{where}: {name} = {value!r} is {given}: must be {wanted}")
