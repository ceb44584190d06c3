"""The records of a training (lines, events, curves, pictures), and how they survive a kill."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from tensorboardX.proto import event_pb2

from imgtx.imageops.resize import imresize
from imgtx.training import log as training_log
from imgtx.training.curves import HEIGHT, WIDTH, draw_curves
from imgtx.training.log import GAP, LABEL, PANEL, ROWS, TrainingLog, ValidationSample, draw_strip, read_log
from jobs.evaluation.model_card import pictures, spec_of
from tests.support.zoo import photo


def report(step: int, **values: float) -> dict[str, Any]:
    return {"step": step, "lr": 1e-3, "samples_per_second": 9.5, **values}


def scalars(folder: Path) -> set[tuple[str, int, float]]:
    """Return name, step and value of every scalar in the event files of `folder`."""
    found = set()
    for path in folder.glob("events*"):
        data, start = path.read_bytes(), 0
        while start < len(data):
            (length,) = struct.unpack_from("<Q", data, start)
            event = event_pb2.Event.FromString(data[start + 12 : start + 12 + length])
            found |= {(value.tag, event.step, value.simple_value) for value in event.summary.value}
            start += 16 + length
    return found


def test_a_log_has_lines_events_and_curves(tmp_path):
    with TrainingLog(tmp_path, "l1") as log:
        log(report(50, loss=0.5))
        assert not (tmp_path / "curves.png").exists()
        log(report(60, valid_psnr_y=30.0))
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").open()] == [50, 60]
    assert {("loss", 50, 0.5), ("valid_psnr_y", 60, 30.0)} <= scalars(tmp_path)
    assert Image.open(tmp_path / "curves.png").size == (WIDTH, HEIGHT)
    with TrainingLog(tmp_path, "l1") as log:
        log(report(70, loss=0.25))
    assert len(list(tmp_path.glob("events*"))) == 2
    assert {("loss", 50, 0.5), ("loss", 70, 0.25)} <= scalars(tmp_path)
    assert len(read_log(tmp_path / "log.jsonl")) == 3


def test_training_continues_without_the_extras_and_reports_them_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(training_log, "find_spec", lambda package: None)
    with TrainingLog(tmp_path, "l1") as log:
        log(report(50, loss=0.5))
        log(report(60, valid_psnr_y=30.0))
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]
    (line,) = caplog.messages
    assert line == "no TensorBoard events and no curves.png: for them pip install tensorboardX matplotlib"


def test_a_truncated_line_does_not_damage_the_next(tmp_path):
    (tmp_path / "log.jsonl").write_text(json.dumps(report(10, loss=1.0)) + '\n{"step": 2')
    with TrainingLog(tmp_path, "l1") as log:
        log(report(20, loss=0.5))
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [10, 20]


def test_repeated_steps_count_once(tmp_path):
    path = tmp_path / "log.jsonl"
    steps = [(10, 1.0), (20, 2.0), (30, 3.0), (20, 4.0), (30, 5.0)]
    path.write_text("".join(json.dumps(report(s, loss=v)) + "\n" for s, v in steps) + '{"step": 4')
    assert [(line["step"], line["loss"]) for line in read_log(path)] == [(10, 1.0), (20, 4.0), (30, 5.0)]


@pytest.fixture
def figures(monkeypatch) -> list[Figure]:
    """Collect the figures that are saved."""
    saved_figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (saved_figures.append(self), save(self, *a, **k))
    )
    return saved_figures


@pytest.mark.parametrize(
    ("loss", "title"), [("l1", "L1 loss"), ("mse", "mean square error"), ("psnr", "minus PSNR, dB")]
)
def test_curves_show_the_values_and_name_their_loss(tmp_path, figures, loss, title):
    lines = [report(step, loss=1.0 - step / 100) for step in range(0, 101, 10)]
    draw_curves(lines, loss, tmp_path / "curves.png")
    losses, _ = figures[0].axes
    assert losses.get_title(loc="left") == f"training: {title}, mean between reports"
    (curve,) = losses.lines
    assert curve.get_xydata().tolist() == [[line["step"], line["loss"]] for line in lines]


@pytest.mark.parametrize("values", [(26.6901, 26.6904), (5.0, 5.0), (1e-6, 3e-6), (0.0, 12345.0)])
def test_different_ticks_have_different_labels(tmp_path, figures, values):
    draw_curves(
        [report(n, loss=v, valid_psnr_y=v) for n, v in enumerate(values, 1)], "l1", tmp_path / "x.png"
    )
    for axes in figures[0].axes:
        labels = [label.get_text() for label in axes.get_yticklabels()]
        assert len(set(labels)) == len(labels) > 1


def test_an_early_spike_does_not_flatten_the_curve(tmp_path, figures):
    draw_curves(
        [report(n, loss=1e6 if n < 2 else 1.0 + n / 100) for n in range(100)], "l1", tmp_path / "x.png"
    )
    assert figures[0].axes[0].get_ylim()[1] < 3


@pytest.mark.parametrize(
    "lines", [[], [report(0)], [report(5, loss=0.0)], [report(5, loss=0.3), report(9, loss=0.3)]]
)
def test_curves_can_be_drawn_from_very_few_points(tmp_path, lines):
    draw_curves(lines, "l1", tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").size == (WIDTH, HEIGHT)


def test_a_strip_shows_four_images_for_each_pair():
    clean = photo(80, 120)
    small = imresize(clean, 0.5)
    strip = draw_strip([ValidationSample(small, clean, clean)] * 6)
    assert strip.size == (4 * (PANEL + GAP) - GAP, ROWS * (PANEL + LABEL + GAP))
    panels = [
        np.asarray(strip.crop((x * (PANEL + GAP), LABEL, x * (PANEL + GAP) + PANEL, LABEL + PANEL)))
        for x in range(4)
    ]
    # Output and original, here the same.
    assert np.array_equal(panels[2], panels[3])
    assert not np.array_equal(panels[0], panels[3])
    middle = Image.fromarray(clean[0:80, 20:100]).resize((PANEL, PANEL), Image.Resampling.NEAREST)
    assert np.array_equal(panels[3], np.asarray(middle))


def test_the_card_includes_the_pictures_that_exist(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    assert pictures(tmp_path, out / "x.safetensors") == ""
    Image.new("RGB", (4, 4)).save(tmp_path / "strip.png")
    printed = pictures(tmp_path, out / "x.safetensors")
    assert "](x-strip.png)" in printed
    assert "curves" not in printed
    assert (out / "x-strip.png").is_file()


def test_the_card_names_an_existing_spec():
    assert spec_of("sr-x2") == "jobs/specs/sr-x2.toml"
    assert spec_of("mine") == "mine.toml"
