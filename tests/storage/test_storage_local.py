"""Failures that only a disk has."""

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgtx.errors import StorageError, UsageError
from pipeline.storage import local as storage_local
from pipeline.storage.checks import check_destination, check_source, same_or_inside
from pipeline.storage.objects import TEMPORARY
from pipeline.storage.store import Store, open_store
from tests.storage.test_storage import listed


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def store(root: Path) -> Store:
    return open_store(str(root))


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Run as the user nobody: root has all permissions, so a test of permissions must not run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that the user `nobody` can reach; pytest's own is private."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def test_a_failed_write_leaves_the_old_object_and_no_temporary_file(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
):
    store.write("a/k", b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage_local.os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        store.write("a/k", b"new")
    assert store.read("a/k") == b"old"
    assert os.listdir(root / "a") == ["k"]


def test_bytes_are_synced_before_the_rename(store: Store, monkeypatch: pytest.MonkeyPatch):
    steps: list[str] = []
    sync, rename = os.fsync, os.replace

    def watched_sync(descriptor: int) -> None:
        steps.append("sync file" if stat.S_ISREG(os.fstat(descriptor).st_mode) else "sync folder")
        sync(descriptor)

    def watched_rename(source: str, target: str) -> None:
        steps.append("name")
        rename(source, target)

    store.write("folder/made", b"before")
    monkeypatch.setattr(storage_local.os, "fsync", watched_sync)
    monkeypatch.setattr(storage_local.os, "replace", watched_rename)
    store.write("folder/k", b"1")
    assert steps == ["sync file", "name", "sync folder"]


def test_sweep_removes_only_temporary_files_of_its_prefix(store: Store, root: Path):
    store.write("images/a/kept.jpg", b"1")
    ours, foreign = root / "images/a" / f"{TEMPORARY}half", root / "other" / f"{TEMPORARY}half"
    foreign.parent.mkdir()
    for path in (ours, foreign):
        path.write_bytes(b"half")
    assert store.sweep("images/") == 1
    assert not ours.exists()
    # This file belongs to a run on a destination inside this one.
    assert foreign.exists()
    assert store.sweep("nothing/yet/") == 0
    assert set(listed(store)) == {"images/a/kept.jpg"}


@pytest.mark.parametrize("key", ["../outside", "a/../../outside", "/etc/passwd", "a//b", "", "a/./b", "a\0b"])
def test_a_key_cannot_escape_the_root(store: Store, key: str):
    for ask in (store.read, store.stat, store.delete, lambda key: store.write(key, b"1")):
        with pytest.raises(StorageError) as caught:
            ask(key)
        assert caught.value.reason == "unsafe_key"


def test_a_file_in_place_of_a_folder_is_an_error(store: Store):
    store.write("a", b"1")
    with pytest.raises(StorageError, match="there is a file where a folder is needed"):
        store.write("a/b", b"1")
    with pytest.raises(StorageError) as caught:
        store.create("a/b", b"1")
    assert caught.value.reason == "storage"


def test_links_are_followed_but_cycles_are_not(store: Store, root: Path, tmp_path: Path):
    store.write("2019/a.jpg", b"1")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "b.jpg").write_bytes(b"22")
    (root / "linked").symlink_to(elsewhere)
    (root / "2019" / "up").symlink_to(root)
    (root / "2019" / "self").symlink_to(root / "2019")
    (root / "file.jpg").symlink_to(elsewhere / "b.jpg")
    assert {key: size for key, (size, _) in listed(store).items()} == {
        "2019/a.jpg": 1,
        "linked/b.jpg": 2,
        "file.jpg": 2,
    }


def test_dangling_links_are_listed_and_pipes_are_not(store: Store, root: Path):
    store.write("a.jpg", b"1")
    (root / "dangling.jpg").symlink_to("nowhere")
    (root / "ouroboros.jpg").symlink_to("ouroboros.jpg")
    os.mkfifo(root / "pipe.jpg")
    rows = listed(store)
    assert set(rows) == {"a.jpg", "dangling.jpg", "ouroboros.jpg"}
    assert rows["dangling.jpg"] == (0, "")
    with pytest.raises(StorageError) as caught:
        store.read("dangling.jpg")
    assert caught.value.reason == "not_found"
    (root / "two").symlink_to("three")
    (root / "three").symlink_to("two")
    for key, loop in (("ouroboros.jpg", "ouroboros.jpg -> ouroboros.jpg"), ("two/a.jpg", "two -> three")):
        with pytest.raises(StorageError, match=rf"/{loop} must lead to a file or folder: change"):
            store.read(key)


NOT_UTF8 = {
    b"caf\xe9.jpg": "caf\x1ae9.jpg",
    b"\xff\xfe/\x80.jpg": "\x1aff\x1afe/\x1a80.jpg",
    b"mark\x1a.jpg": "mark\x1a1a.jpg",
    b"new\nline\r.jpg": "new\nline\r.jpg",
    b"\x1a1ae9.jpg": "\x1a1a1ae9.jpg",
    "é\u20ac.jpg".encode(): "é\u20ac.jpg",
}


def test_names_that_are_not_utf8_have_keys_and_keep_their_bytes(store: Store, root: Path, tmp_path: Path):
    for name, key in NOT_UTF8.items():
        path = Path(os.fsdecode(os.fsencode(root) + b"/" + name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name)
        assert store.read(key) == name
        assert store.stat(key) == listed(store, key)[key]
    assert set(listed(store)) == {*NOT_UTF8.values()}
    out = open_store(str(tmp_path / "out"))
    for key in NOT_UTF8.values():
        out.write(key, store.read(key))
    names = {path for path in Path(out.uri).rglob("*") if path.is_file()}
    assert {os.fsencode(path.relative_to(out.uri)) for path in names} == {*NOT_UTF8}


def test_errors_about_such_names_are_valid_text(store: Store, root: Path):
    store.write("caf\x1ae9.jpg", b"1")
    with pytest.raises(StorageError) as caught:
        store.read("caf\x1ae9.jpg", version="other")
    str(caught.value).encode()
    with pytest.raises(StorageError) as caught:
        store.read("caf\x1aea.jpg")
    str(caught.value).encode()


def test_a_name_that_the_file_system_refuses_costs_one_image(store: Store, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.EILSEQ, "Illegal byte sequence")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StorageError, match="does not take every name") as caught:
        store.write("caf\x1ae9.jpg", b"1")
    assert caught.value.reason == "unsafe_key"


def test_many_files_come_in_batches(store: Store, root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(storage_local, "_BATCH", 10)
    for folder in "abc":
        (root / folder).mkdir(parents=True)
        for number in range(8):
            (root / folder / str(number)).touch()
    assert [batch.num_rows for batch in store.list()] == [10, 10, 4]
    assert len(listed(store)) == 24


def test_an_unreadable_folder_is_never_skipped(public: Path):
    store = open_store(str(public))
    store.write("open/a.jpg", b"1")
    store.write("closed/b.jpg", b"1")
    os.chmod(public / "closed", 0)
    with as_nobody(), pytest.raises(StorageError, match=f"{public}/closed") as caught:
        listed(store)
    os.chmod(public / "closed", 0o755)
    assert caught.value.reason == "forbidden"


def test_an_unreadable_file_is_forbidden(public: Path):
    store = open_store(str(public))
    store.write("b.jpg", b"1")
    os.chmod(public / "b.jpg", 0)
    with as_nobody(), pytest.raises(StorageError) as caught:
        store.read("b.jpg")
    assert caught.value.reason == "forbidden"


def test_preflight_names_a_read_only_destination(public: Path):
    with as_nobody(), pytest.raises(UsageError, match=r"destination.*Permission denied"):
        check_destination(open_store(str(public / "new")))


def test_preflight_names_a_missing_source(tmp_path: Path):
    with pytest.raises(UsageError, match=r"source.*missing"):
        check_source(open_store(str(tmp_path / "missing")))
    with pytest.raises(StorageError, match="missing"):
        listed(open_store(str(tmp_path / "missing")))


def test_preflight_refuses_files(tmp_path: Path):
    (tmp_path / "a.jpg").touch()
    for check in (check_source, check_destination):
        with pytest.raises(UsageError, match="is a file"):
            check(open_store(str(tmp_path / "a.jpg")))


def test_a_link_into_the_source_counts_as_inside(tmp_path: Path):
    (tmp_path / "real" / "photos").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert same_or_inside(
        open_store(str(tmp_path / "real")), open_store(str(tmp_path / "link/photos/new/out"))
    )
    assert not same_or_inside(open_store(str(tmp_path / "real/photos")), open_store(str(tmp_path / "link")))


def test_a_relative_path_is_bound_when_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    store = open_store("photos")
    store.write("k", b"1")
    monkeypatch.chdir("/")
    assert store.read("k") == b"1"
