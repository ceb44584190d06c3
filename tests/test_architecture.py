"""What the tables of ARCHITECTURE.md name is there: files to open, and words to look for in them."""

import re
from pathlib import PurePosixPath

import pytest

from tests.unit.source_tree import ROOT

HEADING = "## To change X, open Y"
TEXT = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (?!promise|to change|at scale)(.+?) \| (.+) \|$", TEXT, re.MULTILINE)

PATH = re.compile(
    r"[\w.*]+/[\w./*]*|\w+\.py"
)  # `jobs/run.py`, `bench/`, `pipeline/storage_*.py`, `test_pixels.py`
WORD = re.compile(r"[A-Za-z_]+")


def in_quotes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def named_paths(cell: str) -> list[str]:
    """Its paths from the root; a bare file name lies beside the file that is named before it."""
    paths: list[str] = []
    for name in filter(PATH.fullmatch, in_quotes(cell)):
        paths.append(name if "/" in name else str(PurePosixPath(paths[-1]).parent / name))
    return paths


def test_all_tables_are_read():
    assert HEADING in TEXT
    assert len(ROWS) == len(re.findall(r"^\|(?!---)", TEXT, re.MULTILINE)) - 3  # but their heads
    assert len(re.findall(r"^\|(?!---)", TEXT.split(HEADING)[1], re.MULTILINE)) > 10


@pytest.mark.parametrize(("subject", "cells"), ROWS, ids=[subject for subject, _ in ROWS])
def test_a_row_names_what_is_there(subject, cells):
    paths = named_paths(cells)
    assert paths, f"{subject!r} names no path"
    missing = [path for path in paths if not any(ROOT.glob(path))]
    assert not missing, f"{subject!r} names what is not there: {missing}"
    sources = [
        file.read_text(encoding="utf-8") for path in paths for file in ROOT.glob(path) if file.is_file()
    ]
    lost = [w for w in in_quotes(cells) if WORD.fullmatch(w) and not any(w in source for source in sources)]
    assert not lost, f"{subject!r} names words that its files do not hold: {lost}"
