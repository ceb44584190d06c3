"""Tables of prompts as listed rows: every format, keys and versions, and rows that cannot be used."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imgtx.errors import UsageError
from pipeline.sources import open_source
from pipeline.sources.prompt_rows import Pictures, Reading
from pipeline.sources.prompts import PROMPTS
from pipeline.sources.start_pictures import PicturesAnywhere, PicturesIn
from pipeline.storage.store import open_store
from pipeline.tables import spill

ROWS = [
    {"prompt": "a red circle", "seed": 7, "note": "x"},
    {"prompt": 'a "blue", square\nabove', "seed": None, "note": None},
    {"prompt": "ein grünes Quadrat ● 赤", "seed": 9007199254740993, "note": "y"},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows in the format of the path's suffix."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        cell = '"{}"'.format
        lines = [[*rows[0]], *([*row.values()] for row in rows)]
        quoted = [[cell("" if c is None else str(c).replace('"', '""')) for c in line] for line in lines]
        path.write_text("\n".join(",".join(line) for line in quoted), encoding="utf-8-sig")
    return path


def listed(
    path: Path, reading: Reading | None = None, images: Pictures | None = None
) -> list[dict[str, Any]]:
    """Return the LISTED rows of a table, with their conditions read."""
    table = PROMPTS.open(str(path), None)
    batches = table.list_as(reading or Reading(), local_destination=True, images=images)
    rows = [row for batch in batches for row in batch.to_pylist()]
    return [row | {"conditions": json.loads(row["conditions"] or "{}")} for row in rows]


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_every_format_gives_the_same_rows(tmp_path, suffix):
    rows = listed(write(tmp_path / f"t.{suffix}", ROWS))
    assert [row["conditions"] for row in rows] == [
        {"prompt": "a red circle", "seed": 7},
        {"prompt": 'a "blue", square\nabove', "seed": 0},
        {"prompt": "ein grünes Quadrat ● 赤", "seed": 9007199254740993},
    ]
    assert {row["status"] for row in rows} == {""}
    assert rows[0]["key"].startswith("a-red-circle-")
    assert [row["key"] for row in rows] == [row["key"] for row in listed(write(tmp_path / "t.jsonl", ROWS))]


def test_a_text_file_has_a_prompt_a_line(tmp_path):
    (tmp_path / "t.txt").write_bytes(b"\xef\xbb\xbfa red circle\r\n\r\n  a star, with comma \n\xff broken\n")
    rows = listed(tmp_path / "t.txt")
    assert [row["conditions"].get("prompt") for row in rows] == ["a red circle", "a star, with comma", None]
    assert (rows[2]["key"], rows[2]["reason"]) == ("row-3", "bad_prompt")
    assert "not UTF-8 at character 1" in rows[2]["message"]


def test_every_sample_has_a_key_a_seed_and_a_version(tmp_path):
    table = write(tmp_path / "t.jsonl", [{"id": "cat", "prompt": "a cat", "seed": 5, "samples": 3}])
    rows = listed(table, Reading(key="id"))
    assert [row["key"] for row in rows] == ["cat", "cat-2", "cat-3"]
    assert [row["item"] for row in rows] == ["", "cat", "cat"]
    assert [row["conditions"]["seed"] for row in rows] == [5, 6, 7]
    assert len({row["version"] for row in rows}) == 3
    named_by_hash = listed(table)
    assert len({row["key"] for row in named_by_hash}) == 3
    assert len(listed(write(tmp_path / "u.jsonl", [{"prompt": "a"}]), Reading(samples=2, seed=4))) == 2


def test_a_changed_cell_changes_exactly_its_row(tmp_path):
    before = {"id": "a", "prompt": "one", "seed": 1, "steps": 4}, {"id": "b", "prompt": "two"}
    reading = Reading(key="id")
    first = listed(write(tmp_path / "t.jsonl", list(before)), reading)
    for change in ({"prompt": "uno"}, {"seed": 2}, {"steps": 5}, {"style": "ink"}, {"width": 32}):
        after = listed(write(tmp_path / "t.jsonl", [before[0] | change, before[1]]), reading)
        assert [row["key"] for row in after] == ["a", "b"]
        assert [a["version"] == b["version"] for a, b in zip(first, after, strict=True)] == [False, True]
    other = listed(
        write(tmp_path / "t.jsonl", [before[0] | {"note": "of no importance"}, before[1]]), reading
    )
    assert other == first


@pytest.mark.parametrize(
    ("cells", "reason", "message"),
    [
        ({"prompt": ""}, "bad_prompt", "empty prompt"),
        ({"prompt": " \t"}, "bad_prompt", "empty prompt"),
        ({"prompt": None}, "bad_prompt", "no prompt"),
        ({}, "bad_prompt", "no prompt"),
        ({"prompt": 42}, "bad_prompt", "42, which is no text"),
        ({"prompt": ["a"]}, "bad_prompt", "no text"),
        ({"prompt": "bad \udcff"}, "bad_prompt", "not UTF-8 at character 5, after 'bad '"),
        ({"prompt": "a", "seed": "x"}, "bad_value", "seed = 'x': expected a number"),
        ({"prompt": "a", "seed": 1.5}, "bad_value", "expected a whole number"),
        ({"prompt": "a", "seed": -1}, "bad_value", "seed is -1"),
        ({"prompt": "a", "seed": 2**64}, "bad_value", "seed is 18446744073709551616"),
        ({"prompt": "a", "seed": True}, "bad_value", "seed = True"),
        ({"prompt": "a", "samples": 0}, "bad_value", "samples is 0"),
        ({"prompt": "a", "samples": 10**6}, "bad_value", "samples is 1000000"),
        ({"prompt": "a", "guidance": "inf"}, "bad_value", "guidance = 'inf'"),
        ({"prompt": "a", "negative": 3}, "bad_value", "negative = 3, which is no text"),
        ({"prompt": "a", "image": "b.png"}, "bad_value", "nothing says where it is"),
    ],
)
def test_a_row_that_cannot_be_used_fails_alone(tmp_path, cells, reason, message):
    (row, good) = listed(write(tmp_path / "t.jsonl", [cells, {"prompt": "good"}]))
    assert (row["key"], row["status"], row["reason"]) == ("row-1", "failed", reason)
    assert message in row["message"]
    assert good["status"] == ""


def test_lines_that_are_no_rows_fail_alone(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"prompt": "a"}\nnonsense\n[1]\n\n{"prompt": "b"}\n')
    assert [row["reason"] for row in listed(tmp_path / "t.jsonl")] == ["", "bad_value", "bad_value", ""]
    (tmp_path / "t.csv").write_text("prompt,seed\na,1\nb, c,2\n")
    rows = listed(tmp_path / "t.csv")
    assert [row["reason"] for row in rows] == ["", "bad_value"]
    assert "3 cells where the header has 2" in rows[1]["message"]


def test_numbers_may_be_written_as_spreadsheets_do(tmp_path):
    (tmp_path / "t.csv").write_text("prompt,seed,samples,guidance\na,7.0,, 2.5 \n")
    (row,) = listed(tmp_path / "t.csv")
    assert row["conditions"] == {"prompt": "a", "guidance": 2.5, "seed": 7}
    pq.write_table(pa.table({"prompt": ["a", "b"], "seed": [7.0, float("nan")]}), tmp_path / "t.parquet")
    assert [row["conditions"]["seed"] for row in listed(tmp_path / "t.parquet")] == [7, 0]


def test_a_repeated_row_is_skipped_and_two_that_differ_under_one_key_are_refused(tmp_path, monkeypatch):
    same = [{"prompt": "a"}, {"prompt": "b"}, {"prompt": "a"}, {"prompt": "a", "seed": 0}]
    for held in (spill.HELD_BYTES, 1):
        monkeypatch.setattr(spill, "HELD_BYTES", held)
        rows = listed(write(tmp_path / "t.jsonl", same))
        assert [(row["status"], row["reason"]) for row in rows] == [
            ("", ""),
            ("", ""),
            ("skipped", "duplicate"),
            ("skipped", "duplicate"),
        ]
        assert len({row["key"] for row in rows}) == 4
    unequal = [{"id": 1, "prompt": "a"}, {"id": 2, "prompt": "b"}, {"id": 1, "prompt": "c"}]
    with pytest.raises(UsageError, match="rows 1 and 3 of the table have the key '1' and differ"):
        listed(write(tmp_path / "t.jsonl", unequal), Reading(key="id"))


def test_keys_are_those_of_files(tmp_path):
    table = [{"id": key, "prompt": "a"} for key in ("a/b.jpg", "../x", "", None, 3.0, "c" * 300)]
    rows = listed(write(tmp_path / "t.jsonl", table), Reading(key="id"))
    assert [row["reason"] for row in rows] == ["", "unsafe_key", "bad_value", "bad_value", "", "unsafe_key"]
    assert [row["key"] for row in rows[:5]] == ["a/b.jpg", "../x", "row-3", "row-4", "3"]


def test_a_start_picture_is_part_of_its_row(tmp_path):
    table = write(
        tmp_path / "t.jsonl", [{"prompt": "a", "image": "x.png"}, {"prompt": "b", "image": "no.png"}]
    )
    folder = open_store(str(tmp_path / "pictures"))
    folder.write("x.png", b"a picture")
    row, missing = listed(table, images=PicturesIn(folder, "--images"))
    (image,) = row["inputs"]
    assert (image["role"], image["key"]) == ("image", "x.png")
    assert "not in --images" in missing["message"]
    folder.write("x.png", b"another picture")
    changed, _ = listed(table, images=PicturesIn(folder, "--images"))
    assert (changed["key"], changed["version"] != row["version"]) == (row["key"], True)


def test_start_pictures_are_found_beside_the_table_and_anywhere(tmp_path):
    (tmp_path / "more").mkdir()
    for name in ("x.png", "more/y z.png"):
        (tmp_path / name).write_bytes(b"a picture")
    open_store("memory://start").write("m.png", b"a picture")
    names = [
        "x.png",
        "more/y z.png",
        f"{tmp_path}/x.png",
        "memory://start/m.png",
        "no.png",
        "more/",
        "s3:/b/x",
    ]
    table = write(tmp_path / "t.jsonl", [{"prompt": "a", "image": name} for name in names])
    pictures = PicturesAnywhere(str(tmp_path))
    rows = listed(table, images=pictures)
    assert [row["reason"] for row in rows] == [""] * 4 + ["bad_value"] * 3
    assert [row["inputs"][0]["key"] for row in rows[:4]] == [
        f"{tmp_path}/x.png",
        f"{tmp_path}/more/y z.png",
        f"{tmp_path}/x.png",
        "memory://start/m.png",
    ]
    assert "there is none at" in rows[4]["message"]
    for row in rows[:4]:
        (image,) = row["inputs"]
        assert pictures.read(image["key"], image["version"]) == b"a picture"
    (tmp_path / "x.png").write_bytes(b"another picture")
    again = listed(table, images=PicturesAnywhere(str(tmp_path)))
    assert [one["version"] != other["version"] for one, other in zip(rows, again, strict=True)][:4] == [
        True,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"caption,id\na,1\n", "no column 'prompt': it has caption, id; name it by --prompt-column"),
        ("t.csv", b"", "no column 'prompt'"),
        ("t.csv", b"prompt,prompt\n", "the column 'prompt' twice"),
        ("t.csv", b'prompt\n"a' + b"x" * (2 << 20), "is not valid CSV"),
        ("t.txt", "a".encode("utf-16"), "is UTF-16"),
        ("t.parquet", b"PAR1 no", "is not a complete Parquet file"),
        ("t.xlsx", b"", r"must be one of \.parquet"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        listed(tmp_path / name)


def test_columns_of_the_wrong_type_are_one_line(tmp_path):
    pq.write_table(pa.table({"prompt": [1, 2]}), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match=r"the column 'prompt' of .* holds int64: it must hold text"):
        listed(tmp_path / "t.parquet")
    text = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe"))
    pq.write_table(pa.table({"prompt": text}), tmp_path / "t.parquet")
    assert [row["reason"] for row in listed(tmp_path / "t.parquet")] == ["bad_prompt"]


def test_a_missing_table_and_a_folder_are_one_line(tmp_path):
    destination = open_store(str(tmp_path / "out"))
    for name, message in (("no.csv", "there is no table"), ("folder", "must be one of")):
        with pytest.raises(UsageError, match=message):
            open_source(str(tmp_path / name), ("prompts",)).check(destination)
