"""Models as `imgtx models` prints them: the packaged ones, the versions of a store, a move of `latest`."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from imgtx.models.weight_file import packaged_models, read_info
from jobs.models.admin import Move
from pipeline.models.store import ModelStore
from pipeline.storage.store import open_store


def model_rows() -> list[dict[str, Any]]:
    """Return one row per packaged model."""
    rows = []
    for name in packaged_models():
        info, digest = read_info(name)
        rows.append(
            {
                "name": name,
                "task": info.task,
                "scale": info.scale,
                "licence": info.licence,
                "digest": digest[:12],
            }
            | {"metrics": info.training.get("metrics", {})}
        )
    return rows


def print_models(rows: list[dict[str, Any]], console: Console) -> None:
    """Print the packaged models as a table."""
    table = Table("model", "task", "scale", "PSNR", "licence", "digest", title="packaged models")
    for row in rows:
        metrics = "  ".join(f"{name} {value}" for name, value in row["metrics"].items())
        table.add_row(row["name"], row["task"], f"x{row['scale']}", metrics, row["licence"], row["digest"])
    console.print(table)


def store_rows(uri: str, endpoint_url: str | None = None) -> list[dict[str, Any]]:
    """Return one row per version, by name, oldest first; `latest` says whether the pointer is there."""
    models = ModelStore(open_store(uri, endpoint_url=endpoint_url))
    versions = models.versions()
    latest = {name: models.latest(name) for name in {version.name for version in versions}}
    rows = []
    for version in versions:
        info, pointer = version.card.get("info", {}), latest[version.name]
        rows.append(
            {
                "name": version.name,
                "version": version.number,
                "latest": pointer is not None and pointer.version == version.number,
                "task": info.get("task", ""),
                "scale": info.get("scale", 0),
                "licence": info.get("licence", "unknown"),
                "digest": version.digest[:12],
                "created": version.card.get("created", ""),
                "from": version.card.get("from", ""),
                "metrics": version.card.get("metrics", {}),
            }
        )
    return rows


def print_store(rows: list[dict[str, Any]], uri: str, console: Console) -> None:
    """Print the versions of a store as a table."""
    if not rows:
        console.print(
            f"no model in {escape(uri)}: imgtx models import MODEL STORE/NAME makes it a store",
            soft_wrap=True,
        )
        return
    columns = ("version", "latest", "task", "scale", "PSNR", "licence", "digest", "created", "from")
    table = Table("model", *columns, title=f"models in {escape(uri)}")
    for row in rows:
        metrics = "  ".join(f"{name} {value}" for name, value in row["metrics"].items())
        cells = (
            row["task"],
            f"x{row['scale']}",
            metrics,
            row["licence"],
            row["digest"],
            row["created"],
            row["from"],
        )
        table.add_row(row["name"], row["version"], "latest" if row["latest"] else "", *map(escape, cells))
    console.print(table)


def format_move(move: Move) -> str:
    """Return in one line where `latest` was and is."""
    if move.before is not None and move.before.generation == move.after.generation:
        return f"{move.name}: latest is {move.after.version} already"
    before = move.before.version if move.before else "unset"
    return f"{move.name}: latest {before} -> {move.after.version}"
