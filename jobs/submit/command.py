"""Check the command behind `imgtx submit ... --` here, as the cluster will read it.

    check_command(("upscale", "s3://in/", "s3://out/"), main)

A mistake ends on this machine, in one line, before anything is sent. A job's command and settings are public: the head
shows them to everyone who can open its dashboard, so they must not contain secrets.
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
from imgtx.models.adapters.pipeline_folder import split_weight
from imgtx.models.choice import AUTO
from imgtx.models.references import files_of, path_in, with_files
from imgtx.models.weight_file import packaged_models
from imgtx.settings import parse_settings
from imgtx.training.spec import load_train_spec
from jobs.nightly.spec import load_nightly_spec
from jobs.run.inline import PARAMETERS, places
from jobs.run.spec import read_run_spec
from pipeline.models.references import is_fetched
from pipeline.sources import open_source
from pipeline.spec import RunSpec
from pipeline.storage.store import open_store
from pipeline.tasks import commands, get_task, options_of

# The commands that a cluster can run.
RUNS = (*commands(), "plan", "retry", "verify", "train", "nightly")
# Folders in the package: for the TOML files that a command names, and for other single files that it reads.
SPEC_FOLDER, INPUT_FOLDER = "specs", "inputs"
MODELS = ("--model", "init_from")
# A user and a password, or a signed query.
CREDENTIAL = re.compile(r"://[^/?#\s]*@|https?://\S*\?")
SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "RAY_AUTH_TOKEN")

# (the name of an option, argument or field; its path or URI)
Places = Iterator[tuple[str, str]]


@dataclass(frozen=True)
class JobCommand:
    """A command as the cluster gets it.

    `arguments` name files as they are called in the package, `files` maps these names to files here, `digest` covers
    both, and `destination` is where `imgtx watch` can follow it.
    """

    arguments: tuple[str, ...]
    files: dict[str, Path]
    digest: str
    destination: str | None

    @property
    def name(self) -> str:
        return self.arguments[0]

    @property
    def entrypoint(self) -> str:
        return shlex.join(("python", "-m", "jobs.cli", *self.arguments))

    def submission_id(self, day: date) -> str:
        """Return the name of the job: the same command on the same day is the same job."""
        return f"imgtx-{self.name}-{day:%Y%m%d}-{self.digest}"


def check_command(arguments: Sequence[str], group: click.Group, *, shared: bool = False) -> JobCommand:
    """Parse `arguments` with the commands of `group`; UsageError for a command that cannot run on a cluster.

    shared: whether absolute local paths are the same on all its machines. Mistakes in the command's own options raise
    click.UsageError, as they would there.
    """
    name, *rest = arguments
    if name not in RUNS:
        raise UsageError(
            f"submit -- {name}: must be one of {', '.join(RUNS)}; the other commands need no cluster"
        )
    # A command remembers the help options of the first context it gets: they must be those of the group.
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
    if command.name in commands():
        values["source"], values["destination"] = places(str(command.name), values)
    files = {
        f"{SPEC_FOLDER}/{path.name}": path for name in ("spec", "spec_file") if (path := values.get(name))
    }
    if command.name in commands():
        # the run copies them to its destination, for its workers and for `imgtx retry`
        given = _input_files(values, str(command.name))
        files |= {f"{INPUT_FOLDER}/{number}/{path.name}": path for number, path in enumerate(given)}
    shipped = {str(path) for path in files.values()}
    for where, place in _places(str(command.name), values):
        if str(Path(place)) not in shipped:
            _check_place(where, place, shared=shared)
    renamed = tuple(arguments)
    for inside, path in files.items():
        renamed = tuple(_renamed(argument, str(path), inside) for argument in renamed)
    return JobCommand(renamed, files, _digest(name, values, files), values.get("destination"))


def _places(name: str, values: Mapping[str, Any]) -> Places:
    """Yield where the command reads and writes, beside its spec file."""
    if name in ("retry", "verify"):
        yield "DESTINATION", values["destination"]
    elif name == "train":
        yield from _places_of_training(values)
    elif name == "nightly":
        yield from _places_of_nightly(values)
    else:
        yield from _places_of_run(values, name)


def _run_spec(values: Mapping[str, Any], command: str) -> RunSpec:
    left_out = ("dry_run", "force_unlock", "yes", "as_json", *PARAMETERS)
    options = {option: value for option, value in values.items() if option not in left_out}
    return read_run_spec(values["source"], values["destination"], command, options)


def _input_files(values: Mapping[str, Any], command: str) -> Iterator[Path]:
    """Yield the single local files that a run reads, such as a table of prompts, a style picture or a LoRA."""
    spec = _run_spec(values, command)
    places = [option.of(spec) for option in options_of(command) if option.file]
    if spec.source and open_source(spec.source, get_task(spec.task).sources).kind.single_file:
        places.append(spec.source)
    places.extend(files_of(spec.model))
    places.append(spec.keys)
    yield from (Path(place) for place in places if place and open_store(place).is_local)


def _places_of_run(values: Mapping[str, Any], command: str) -> Places:
    spec = _run_spec(values, command)
    if spec.address:
        raise UsageError(f"--address {spec.address} behind --: the job joins its own cluster; leave it out")
    if spec.source:
        yield get_task(spec.task).source_name, spec.source
    yield from (("DESTINATION", spec.destination), ("--model", spec.model))
    if spec.keys:
        yield "--keys", spec.keys
    for option in options_of(command):
        if option.place and (place := option.of(spec)):
            yield option.flag.strip(), place


def _places_of_training(values: Mapping[str, Any]) -> Places:
    if not values["workers"]:
        raise UsageError(
            "train without --workers keeps its weights on the machine that trains, and a cluster's machines go: give "
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
    if where in MODELS:
        if place in (*packaged_models(), AUTO) or is_fetched(place):
            return
        place = path_in(place)
    if not open_store(place).is_local:
        return
    if not shared:
        remedy = "imgtx models import" if "model" in where.lower() else "s3:// or another URI"
        raise UsageError(
            f"{where} {place} is a path of this machine, which the cluster does not see: give {remedy}, or --shared "
            "if every machine of the cluster has it at the same path"
        )
    if not os.path.isabs(place):
        raise UsageError(
            f"{where} {place} with --shared: give its absolute path, which must be the same on every machine"
        )


def _check_secrets(arguments: Iterable[str]) -> None:
    secrets = [value for name in SECRETS if (value := os.environ.get(name))]
    for argument in arguments:
        if any(secret in argument for secret in secrets) or CREDENTIAL.search(argument):
            hidden = re.sub(r"://.*", "://...", argument) if "://" in argument else "an argument"
            raise UsageError(
                f"{hidden} contains a credential, or a query that may be one, and a job's command is public: give the "
                "nodes of the cluster credentials of their own (docs/guides/cluster.md)"
            )


def _renamed(argument: str, path: str, inside: str) -> str:
    """Return an argument that names `path` with the name that the file has in the package.

    It is the path, a LoRA with its weight, or a model reference with it, and may follow `--option=`.
    """
    option, equals, value = argument.partition("=")
    start, value = (f"{option}=", value) if equals and option.startswith("--") else ("", argument)
    file, weight = split_weight(value)
    if value and str(Path(value)) == path:
        return start + inside
    if weight and str(Path(file)) == path:
        return start + inside + weight
    return start + with_files(value, lambda given: inside if str(Path(given)) == path else given)


def _digest(name: str, values: Mapping[str, Any], files: Mapping[str, Path]) -> str:
    """Return a digest of the command's values and the contents of its files, not of the order of its options."""
    asked = {option: value for option, value in values.items() if option not in ("spec", "spec_file")}
    asked |= {"command": name, "files": [_content(path) for path in files.values()]}
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _content(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error}): give a file that can be read") from error
