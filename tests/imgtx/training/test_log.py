"""What a training leaves to read: lines, events, curves, pictures, and how they survive a kill."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imgtx.imageops.resize import imresize
from imgtx.training.curves import HEIGHT, LINE, MARGIN, WIDTH, draw_curves, nice_ticks, read_log
from imgtx.training.event_file import EventFile, _masked_crc
from imgtx.training.log import Record
from imgtx.training.strip import GAP, LABEL, PANEL, ROWS, ValidationSample, draw_strip
from jobs.evaluation.model_card import pictures, spec_of
from tests.support.zoo import photo


def report(step: int, **values: float) -> dict[str, Any]:
    return {"step": step, "lr": 1e-3, "samples_per_second": 9.5, **values}


def events(path: Path) -> list[bytes]:
    """The messages of an event file, every checksum held."""
    data, messages = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        assert data[8:12] == _masked_crc(data[:8])
        message, data = data[12 : 12 + length], data[12 + length :]
        assert data[:4] == _masked_crc(message)
        data = data[4:]
        messages.append(message)
    return messages


def test_the_checksum_is_castagnolis():
    """RFC 3720, B.4: 32 zero bytes give 8A9136AA; TensorFlow rotates and adds its constant."""
    plain = 0x8A9136AA
    masked = ((plain >> 15 | plain << 17) + 0xA282EAD8) & 0xFFFFFFFF
    assert _masked_crc(bytes(32)) == struct.pack("<I", masked)


def test_an_event_is_what_tensorboard_reads(tmp_path):
    """Byte for byte a message that TensorBoard 2.20 read; but for the time, which comes first."""
    file = EventFile(tmp_path)
    file.add(300, {"loss": 0.5, "lr": 2.0})
    file.close()
    (path,) = tmp_path.glob("events.out.tfevents.*")
    version, event = events(path)
    assert version[9:] == b"\x1a\x0dbrain.Event:2"
    loss, lr = b"\x0a\x04loss\x15\x00\x00\x00\x3f", b"\x0a\x02lr\x15\x00\x00\x00\x40"
    assert event[9:] == b"\x10\xac\x02\x2a\x18" + b"\x0a\x0b" + loss + b"\x0a\x09" + lr


def test_a_record_is_lines_events_and_curves(tmp_path):
    with Record(tmp_path) as record:
        record(report(50, loss=0.5))
        assert not (tmp_path / "curves.png").exists()
        record(report(60, valid_psnr_y=30.0))
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").open()] == [50, 60]
    assert len(events(next(tmp_path.glob("events*")))) == 3
    assert Image.open(tmp_path / "curves.png").width == WIDTH + 2 * MARGIN
    with Record(tmp_path) as record:
        record(report(70, loss=0.4))
    assert len(list(tmp_path.glob("events*"))) == 2
    assert len(read_log(tmp_path / "log.jsonl")) == 3


def test_a_line_that_was_cut_short_does_not_spoil_the_next(tmp_path):
    (tmp_path / "log.jsonl").write_text(json.dumps(report(10, loss=1.0)) + '\n{"step": 2')
    with Record(tmp_path) as record:
        record(report(20, loss=0.5))
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [10, 20]


def test_what_was_trained_again_counts_once(tmp_path):
    path = tmp_path / "log.jsonl"
    steps = [(10, 1.0), (20, 2.0), (30, 3.0), (20, 4.0), (30, 5.0)]
    path.write_text("".join(json.dumps(report(s, loss=v)) + "\n" for s, v in steps) + '{"step": 4')
    assert [(line["step"], line["loss"]) for line in read_log(path)] == [(10, 1.0), (20, 4.0), (30, 5.0)]


def test_curves_go_where_the_numbers_are():
    lines = [report(step, loss=1.0 - step / 100) for step in range(0, 101, 10)]
    pixels = np.asarray(draw_curves(lines))
    ink = np.argwhere((pixels == LINE).all(axis=2))
    (first_y, first_x), (last_y, last_x) = ink[ink[:, 1].argmin()], ink[ink[:, 1].argmax()]
    assert (first_x, last_x) == pytest.approx((MARGIN, MARGIN + WIDTH), abs=3)
    assert (first_y, last_y) == pytest.approx((MARGIN, MARGIN + HEIGHT), abs=4)


@pytest.mark.parametrize(
    "lines", [[], [report(0)], [report(5, loss=0.0)], [report(5, loss=0.3), report(9, loss=0.3)]]
)
def test_curves_of_next_to_nothing(lines):
    assert draw_curves(lines).height > HEIGHT


@pytest.mark.parametrize(("low", "high"), [(0, 1), (29.8, 30.1), (0, 12345), (5, 5), (0, 0), (-3, 8e-9)])
def test_ticks_are_few_and_enclose(low, high):
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low <= high <= ticks[-1]
    assert 2 <= len(ticks) <= 8
    assert ticks == sorted(set(ticks))


def test_a_strip_shows_four_sides_of_each_picture():
    clean = photo(80, 120)
    small = imresize(clean, 0.5)
    strip = draw_strip([ValidationSample(small, clean, clean)] * 6)
    assert strip.size == (4 * (PANEL + GAP) - GAP, ROWS * (PANEL + LABEL + GAP))
    panels = [
        np.asarray(strip.crop((x * (PANEL + GAP), LABEL, x * (PANEL + GAP) + PANEL, LABEL + PANEL)))
        for x in range(4)
    ]
    assert np.array_equal(panels[2], panels[3])  # output and original, here the same
    assert not np.array_equal(panels[0], panels[3])
    middle = Image.fromarray(clean[0:80, 20:100]).resize((PANEL, PANEL), Image.Resampling.NEAREST)
    assert np.array_equal(panels[3], np.asarray(middle))


def test_the_card_takes_the_pictures_that_there_are(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    assert pictures(tmp_path, out / "x.safetensors") == ""
    Image.new("RGB", (4, 4)).save(tmp_path / "strip.png")
    told = pictures(tmp_path, out / "x.safetensors")
    assert "](x-strip.png)" in told
    assert "curves" not in told
    assert (out / "x-strip.png").is_file()


def test_the_card_names_the_spec_that_there_is():
    assert spec_of("sr-x2") == "jobs/specs/sr-x2.toml"
    assert spec_of("mine") == "mine.toml"
