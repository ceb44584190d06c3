"""What commands print for users: tables, lines with counts, and names as they are."""

from pathlib import Path

import pytest

from imgtx.errors import DONE
from tests.support.archive import save_tiny_model
from tests.support.commands import imgtx, without_ray
from tests.support.zoo import photo, saved


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def place(tmp_path: Path, monkeypatch) -> Path:
    """Return a working directory with two photos under `in`, in which runs use no Ray."""
    without_ray(monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for number in range(2):
        (tmp_path / "in" / f"{number}.png").write_bytes(saved(photo(20 + number, 24)))
    return tmp_path


def printed(*arguments: str) -> tuple[str, dict[str, list[str]]]:
    """Return a command's output with its lines joined, and the rows of its table by their first cell."""
    result = imgtx(*arguments)
    assert result.exit_code == DONE, result.output
    lines = [line.split("│") for line in result.stdout.splitlines() if "│" in line]
    return " ".join(result.stdout.split()), {
        cells[1].strip(): [c.strip() for c in cells[2:]] for cells in lines
    }


def test_tables_show_the_counts_of_a_run(place, model):
    (place / "in" / "cut.png").write_bytes(saved(photo(20, 24))[:60])
    (place / "in" / "notes.txt").write_text("no image")
    plan = ("plan", "upscale", "in", "out", "--model", model)
    text, rows = printed(*plan)
    assert "4 listed, 3 to do" in text
    assert {name: cells[0] for name, cells in rows.items() if cells[0] not in ("0", "")} == {
        "new": "3",
        "skipped": "1",
    }
    text, rows = printed("upscale", "in", "out", "--model", model, "--max-failed", "1")
    assert "listed 4 = written 2 + current 0 + skipped 1 + failed 1 + pending 0" in text
    assert rows["truncated"][0] == "1"
    text, rows = printed(*plan)
    assert "4 listed, 0 to do" in text
    assert (rows["current"][0], rows["failed_before"][0], rows["skipped"][0]) == ("2", "1", "1")
    text, rows = printed("status", "out")
    assert "listed 4 = written 2 + current 0 + skipped 1 + failed 1 + pending 0" in text
    assert all(count in text.partition("ledger: ")[2] for count in ("failed 1", "skipped 1", "written 2"))
    assert rows["truncated"][0] == "1"
    assert "cut.png: " in text
    assert "[decode]" in text


def test_the_table_of_models_shows_scale_and_licence():
    _, rows = printed("models", "list")
    assert rows["sr-x2"][1] == "x2"
    assert rows["sr-x4"][1] == "x4"
    for name in ("sr-x2", "sr-x4"):
        assert rows[name][3], "a licence"


def test_names_in_brackets_are_not_markup(place, model):
    (place / "in" / "cut[bold].png").write_bytes(b"none")
    result = imgtx("upscale", "in", "out[red]", "--model", model)
    assert "out[red]/images/" in "".join(result.stdout.split())
    status = imgtx("status", "out[red]").stdout
    assert "out[red]" in status
    assert "cut[bold].png" in status
