"""From options, a TOML file and NAME=VALUE settings to one RunSpec.

Precedence, weakest first: defaults, the file, options, settings.
"""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from imgtx.settings import check_values, merge, parse_settings, read_toml
from pipeline.spec import RunSpec
from pipeline.tasks import choose_task, options_of

ALIASES = {"jpg": "jpeg", "tif": "tiff"}
# What the command line itself says, so that nothing else may.
ARGUMENTS = ("source", "destination", "task", "settings", "source_glob")
# Lists, for which one text is a list of one.
LISTS = ("include", "exclude")


def read_run_spec(source: str, destination: str, command: str, options: dict[str, Any]) -> RunSpec:
    """Return the spec of a run of `command` as the user gave it.

    options: as click read them, None where one was not given, with `spec_file` and `settings`. Raises UsageError that
    names the field that is wrong and what is allowed.
    """
    options = dict(options)
    path: Path | None = options.pop("spec_file")
    assignments: Sequence[str] = options.pop("settings")
    kinds = fields_of(command)
    in_file = _readable(read_toml(path)) if path else {}
    check_values(in_file, kinds, str(path))
    set_now = _readable(parse_settings(assignments))
    check_values(set_now, kinds, "--set")
    # What may be repeated and is not given is an empty tuple.
    given = {name: value for name, value in options.items() if value not in (None, ())}
    given |= {name: list(given[name]) for name in LISTS if name in given}
    values = merge(merge(in_file, given), set_now)
    if "format" in values:
        values["format"] = ALIASES.get(str(values["format"]).lower(), values["format"])
    task = choose_task(command, {name for name, value in values.items() if value})
    theirs = {option.name: values.pop(option.name, None) for option in options_of(command)}
    mine = {option.name for option in task.options}
    settings = {name: value for name, value in theirs.items() if value is not None and name in mine}
    if "model" not in values:
        values["model"] = task.default_model(settings)
    of_model = {o.name: settings.pop(o.name) for o in task.options if o.of_model and o.name in settings}
    if of_model:
        values["model"] = task.refer(values["model"], of_model)
    values.setdefault("format", task.default_format)
    return RunSpec(source=source, destination=destination, task=task.name, settings=settings, **values)


def fields_of(command: str) -> dict[str, Any]:
    """Return the type of each field that a spec file or `--set` may hold for a command."""
    own = {f.name: f.type for f in fields(RunSpec) if f.name not in ARGUMENTS}
    return own | {option.name: option.type | None for option in options_of(command)}


def _readable(values: dict[str, Any]) -> dict[str, Any]:
    """Accept a count as a number, `max_failed = 20` beside `max_failed = "1%"`, and one glob beside a list of them."""
    for name in ("max_failed", "max_skipped"):
        if type(values.get(name)) is int:
            values[name] = str(values[name])
    for name in LISTS:
        if isinstance(values.get(name), str):
            values[name] = [values[name]]
    return values
