"""Listing a folder or bucket of images, and what the key alone decides."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from imgtx.errors import StorageError
from pipeline.sources import images as module
from pipeline.sources.images import classify, inventory
from pipeline.storage.retry import FAIL_FAST
from pipeline.storage.store import Store, open_store
from pipeline.tables.schemas import FAILED, INVENTORY, LISTED, REASONS, SKIPPED

SUFFIXES = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png"}


@pytest.fixture
def store() -> Store:
    return open_store(f"memory://{uuid.uuid4().hex}")


def batch_of(keys: list[str]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{"key": k, "size": 1, "version": "v"} for k in keys], schema=INVENTORY)


def verdict(key: str, *, local: bool = True) -> tuple[str, str, str]:
    (row,) = classify(batch_of([key]), SUFFIXES, local_destination=local).to_pylist()
    return row["status"], row["reason"], row["message"]


def test_inventory_lists_everything_in_large_batches(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "ROWS", 10)
    for number in range(25):
        store.write(f"{number % 3}/{number:02}.jpg", b"x" * number)
    batches = list(inventory(store))
    assert all(batch.schema == INVENTORY for batch in batches)
    rows = {row["key"]: row for batch in batches for row in batch.to_pylist()}
    assert len(rows) == sum(batch.num_rows for batch in batches) == 25
    assert rows["0/24.jpg"]["size"] == 24
    assert (24, rows["0/24.jpg"]["version"]) == store.stat("0/24.jpg")


def test_small_pages_become_large_batches(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "ROWS", 10)

    class Paged:
        def list(self, prefix: str, *, enters: object) -> Iterator[pa.RecordBatch]:
            for page in range(8):
                yield batch_of([f"{page}-{row}" for row in range(3)])
                yield batch_of([])

    assert [batch.num_rows for batch in inventory(Paged())] == [12, 12]


def test_an_empty_source_has_no_batches(store: Store):
    assert list(inventory(store)) == []


def test_a_missing_folder_is_an_error(tmp_path: Path):
    with pytest.raises(StorageError):
        list(inventory(Store(str(tmp_path / "missing"), retry=FAIL_FAST)))


@pytest.mark.parametrize(
    "key", ["a.jpg", "a.JPG", "b/c.Jpeg", "x.tar.png", ".jpg", "..a.jpg", "a..b/...jpg", "a.jpg ", "a.png. "]
)
def test_keys_with_an_image_suffix_are_images(key: str):
    assert verdict(key) == ("", "", "")


@pytest.mark.parametrize(
    "key", ["a", "a.txt", "a.jpg.txt", "jpg", "a.jpgx", "a.xjpg", "a.jpg/b", "../a.txt", "a.jpg\n"]
)
def test_other_names_are_skipped_not_failed(key: str):
    assert verdict(key) == (SKIPPED, "suffix", "")


@pytest.mark.parametrize(
    ("key", "word"),
    [
        ("../a.jpg", '".."'),
        ("a/../b.jpg", '".."'),
        ("a/./b.jpg", '"."'),
        ("./b.jpg", '"."'),
        ("/a.jpg", "slash"),
        ("a\x00.jpg", "zero byte"),
        ("a\x1ab.jpg", "U+001A"),
        ("d/" * 511 + "é.jpg", "1024 bytes"),
        ("../" + "d" * 2000 + ".jpg", '".."'),
    ],
)
def test_unsafe_keys_fail_on_any_destination(key: str, word: str):
    for local in (True, False):
        status, reason, message = verdict(key, local=local)
        assert (status, reason) == (FAILED, "unsafe_key")
        assert word in message
        assert "rename" in message


def test_bytes_that_are_not_utf8_are_only_kept_on_a_local_disk():
    for key in ("caf\x1ae9.jpg", "\x1a1a.jpg"):
        assert verdict(key, local=True) == ("", "", "")
        status, reason, message = verdict(key, local=False)
        assert (status, reason) == (FAILED, "unsafe_key")
        assert "not UTF-8" in message


@pytest.mark.parametrize(
    "key", ["a//b.jpg", "x" * 252 + ".jpg", "é" * 126 + ".jpg", "日" * 84 + ".jpg", "x" * 256 + "/a.jpg"]
)
def test_some_keys_are_unsafe_only_at_a_local_destination(key: str):
    assert verdict(key, local=True)[:2] == (FAILED, "unsafe_key")
    assert verdict(key, local=False) == ("", "", "")


@pytest.mark.parametrize(
    "key",
    [
        "x" * 251 + ".jpg",
        "é" * 125 + ".jpg",
        "d/" * 510 + ".jpg",
        "back\\slash.jpg",
        "100%.jpg",
        "\x85.jpg",
        " .jpg",
        "a\nb\t\x1b[31m\x7f.jpg",
        "caf\x1ae9\x1a1a.jpg",
    ],
)
def test_odd_keys_that_are_safe(key: str):
    assert verdict(key) == ("", "", "")


parts = st.text(st.sampled_from("a./\\é\n\x7f日.\0"), max_size=12)


@given(parts, st.booleans())
@example("", True)
def test_classify_agrees_with_plain_python(stem: str, local: bool):
    key = stem + ".png"
    names = key.split("/")
    unsafe = names[0] == "" or not {".", ".."}.isdisjoint(names) or "\0" in key or (local and "" in names)
    status, reason, message = verdict(key, local=local)
    assert (status, reason) == ((FAILED, "unsafe_key") if unsafe else ("", ""))
    assert bool(message) == unsafe


def test_classify_keeps_the_rows_in_order():
    keys = ["a.jpg", "b.txt", "../c.jpg", "d.png"]
    result = classify(batch_of(keys), SUFFIXES, local_destination=True)
    assert result.schema == LISTED
    assert result.column("key").to_pylist() == keys
    assert result.column("status").to_pylist() == ["", SKIPPED, FAILED, ""]
    assert set(result.column("reason").to_pylist()) - {""} <= set(REASONS)
    assert classify(batch_of([]), SUFFIXES, local_destination=True).num_rows == 0
