"""The command behind `imgtx submit ... --`: read here as it will be there, and refused for what a cluster cannot see.

    check_command(("upscale", "s3://in/", "s3://out/"), main)

A mistake in it ends on this machine, in one line, before anything is sent. What it becomes is public: the head shows
a job's command and settings to whoever may look at its dashboard, so nothing secret may be in them.
"""

import hashlib
import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import click

from imgtx.errors import UsageError
from imgtx.models.weight_file import packaged_models
from imgtx.settings import parse_settings
from imgtx.training.spec import load_train_spec
from jobs.nightly.spec import load_nightly_spec
from jobs.run.spec import read_run_spec
from pipeline.models.references import is_fetched
from pipeline.storage.store import open_store
from pipeline.tasks import commands, options_of

# The commands that a cluster can run for somebody who is elsewhere.
RUNS = (*commands(), "plan", "retry", "verify", "train", "nightly")
SPEC_FOLDER = "specs"  # in the package, for the TOML files that a command names
MODELS = ("--model", "init_from")
CREDENTIAL = re.compile(r"://[^/?#\s]*@|https?://\S*\?")  # a user and a password, or a signed query
SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "RAY_AUTH_TOKEN")

Places = Iterator[tuple[str, str]]  # (what a person calls it, path or URI)


@dataclass(frozen=True)
class JobCommand:
    """`arguments` as the cluster is given them; `files`: names in the package -> files here; `digest` of both."""

    arguments: tuple[str, ...]
    files: dict[str, Path]
    digest: str
    destination: str | None  # whose ledger tells how it goes

    @property
    def name(self) -> str:
        return self.arguments[0]

    @property
    def entrypoint(self) -> str:
        return shlex.join(("python", "-m", "jobs.cli", *self.arguments))

    def submission_id(self, day: date) -> str:
        """The same command on the same day is the same job."""
        return f"imgtx-{self.name}-{day:%Y%m%d}-{self.digest}"


def check_command(arguments: Sequence[str], group: click.Group, *, shared: bool = False) -> JobCommand:
    """Read `arguments` with the commands of `group`; UsageError for what cannot run on a cluster.

    shared: whether absolute local paths lie at the same place on all its machines. What a command's own reader says
    of a mistake (click.UsageError) is said here too.
    """
    name, *rest = arguments
    if name not in RUNS:
        raise UsageError(
            f"submit -- {name}: must be one of {', '.join(RUNS)}; the other commands need no cluster"
        )
    # a command remembers the help options of the first context that it meets: they must be those of the group
    settings = group.context_settings
    command = group.commands[name]
    if isinstance(command, click.Group):
        run, *rest = rest or [""]
        if run not in command.commands:
            raise UsageError(f"submit -- {name} {run}: must be one of {', '.join(command.commands)}")
        command = command.commands[run]
    with command.make_context(f"imgtx {command.name}", list(rest), **settings) as context:
        values = dict(context.params)
    _check_secrets(arguments)
    for where, place in _places(str(command.name), values):
        _check_place(where, place, shared=shared)
    files, renamed = {}, tuple(arguments)
    for option in ("spec", "spec_file"):
        if path := values.get(option):
            files[f"{SPEC_FOLDER}/{path.name}"] = path
            renamed = tuple(_renamed(argument, str(path), path.name) for argument in renamed)
    return JobCommand(renamed, files, _digest(name, values, files), values.get("destination"))


def _places(name: str, values: Mapping[str, Any]) -> Places:
    """Where the command reads and writes, beside its spec file."""
    if name in ("retry", "verify"):
        yield "DESTINATION", values["destination"]
    elif name == "train":
        yield from _places_of_training(values)
    elif name == "nightly":
        yield from _places_of_nightly(values)
    else:
        yield from _places_of_run(values, name)


def _places_of_run(values: Mapping[str, Any], command: str) -> Places:
    left_out = ("dry_run", "force_unlock", "as_json", "source", "destination")
    options = {option: value for option, value in values.items() if option not in left_out}
    spec = read_run_spec(values["source"], values["destination"], command, options)
    if spec.address:
        raise UsageError(f"--address {spec.address} behind --: the job joins its own cluster; leave it out")
    yield from (("SOURCE", spec.source), ("DESTINATION", spec.destination), ("--model", spec.model))
    for option in options_of(command):
        if option.place and (place := option.of(spec)):
            yield option.flag.strip(), place


def _places_of_training(values: Mapping[str, Any]) -> Places:
    if not values["workers"]:
        raise UsageError(
            "train without --workers keeps its weights on the machine that trains, and a cluster's goes: give "
            "--workers and --storage"
        )
    spec = load_train_spec(values["spec"], parse_settings(values["settings"]), folders=False)
    yield from (("--storage", values["storage"] or ""), ("train", spec.train), ("valid", spec.valid))
    if spec.init_from:
        yield "init_from", spec.init_from


def _places_of_nightly(values: Mapping[str, Any]) -> Places:
    spec = load_nightly_spec(values["spec"], parse_settings(values["settings"]))
    yield from (("archive", spec.archive), ("state", spec.state), ("valid", spec.valid))
    yield "model", spec.store_and_name[0]
    yield from (("datasets", uri) for uri in spec.datasets)
    yield from ((f"upscale.{n}", spec.upscale[n]) for n in ("source", "destination") if n in spec.upscale)


def _check_place(where: str, place: str, *, shared: bool) -> None:
    if where in MODELS and (place in packaged_models() or is_fetched(place)):
        return
    if not open_store(place).is_local:
        return
    if not shared:
        remedy = "imgtx models import" if "model" in where.lower() else "s3:// or another URI"
        raise UsageError(
            f"{where} {place} is a path of this machine, which the cluster does not see: give {remedy}, or --shared "
            "where every machine of the cluster has it at the same place"
        )
    if not os.path.isabs(place):
        raise UsageError(f"{where} {place} with --shared: give its absolute path, the same on every machine")


def _check_secrets(arguments: Iterable[str]) -> None:
    secrets = [value for name in SECRETS if (value := os.environ.get(name))]
    for argument in arguments:
        if any(secret in argument for secret in secrets) or CREDENTIAL.search(argument):
            hidden = re.sub(r"://.*", "://...", argument) if "://" in argument else "an argument"
            raise UsageError(
                f"{hidden} holds a credential or a query, which often is one, and a job's command is public: the "
                "cluster's nodes have credentials of their own (docs/guides/cluster.md)"
            )


def _renamed(argument: str, path: str, name: str) -> str:
    for before in ("", "--spec="):
        if argument == before + path:
            return f"{before}{SPEC_FOLDER}/{name}"
    return argument


def _digest(name: str, values: Mapping[str, Any], files: Mapping[str, Path]) -> str:
    """Of what is asked: the order of options does not count, nor where a spec file lies, but what it says does."""
    said = {option: value for option, value in values.items() if option not in ("spec", "spec_file")}
    said |= {"command": name, "files": [_read(path) for path in files.values()]}
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"the spec {path} cannot be read ({error}): give a TOML file") from error
