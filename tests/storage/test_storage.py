"""The guarantees of every Store, on every back end."""

import pickle
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imgtx.errors import StorageError, UsageError
from pipeline.storage.checks import check_apart, check_destination, check_source, same_or_inside
from pipeline.storage.objects import TEMPORARY
from pipeline.storage.store import Store, open_store
from pipeline.tables.schemas import INVENTORY

ODD_KEYS = [
    "a b.jpg",
    "100%.jpg",
    "100%25.jpg",
    "%2e%2e.jpg",
    "a#b.jpg",
    "a?b=c&d.jpg",
    "a?versionId=7.jpg",
    "a+b=c;d,e@f$g.jpg",
    "quote'\"`.jpg",
    "back\\slash.jpg",
    "[ab]*{c}.jpg",
    "tilde~^!|<>.jpg",
    " leading and trailing ",
    ".hidden.jpg",
    "..dots..jpg",
    "2019/12.31/deep/er/x.jpg",
    "日本語/写真.jpg",
    "emoji 📷.jpg",
    unicodedata.normalize("NFC", "café.jpg"),
    unicodedata.normalize("NFD", "café.jpg"),
    # No newline: moto's routes do not match it.
    "tab\t.jpg",
    "esc\x1b[31m\x07.jpg",
    "del\x7f.jpg",
    "\u202egnp.jpg",
    "A.jpg",
    "a.jpg",
    "x" * 251 + ".jpg",
]


def listed(store: Store, prefix: str = "") -> dict[str, tuple[int, str]]:
    rows: dict[str, tuple[int, str]] = {}
    for batch in store.list(prefix):
        assert batch.schema == INVENTORY
        for row in batch.to_pylist():
            assert row["key"] not in rows, "listed twice"
            rows[row["key"]] = (row["size"], row["version"])
    return rows


def test_written_bytes_are_read_back(store: Store):
    store.write("a/b.bin", b"\x00\xff data")
    assert store.read("a/b.bin") == b"\x00\xff data"


def test_write_accepts_a_memoryview(store: Store):
    store.write("view", memoryview(b"0123456789")[2:5])
    assert store.read("view") == b"234"


def test_write_replaces_the_whole_object(store: Store):
    store.write("k", b"a long first content")
    store.write("k", b"short")
    assert store.read("k") == b"short"


def test_an_empty_object_round_trips(store: Store, tmp_path: Path):
    store.write("empty", b"")
    assert store.read("empty") == b""
    assert store.stat("empty")[0] == 0
    (tmp_path / "nothing").touch()
    store.upload("empty too", str(tmp_path / "nothing"))
    assert store.read("empty too") == b""


@pytest.mark.parametrize("ask", ["read", "download"])
def test_a_missing_object_is_not_found(store: Store, tmp_path: Path, ask: str):
    store.write("other", b"1")
    arguments = ["missing/key.jpg"] if ask == "read" else ["missing/key.jpg", str(tmp_path / "target")]
    with pytest.raises(StorageError, match=r"missing/key\.jpg") as caught:
        getattr(store, ask)(*arguments)
    assert caught.value.reason == "not_found"
    assert not caught.value.transient


def test_stat_gives_size_and_version(store: Store):
    assert store.stat("k") is None
    store.write("k/below", b"123")
    assert store.stat("k") is None, "a folder is no object"
    size, version = store.stat("k/below")
    assert size == 3
    assert version


def test_version_changes_with_content_and_only_then(store: Store):
    store.write("k", b"one")
    first = store.stat("k")
    assert store.stat("k") == first
    assert listed(store)["k"] == first
    store.write("k", b"two")
    assert store.stat("k") != first
    assert listed(store)["k"] == store.stat("k")


@pytest.mark.parametrize("ask", ["read", "download"])
def test_listed_versions_equal_those_of_reads(store: Store, tmp_path: Path, ask: str):
    def get(version: str) -> bytes:
        if ask == "read":
            return store.read("k", version=version)
        store.download("k", str(tmp_path / "target"), version=version)
        return (tmp_path / "target").read_bytes()

    store.write("k", b"one")
    _, first = listed(store)["k"]
    assert get(first) == get("") == b"one"
    store.write("k", b"two!")
    if store.uri.startswith("memory://"):
        # fsspec's answer to a read does not contain the version.
        return
    with pytest.raises(StorageError, match="changed after it was listed") as caught:
        get(first)
    assert caught.value.reason == "changed"
    assert not caught.value.transient


def test_a_deleted_object_is_gone(store: Store):
    store.write("a/k", b"1")
    store.delete("a/k")
    assert store.stat("a/k") is None
    store.delete("a/k")
    store.delete("never/was")


def test_odd_keys_round_trip(store: Store):
    for number, key in enumerate(ODD_KEYS):
        store.write(key, str(number).encode())
    assert {key: size for key, (size, _) in listed(store).items()} == {
        key: len(str(number)) for number, key in enumerate(ODD_KEYS)
    }
    for number, key in enumerate(ODD_KEYS):
        assert store.read(key) == str(number).encode()
        assert store.stat(key) == listed(store, key)[key]


def test_objects_are_listed_by_prefix(store: Store):
    for key in ("lease/1", "lease/2", "leaser/3", "lea", "images/a/b.png", "images/a.png"):
        store.write(key, b"1")
    assert set(listed(store, "lease/")) == {"lease/1", "lease/2"}
    assert set(listed(store, "lease")) == {"lease/1", "lease/2", "leaser/3"}
    assert set(listed(store, "images/a")) == {"images/a/b.png", "images/a.png"}
    assert listed(store, "nowhere/at/all/") == {}
    assert len(listed(store)) == 6


def test_list_stays_inside_the_root(store: Store):
    open_store(f"{store.uri.rstrip('/')}2").write("neighbour", b"1")
    store.write("own", b"1")
    assert set(listed(store)) == {"own"}


def test_list_omits_temporary_names(store: Store):
    store.write("a/kept.jpg", b"1")
    store.write(f"a/{TEMPORARY}0", b"1")
    assert set(listed(store)) == {"a/kept.jpg"}


def test_files_are_uploaded_and_downloaded(store: Store, tmp_path: Path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(bytes(range(256)) * 5000)
    store.upload("big/file", str(source))
    assert source.exists()
    store.download("big/file", str(target))
    assert target.read_bytes() == source.read_bytes()
    assert store.stat("big/file")[0] == 1_280_000


def test_an_object_is_created_only_once(store: Store):
    assert store.create("c/k", b"first")
    assert not store.create("c/k", b"second")
    assert store.read("c/k") == b"first"
    store.delete("c/k")
    assert store.create("c/k", b"third")


def test_one_of_16_racers_creates_the_object(store: Store):
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda n: store.create("race", b"%d" % n), range(16)))
    assert won.count(True) == 1
    assert store.read("race") == b"%d" % won.index(True)


def test_a_store_can_be_pickled_without_secrets(store: Store):
    store.write("k", b"1")
    message = pickle.dumps(store)
    assert b"testing" not in message
    assert pickle.loads(message) == store
    assert pickle.loads(message).read("k") == b"1"
    assert len(message) < 1000


def test_preflight_accepts_a_writable_destination(store: Store, caplog: pytest.LogCaptureFixture):
    check_destination(store)
    check_source(store)
    assert listed(store) == {}
    assert not caplog.records


def test_overlapping_source_and_destination_are_refused(store: Store):
    root = store.uri.rstrip("/")
    inside = open_store(f"{root}/out")
    beside = open_store(f"{root}-out")
    assert same_or_inside(store, store)
    assert same_or_inside(store, inside)
    assert not same_or_inside(inside, store)
    assert not same_or_inside(store, beside)
    check_apart(store, beside)
    check_apart(inside, store)
    for source, destination in [
        (store, store),
        (store, inside),
        (open_store(f"{root}/images/2019"), store),
    ]:
        with pytest.raises(UsageError):
            check_apart(source, destination)


def test_different_back_ends_never_overlap(store: Store, tmp_path: Path):
    check_apart(store, open_store(str(tmp_path / "elsewhere")))
    check_apart(store, open_store("memory://elsewhere"))


@pytest.mark.parametrize(
    ("uri", "endpoint", "word"),
    [
        ("", None, "empty"),
        ("s3://", None, "bucket"),
        ("s3:///key", None, "bucket"),
        ("s3://key:secret@bucket/a", None, "credentials"),
        ("nonsense://a", None, "nonsense"),
        ("s3://bucket", "localhost:9000", "http"),
        ("s3://bucket", "http://user:pass@host", "credentials"),
        ("s3://bucket", "http://host/?key=secret", "without anything after"),
        ("s3://bucket", "http://host/#secret", "without anything after"),
        ("https://host/in?sig=secret", None, "has a query"),
    ],
)
def test_a_uri_that_can_never_work_is_a_usage_error(uri: str, endpoint: str | None, word: str):
    with pytest.raises(UsageError, match=word) as caught:
        open_store(uri, endpoint_url=endpoint)
    assert "secret" not in str(caught.value)
    assert "pass" not in str(caught.value)
    assert "\n" not in str(caught.value)
