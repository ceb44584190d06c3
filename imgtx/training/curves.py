"""The curves of a training as a picture, by matplotlib (the extra `curves`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Pixels.
WIDTH, HEIGHT = 750, 600
SCORES = {
    "valid_psnr_y": "validation: PSNR-Y, dB",
    "valid_attributes": "validation: share of attributes that are right",
    "valid_loss": "validation: loss",
}
LOSS_TITLES = {
    "l1": "L1 loss",
    "mse": "mean square error",
    "psnr": "minus PSNR, dB",
    "text-to-image": "velocity",
    "style": "content and style",
}


def draw_curves(lines: Sequence[dict[str, Any]], loss: str, path: Path) -> None:
    """Write a PNG of two panels, training loss and validation score, by step.

    lines: a training's log, as `imgtx.training.log.read_log` returns it. loss: the spec's word for it. Raises
    ImportError without matplotlib.
    """
    from matplotlib.figure import Figure

    score = next((name for name in SCORES if any(name in line for line in lines)), "valid_psnr_y")
    panels = (
        ("loss", f"training: {LOSS_TITLES.get(loss, loss)}, mean between reports"),
        (score, SCORES[score]),
    )
    figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100, layout="constrained")
    last = max((line["step"] for line in lines), default=1)
    for axes, (name, title) in zip(figure.subplots(len(panels), 1), panels, strict=True):
        points = [(line["step"], line[name]) for line in lines if name in line]
        axes.plot(
            [step for step, _ in points], [value for _, value in points], ".-" if len(points) < 60 else "-"
        )
        axes.set_title(title, loc="left")
        axes.set_xlim(0, max(1, last))
        if points:
            axes.set_ylim(*_limits([value for _, value in points]))
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        # Full numbers: ticks that differ must not read alike.
        axes.ticklabel_format(axis="y", style="plain", useOffset=False)
    figure.supxlabel("step")
    figure.savefig(path, format="png")


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Return the range of all values but the first few: one early spike would flatten all that follows."""
    low, high = min(values), max(values[len(values) // 50 :])
    margin = 0.05 * (high - low) or max(0.05 * abs(high), 1e-6)
    return low - margin, high + margin
