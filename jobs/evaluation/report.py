"""What a protocol found: rows, a report that can be repeated, a table beside published numbers."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track
from rich.table import Table

T = TypeVar("T")

# Printed in the papers, never measured here: dB by dataset, condition and method.
PUBLISHED = {
    ("cbsd68", "sigma 15"): {"CBM3D": 33.52, "DnCNN": 33.90, "PromptIR": 33.98, "SwinIR": 34.42},
    ("cbsd68", "sigma 25"): {"CBM3D": 30.71, "DnCNN": 31.24, "PromptIR": 31.31, "SwinIR": 31.78},
    ("cbsd68", "sigma 50"): {"CBM3D": 27.38, "DnCNN": 27.95, "PromptIR": 28.06, "SwinIR": 28.56},
    ("live1", "quality 10"): {"SwinIR": 28.06},
    ("live1", "quality 20"): {"SwinIR": 30.45},
    ("live1", "quality 30"): {"SwinIR": 31.82},
    ("live1", "quality 40"): {"SwinIR": 32.75},
}


@dataclass(frozen=True)
class Row:
    """One method under one condition: means over the images; `seconds` are per megapixel, None for what is no model."""

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
    rows: tuple[Row, ...] = field(default=())
    self_ensemble: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def each(items: Sequence[T], label: str) -> Iterable[T]:
    """The items, with a bar on a terminal's standard error."""
    console = Console(stderr=True)
    return track(items, label, console=console, transient=True, disable=not console.is_terminal)


def print_protocol(report: ProtocolReport, console: Console) -> None:
    """A line a method, condition by condition, then the protocol in words."""
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
            _published(table, before)
        seconds = "" if row.seconds is None else f"{row.seconds:.2f}"
        digits = {name: 4 if name == "ssim" else 2 for name in names}
        cells = [f"{row.means[name]:.{digits[name]}f}" for name in names]
        style = "bold" if row.method == report.model else None
        table.add_row(*(place if place != before else ("", "")), row.method, *cells, seconds, style=style)
        before = place
    if before is not None:
        _published(table, before)
    console.print(table)
    console.print(f"Protocol: {report.text}.", highlight=False)
    console.print(conditions(report), highlight=False)


def conditions(report: Any) -> str:
    """Which weights a report is of (this module's, or `jobs.evaluation.super_resolution`'s), and what they ran on."""
    views = ", the mean over eight views" if report.self_ensemble else ""
    return (
        f"Model {report.digest[:12]} on {report.device}, {report.precision}, {report.threads} threads, torch "
        f"{report.torch}{views}."
    )


def _published(table: Table, place: tuple[str, str]) -> None:
    for name, value in PUBLISHED.get((place[0].casefold(), place[1]), {}).items():
        table.add_row("", "", f"{name} (published)", f"{value:.2f}", style="dim")
    table.add_section()
