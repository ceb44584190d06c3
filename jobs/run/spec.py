"""From options, a TOML file and NAME=VALUE settings to one RunSpec.

Precedence, weakest first: defaults, the file, options, settings.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imgtx.errors import UsageError
from imgtx.models.weight_file import packaged_models
from imgtx.settings import check_fields, merge, parse_settings, read_toml
from pipeline.spec import RunSpec

# What the command line itself says, so that nothing else may.
ALIASES = {"jpg": "jpeg", "tif": "tiff"}
ARGUMENTS = ("source", "destination", "task")
RESTORATION, INPAINTING = "restoration", "inpainting"  # the same command, without and with masks
MODELS = {RESTORATION: "restore", INPAINTING: "inpaint"}


def read_run_spec(source: str, destination: str, task: str, options: dict[str, Any]) -> RunSpec:
    """The run's spec from what the person typed; UsageError names the field that is wrong and what is legal.

    `options` holds the options as click read them: None where one was not given, `spec_file` and `settings` besides.
    """
    options = dict(options)
    path: Path | None = options.pop("spec_file")
    settings: Sequence[str] = options.pop("settings")
    in_file = _readable(read_toml(path)) if path else {}
    check_fields(in_file, RunSpec, str(path), without=ARGUMENTS)
    set_now = _readable(parse_settings(settings))
    check_fields(set_now, RunSpec, "--set", without=ARGUMENTS)
    given = {name: value for name, value in options.items() if value is not None}
    values = merge(merge(in_file, given), set_now)
    if "format" in values:
        values["format"] = ALIASES.get(str(values["format"]).lower(), values["format"])
    if task == RESTORATION and (values.get("masks") or values.get("mask_color")):
        task = INPAINTING
    if "model" not in values:
        values["model"] = MODELS.get(task) or model_for_scale(values.get("scale", 2))
    return RunSpec(source=source, destination=destination, task=task, **values)


def model_for_scale(scale: int) -> str:
    """The packaged super-resolution model of that scale; UsageError where there is none."""
    name = f"sr-x{scale}"
    known = packaged_models()
    if name not in known:
        scales = ", ".join(sorted(n for m in known if (n := m.removeprefix("sr-x")).isdecimal()))
        raise UsageError(f"--scale {scale}: the packaged models enlarge by {scales}; for others give --model")
    return name


def _readable(values: dict[str, Any]) -> dict[str, Any]:
    """A count of failures may be written as a number: `max_failed = 20` beside `max_failed = "1%"`."""
    if type(values.get("max_failed")) is int:
        values["max_failed"] = str(values["max_failed"])
    return values
