"""`imgtx failures`, and what a terminal shows of names that strangers wrote."""

import csv
import io
import json
from pathlib import Path

import pytest

from imgtx.errors import DONE, USAGE
from tests.support.archive import save_tiny_model
from tests.support.commands import complaint, imgtx, without_ray
from tests.support.zoo import photo, saved

ESCAPE = "red\x1b[31m\nx.png"


@pytest.fixture
def done(tmp_path: Path, monkeypatch) -> Path:
    """Run over a good image, 14 empty ones, and one whose name a terminal would obey."""
    without_ray(monkeypatch)
    monkeypatch.chdir(tmp_path)
    model = save_tiny_model(tmp_path / "tiny.safetensors")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "good.png").write_bytes(saved(photo(20, 24)))
    for number in range(14):
        (tmp_path / "in" / f"{number:02}.png").write_bytes(b"")
    (tmp_path / "in" / ESCAPE).write_bytes(b"none")
    assert imgtx("upscale", "in", "out 1", "--model", model, "--max-failed", "20").exit_code == DONE
    return tmp_path


def test_every_failure_is_listed_in_each_form(done):
    lines = imgtx("failures", "out 1").stdout.splitlines()
    assert len(lines) == 15
    assert any(line.startswith(r"red\x1b[31m\nx.png: not_an_image: ") for line in lines)
    documents = [json.loads(line) for line in imgtx("failures", "out 1", "--json").stdout.splitlines()]
    assert {row["key"] for row in documents} == {ESCAPE, *(f"{number:02}.png" for number in range(14))}
    rows = list(csv.DictReader(io.StringIO(imgtx("failures", "out 1", "--csv").stdout)))
    assert sorted(rows, key=lambda row: row["key"]) == sorted(documents, key=lambda row: row["key"])


def test_failures_are_chosen_by_reason(done):
    (line,) = imgtx("failures", "out 1", "--reason", "not_an_image").stdout.splitlines()
    assert line.startswith(r"red\x1b[31m\nx.png: ")
    none = imgtx("failures", "out 1", "--reason", "truncated")
    assert not none.stdout
    assert "no image has failed for truncated" in none.stderr
    wrong = complaint("failures", "out 1", "--reason", "broken")
    assert "--reason broken: must be one of empty, not_an_image" in wrong
    assert imgtx("failures", "nowhere").exit_code == USAGE


def test_status_says_how_many_are_not_shown_and_what_lists_them(done):
    shown = imgtx("status", "out 1").stdout
    assert f"... and 5 more: imgtx failures '{done / 'out 1'}' lists them all" in shown
    (done / "out 1" / "images" / "good.png").unlink()
    for text in (shown, imgtx("failures", "out 1").stdout, imgtx("verify", "out 1").stdout):
        assert "\x1b" not in text


def test_an_error_is_a_document_too(done):
    result = imgtx("status", "nowhere", "--json")
    assert result.exit_code == USAGE
    assert json.loads(result.stdout) == {"error": result.stderr[7:-1], "exit_code": USAGE}
    result = imgtx("upscale", "in", "out", "--scael", "3", "--json")
    assert "--scael" in json.loads(result.stdout)["error"]
    assert not imgtx("status", "nowhere").stdout
