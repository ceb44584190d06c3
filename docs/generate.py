"""Write what the documentation says of the code: the pages of docs/reference, and the tables of docs/files.md.

    python -m docs.generate            # what `make docs` runs
    python -m docs.generate --check    # exit code 1 where a page is not current; what `make check` runs

Names, types, defaults and options are read from the code. So is the text: the help of a command or option, the comment
above a field, the tables of columns, reasons and notes.
"""

import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import click
import pyarrow as pa

from imgtx import codecs
from imgtx.codecs import FORMATS, NOTES
from imgtx.codecs.metadata.density import density_of
from imgtx.errors import EXIT_CODES
from imgtx.models import generation
from imgtx.training.spec import TrainSpec
from imgtx.training.style.spec import StyleSpec
from imgtx.training.style.weights import StyleWeights
from imgtx.training.text_to_image.spec import TextToImageSpec
from jobs.cli import main
from jobs.nightly.gate import Gate
from jobs.nightly.schedule import Schedule
from jobs.nightly.spec import NightlySpec
from pipeline.cluster.metrics import METRICS, STATUS_METRICS, Metric
from pipeline.spec import RunSpec
from pipeline.tables import schemas
from pipeline.tasks import TASKS, super_resolution

FOLDER = Path(__file__).parent / "reference"
# A page that is written by hand, with tables that are not.
FILES = Path(__file__).parent / "files.md"
TABLE = re.compile(r"(<!-- generated: (\w+) -->\n)(?:.*\n)*?(<!-- end -->)")
HEADER = "<!-- Written by `make docs` from the code. Do not edit this page: edit the code and run it again. -->\n\n"
TYPES = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "true or false",
    dict: "table",
    list: "list",
}


def pages() -> dict[str, str]:
    """Return every generated page by its file name under docs/reference."""
    made = {
        "cli.md": commands_page(),
        "run-spec.md": run_spec_page(),
        "training-spec.md": training_spec_page(),
        "nightly-spec.md": nightly_spec_page(),
        "ledger.md": ledger_page(),
        "metrics.md": metrics_page(),
        "exit-codes.md": exit_codes_page(),
    }
    return {name: HEADER + text.rstrip() + "\n" for name, text in made.items()}


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


# Commands


def walk(command: click.Command, name: str = "imgtx") -> Iterator[tuple[str, click.Command]]:
    """Yield every command that runs something with its full name, in the order of `--help`."""
    if not isinstance(command, click.Group):
        yield name, command
        return
    context = click.Context(command, info_name=name)
    for child in command.list_commands(context):
        found = command.get_command(context, child)
        assert found is not None
        if not found.hidden:
            yield from walk(found, f"{name} {child}")


def first_sentence(command: click.Command) -> str:
    return " ".join((command.help or "").split("\n\n")[0].split())


def commands_page() -> str:
    found = list(walk(main))
    text = "# Commands\n\n`imgtx COMMAND --help` prints the same. How a command ends: [exit codes](exit-codes.md).\n\n"
    text += table(
        ("command", "what it does"),
        [(f"[`{name}`](#{name.replace(' ', '-')})", first_sentence(command)) for name, command in found],
    )
    for name, command in found:
        text += f"\n## {name}\n\n"
        context = click.Context(command, info_name=name)
        text += f"```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```\n\n"
        text += help_text(command.help or "")
        records = [p.get_help_record(context) for p in command.params if isinstance(p, click.Option)]
        options = [(f"`{record[0]}`", clean(record[1])) for record in records if record]
        text += table(("option", "meaning"), options) if options else ""
    return text


def help_text(text: str) -> str:
    """Return a docstring of click as Markdown: paragraphs, and examples after a `\\b` as a code block."""
    made = ""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b"):
            made += f"```\n{paragraph.removeprefix(chr(8)).strip()}\n```\n\n"
        else:
            made += " ".join(paragraph.split()) + "\n\n"
    return made


def clean(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().replace("<", "\\<")


# Specs


def comments_above(cls: type) -> dict[str, str]:
    """Return the comment above each field of a dataclass, on one line; read from its source."""
    found, lines = {}, list[str]()
    for line in inspect.getsource(cls).splitlines():
        line = line.strip()
        if line.startswith("# "):
            lines.append(line.removeprefix("# "))
            continue
        if match := re.match(r"(\w+): ", line):
            found[match[1]] = " ".join(lines)
        lines = []
    return found


def described(cls: type, texts: dict[str, str] | None = None, *, without: tuple[str, ...] = ()) -> str:
    """Return a dataclass's fields as a table; `texts` say what fields without a comment mean."""
    rows = []
    meaning = (texts or {}) | {name: text for name, text in comments_above(cls).items() if text}
    for field in fields(cls):
        if field.name in without:
            continue
        if field.default is not MISSING:
            default = value_as_toml(field.default)
        elif field.default_factory is not MISSING:
            made = field.default_factory()
            default = "" if made in ({}, []) else value_as_toml(made)
        else:
            default = "required"
        rows.append((f"`{field.name}`", kind_of(field.type), default, meaning.get(field.name, "")))
    return table(("field", "type", "default", "meaning"), rows)


def kind_of(kind: Any) -> str:
    union = get_args(kind) if get_origin(kind) is UnionType else (kind,)
    return " or ".join(TYPES.get(get_origin(k) or k, "table") for k in union if k is not type(None))


def value_as_toml(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


def option_texts(command: click.Command) -> dict[str, str]:
    """Return the help of a command's options, without the default, by the field that they set."""
    texts = {}
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.name and parameter.help:
            texts[parameter.name] = f"{clean(without_default(parameter.help))} Option `{parameter.opts[0]}`."
    return texts


def without_default(text: str) -> str:
    """Help without its "[default: ...]"."""
    return re.sub(r"\s*\[default: [^]]*\]", "", text)


def run_spec_page() -> str:
    texts = option_texts(main.commands["upscale"]) | option_texts(main.commands["restore"])
    return f"""# Run spec

Every setting of a command that runs images: `imgtx upscale`, `imgtx restore`, `imgtx plan`. A setting is given as an
option, as `--set NAME=VALUE`, or in a TOML file that `--spec` names; settings win over options, options over the file,
the file over the defaults. [jobs/specs/upscale.toml](../../jobs/specs/upscale.toml) is such a file with every default.

{described(RunSpec, texts, without=("settings", "source_glob"))}
{task_settings()}The spec of each run is stored at the destination, in `runs/<run id>/spec.json`, with the model
resolved to an exact version. `imgtx retry` reads it there.
"""


def task_settings() -> str:
    """Return a section for each task with settings of its own."""
    text = ""
    for task in TASKS.values():
        rows = [
            (f"`{o.name}`", TYPES[o.type], value_as_toml(o.default), clean(without_default(o.help)))
            for o in task.options
        ]
        if rows:
            columns = ("field", "type", "default", "meaning")
            text += f"## {task.name.capitalize()}: `imgtx {task.command}`\n\n{table(columns, rows)}\n"
    return text


def training_spec_page() -> str:
    return f"""# Training spec

What `imgtx train SPEC.toml` reads. The guide: [training](../guides/training.md). Examples:
[jobs/specs](../../jobs/specs). `--set NAME=VALUE` overrides a field, `--set model.dim=64` one of a table.

{described(TrainSpec)}
## Images from text: `objective = "text-to-image"`

{described(TextToImageSpec)}
## Style transfer: `objective = "style"`

{described(StyleSpec)}
### [loss_weights]

{described(StyleWeights)}"""


def nightly_spec_page() -> str:
    return f"""# Nightly spec

What `imgtx nightly SPEC.toml` and `imgtx schedule SPEC.toml` read. The guides: [nightly](../guides/nightly.md),
[schedules](../guides/schedules.md). Example: [jobs/specs/nightly.toml](../../jobs/specs/nightly.toml).

{described(NightlySpec)}
## [gate]

{described(Gate)}
## [schedule]

{described(Schedule)}"""


# Ledger and exit codes


def measures() -> list[tuple[str, str, str]]:
    """Return a row for each number that tasks measure."""
    found: dict[str, tuple[str, list[str]]] = {}
    for task in TASKS.values():
        for name, meaning in task.measures.items():
            found.setdefault(name, (meaning, []))[1].append(task.name)
    return [(f"`{name}`", ", ".join(tasks), meaning) for name, (meaning, tasks) in found.items()]


def ledger_page() -> str:
    columns = [(f"`{c.name}`", arrow_type(c.type), schemas.COLUMNS.get(c.name, "")) for c in schemas.LEDGER]
    retried = schemas.RETRIED_BY_A_PLAIN_RUN
    reasons = [
        (f"`{name}`", text, "yes" if name in retried else "") for name, text in schemas.REASONS.items()
    ]
    notes = NOTES | generation.NOTES | super_resolution.NOTES
    return f"""# Ledger

The ledger at `ledger/*.parquet` under a destination says what became of every image. The newest row of a key, the one
with the highest `sequence`, is its current state; older rows are removed as the files are merged. Read it with anything
that reads Parquet, or with `imgtx status`. What a table of prompts says of each key is at `ledger/prompts/*.parquet`
([generate](../guides/generate.md)).

## Columns

{table(("column", "type", "meaning"), columns)}
## Measures

{table(("name", "of task", "meaning"), measures())}
## Statuses

{table(("status", "meaning"), [(f"`{name}`", text) for name, text in schemas.STATUSES.items()])}
## Reasons

Why an image was not written. A plain second run tries those marked *retried* again, because the cause may pass.
The others wait for a changed source, other settings, or `imgtx retry`.

{table(("reason", "meaning", "retried"), reasons)}
## Notes

What was converted or dropped on the way from the source to the output, and what of the options was not reached or left
out.

{table(("note", "meaning"), [(f"`{name}`", text) for name, text in notes.items()])}"""


METRIC_HEAD = ("metric", "kind", "tags", "meaning")


def metric_row(metric: Metric) -> tuple[str, ...]:
    name = metric.exported[0].removesuffix("_bucket") if metric in METRICS else metric.name
    return f"`{name}`", metric.kind, ", ".join(f"`{tag}`" for tag in metric.tags), metric.meaning


def metrics_page() -> str:
    return f"""# Metrics

A run exports metrics while it works. Its driver sees every image's row, with its seconds, sizes and reason, and passes
the counts to Ray. Ray exports them to Prometheus with the prefix `ray_`, and the suffix `_total` for counters. It does
so if `ray[default]` is installed (`pip install -e ".[cluster]"` in a checkout, and in the image of
[infra/Dockerfile](../../infra/README.md#dockerfile)), at the port that `ray start --metrics-export-port` opens on each
node, every ten seconds. A local run has no such port.

All of them have the tags `destination` (its URI, without credentials) and `task`.

{table(METRIC_HEAD, map(metric_row, METRICS))}
Requests that storage answered late or not at all are repeated inside the workers and are not counted one by one. An
image that needed them shows longer `decode` or `encode` seconds, and the reason `storage` if repeating did not help.
Ray's own metrics (`ray_data_*`) show how full the queues between the stages are.

## After the run

A cluster's series end with the cluster, and so does any memory of the last success. The destination keeps it:

```
imgtx status s3://bucket/out/ --prometheus
```

{table(METRIC_HEAD, map(metric_row, STATUS_METRICS))}
Run this from a timer on any machine every few minutes, and write its output to where Prometheus reads: the folder of
node_exporter's textfile collector (write another file, then rename it), or a Pushgateway. It lists the runs and reads
the ledger, but no image.

Rules and a dashboard on these metrics: [infra/prometheus](../../infra/prometheus/README.md),
[infra/grafana](../../infra/grafana/README.md).
"""


def arrow_type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list of {arrow_type(kind.value_type)}"
    if pa.types.is_struct(kind):
        return f"struct ({', '.join(kind.field(n).name for n in range(kind.num_fields))})"
    return f"map of {kind.key_type} to {kind.item_type}" if pa.types.is_map(kind) else str(kind)


def exit_codes_page() -> str:
    return f"""# Exit codes

{table(("code", "meaning"), [(f"`{code}`", text) for code, text in EXIT_CODES.items()])}
A submitted command (`imgtx submit`, `imgtx jobs logs --follow`) ends with the code of the job, `imgtx watch` with that
of the run. `imgtx verify` and `imgtx doctor` end with 3 where they find something wrong. Errors are one line on
standard error: what was given, what is allowed, what to do. A bug names a file that holds its traceback.
"""


# Odd files


def files_page(text: str) -> str:
    """Return the text of docs/files.md with its tables made anew; KeyError for one that has no function here."""
    made = {"read": read_formats, "written": written_formats, "notes": file_notes, "reasons": file_reasons}
    return TABLE.sub(lambda match: f"{match[1]}{made[match[2]]()}{match[3]}", text)


def read_formats() -> str:
    """Return a row for each format that is read."""
    rows = []
    for format in FORMATS.values():
        same = FORMATS[format.same].title if format.same else "the same"
        rows.append((format.title, ", ".join(f"`{s}`" for s in format.suffixes), format.reads, same))
    return table(("format", "suffixes", "what is read", "output with `--format same`"), rows)


def written_formats() -> str:
    """Return a row for each format that is written, with what it holds."""
    density = density_of(300, 300, "inch")
    assert density is not None
    rows = []
    for format in FORMATS.values():
        if not (writer := format.writer):
            continue
        holds = [writer.alpha, writer.grey, writer.icc, writer.exif_limit, writer.holds_xmp(b""), writer.iptc]
        marks = ("yes" if held else "" for held in (*holds, writer.holds_density(density)))
        side = f"{writer.side_limit:,}" if writer.side_limit < 2**31 - 1 else ""
        extra = f"`{writer.needs[1]}`" if writer.needs else ""
        rows.append(
            (format.title, f"`{format.name}`", "8, 16" if writer.depth16 else "8", *marks, side, extra)
        )
    head = ("format", "`--format`", "bits", "alpha", "grey", "profile", "EXIF", "XMP", "IPTC", "dpi")
    return table((*head, "longest side", "extra"), rows)


def file_notes() -> str:
    """Return every note of reading and writing a file with its meaning."""
    return table(("note", "what happened"), [(f"`{name}`", text) for name, text in NOTES.items()])


def file_reasons() -> str:
    """Return every reason for which a file itself is refused, read from the source of `imgtx.codecs`."""
    folder = Path(inspect.getfile(codecs)).parent
    sources = "".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))
    # `reason, what = "truncated", ...` where an exception decides it.
    found = set(re.findall(r'(?:ImageError\(|reason, what =)\s*"(\w+)"', sources))
    texts = [(f"`{name}`", text) for name, text in schemas.REASONS.items() if name in found]
    return table(("reason", "why"), texts)


def written() -> dict[Path, str]:
    """Return the text of every file that is made here, whole or in part."""
    return {FOLDER / name: text for name, text in pages().items()} | {FILES: files_page(read(FILES))}


def outdated() -> list[str]:
    """Return the files under docs whose text is not what the code says."""
    folder = FILES.parent
    return [path.relative_to(folder).as_posix() for path, text in written().items() if read(path) != text]


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        if late := outdated():
            sys.exit(f"not current under docs: {', '.join(late)}; run `make docs`")
    else:
        FOLDER.mkdir(exist_ok=True)
        for path, text in written().items():
            path.write_text(text, encoding="utf-8")
