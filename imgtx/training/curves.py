"""The curves of a training out of its log: what lies there by step, and a picture of it (Pillow)."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, MARGIN = 640, 220, 56  # pixels of one panel, and around it
PANELS = (("loss", "loss, mean between reports"), ("valid_psnr_y", "validation PSNR-Y, dB"))
INK, GRID, LINE = (60, 60, 60), (225, 225, 225), (31, 99, 181)
Points = Sequence[tuple[float, float]]


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a training's log in the order of their steps.

    What a killed process had logged beyond its last checkpoint was trained again: the later line counts. A last line
    that was cut short is left out.
    """
    lines: list[dict[str, Any]] = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        while lines and _again(lines[-1], line):
            lines.pop()
        lines.append(line)
    return lines


def _again(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether `now` reports what `before` had already: a loss and a validation may share one step."""
    return before["step"] > now["step"] or (before["step"] == now["step"] and before.keys() == now.keys())


def draw_curves(lines: Sequence[dict[str, Any]]) -> Image.Image:
    """One panel below the other; steps to the right."""
    picture = Image.new("RGB", (WIDTH + 2 * MARGIN, len(PANELS) * (HEIGHT + MARGIN) + MARGIN), "white")
    draw, last = ImageDraw.Draw(picture), max((line["step"] for line in lines), default=1)
    for number, (name, title) in enumerate(PANELS):
        points = [(line["step"], line[name]) for line in lines if name in line]
        _draw_panel(draw, MARGIN + number * (HEIGHT + MARGIN), title, points, max(1, last))
    return picture


def _draw_panel(draw: ImageDraw.ImageDraw, top: int, title: str, points: Points, last: int) -> None:
    font = ImageFont.load_default(13)
    draw.text((MARGIN, top - 20), title, fill=INK, font=font)
    draw.rectangle((MARGIN, top, MARGIN + WIDTH, top + HEIGHT), outline=GRID)
    if not points:
        return
    ticks = nice_ticks(min(v for _, v in points), _ceiling(points))
    low, high = ticks[0], ticks[-1]

    def at(step: float, value: float) -> tuple[float, float]:
        part = (min(max(value, low), high) - low) / (high - low)
        return MARGIN + WIDTH * step / last, top + HEIGHT * (1 - part)

    for tick in ticks:
        _, y = at(0, tick)
        draw.line((MARGIN, y, MARGIN + WIDTH, y), fill=GRID)
        draw.text((MARGIN - 6, y), f"{tick:.4g}", fill=INK, font=font, anchor="rm")
    for tick in nice_ticks(0, last):
        if tick <= last:
            draw.text((at(tick, low)[0], top + HEIGHT + 4), f"{tick:,.0f}", fill=INK, font=font, anchor="ma")
    path = [at(step, value) for step, value in points]
    draw.line(path, fill=LINE, width=2)
    for x, y in path if len(path) < 60 else path[-1:]:
        draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=LINE)


def _ceiling(points: Points) -> float:
    """The largest value but for the first few: one early spike would flatten all that follows."""
    values = [value for _, value in points]
    return max(values[len(values) // 50 :])


def nice_ticks(low: float, high: float) -> list[float]:
    """About five round numbers whose ends enclose [low, high]."""
    span = high - low or max(abs(high), 1e-6) * 0.1
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(power * n for n in (1, 2, 5, 10) if power * n >= span / 5)
    first, count = math.floor(low / step), 0
    while (first + count) * step < high or count < 1:
        count += 1
    return [round((first + n) * step, 12) for n in range(count + 1)]
