"""What a protocol found: rows, a report that can be repeated, a table beside published numbers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track
from rich.table import Table

T = TypeVar("T")

# dB by dataset, condition and method.
Published = Mapping[tuple[str, str], Mapping[str, float]]


@dataclass(frozen=True)
class Row:
    """One method under one condition: means over the images; seconds per megapixel, None for a baseline untimed."""

    dataset: str
    condition: str
    method: str
    images: int
    means: dict[str, float]
    seconds: float | None = None


@dataclass(frozen=True)
class ProtocolReport:
    """What a protocol found, and under which conditions it can be repeated."""

    model: str
    digest: str
    protocol: str
    text: str
    device: str
    precision: str
    torch: str
    threads: int
    processor: str
    rows: tuple[Row, ...] = field(default=())
    self_ensemble: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def with_progress(items: Sequence[T], label: str) -> Iterable[T]:
    """Iterate over the items, with a bar on a terminal's standard error."""
    console = Console(stderr=True)
    return track(items, label, console=console, transient=True, disable=not console.is_terminal)


def print_protocol(report: ProtocolReport, published: Published, console: Console) -> None:
    """Print one line per method, condition by condition, beside published numbers; then the protocol in words."""
    table = Table(title=f"{report.model}, {report.protocol}", title_justify="left")
    names = [*report.rows[0].means] if report.rows else []
    for heading in ("dataset", "condition", "method"):
        table.add_column(heading, no_wrap=True)
    for heading in (*names, "s/MP"):
        table.add_column(heading, justify="right")
    before: tuple[str, str] | None = None
    for row in report.rows:
        place = (row.dataset, row.condition)
        if before is not None and place != before:
            _add_published(table, published, before)
        seconds = "" if row.seconds is None else f"{row.seconds:.2f}"
        digits = {name: 4 if name == "ssim" else 2 for name in names}
        cells = [f"{row.means[name]:.{digits[name]}f}" for name in names]
        style = "bold" if row.method == report.model else None
        table.add_row(*(place if place != before else ("", "")), row.method, *cells, seconds, style=style)
        before = place
    if before is not None:
        _add_published(table, published, before)
    console.print(table)
    console.print(f"Protocol: {report.text}.", highlight=False)
    console.print(conditions(report), highlight=False)


def conditions(report: Any) -> str:
    """Return which weights a report is of, and what they ran on."""
    views = ", the mean over eight views" if report.self_ensemble else ""
    return (
        f"Model {report.digest[:12]} on {report.device}, {report.precision}, {report.threads} threads of "
        f"{report.processor}, torch {report.torch}{views}."
    )


def _add_published(table: Table, published: Published, place: tuple[str, str]) -> None:
    for name, value in published.get((place[0].casefold(), place[1]), {}).items():
        table.add_row("", "", f"{name} (published)", f"{value:.2f}", style="dim")
    table.add_section()
