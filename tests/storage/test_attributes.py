"""Time and permissions of local outputs: kept where they can be, and never more public than their source."""

import os
from pathlib import Path

import pytest

from pipeline.storage.attributes import PLAIN, PRIVATE, Attributes, attributes_of
from pipeline.storage.store import Store, open_store

MODIFIED = 1_400_000_000_987_654_321
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to groups that it is not in")


@pytest.fixture(autouse=True)
def usual_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """Return a source file in two folders of its own, open to all, and a destination."""
    source = tmp_path / "source" / "below" / "a.jpg"
    source.parent.mkdir(parents=True)
    source.write_bytes(b"source")
    source.chmod(0o644)
    os.utime(source, ns=(MODIFIED, MODIFIED))
    return source, tmp_path / "out"


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def written(
    places: tuple[Path, Path], *, times: bool = True, data: bytes = b"output", upload: bool = False
) -> Path:
    """Write an output with what it takes over of its source, and return its path."""
    source, out = places
    store, attributes = open_store(str(out)), attributes_of(str(source), str(out), times=times)
    if upload:
        spooled = source.parent.parent / "spooled"
        spooled.write_bytes(data)
        store.upload("below/a.png", str(spooled), attributes)
    else:
        store.write("below/a.png", memoryview(data), attributes)
    return out / "below" / "a.png"


@pytest.mark.parametrize("upload", [False, True])
def test_the_time_is_kept_to_the_millisecond(places, upload):
    made = written(places, upload=upload)
    assert made.read_bytes() == b"output"
    assert made.stat().st_mtime_ns // 10**6 == MODIFIED // 10**6
    assert written(places, times=False, upload=upload).stat().st_mtime > 1_600_000_000


def test_another_output_of_the_same_source_and_size_has_another_version(places):
    store, versions = open_store(str(places[1])), set()
    for data, upload in ((b"one", False), (b"two", False), (b"one", True)):
        written(places, data=data, upload=upload)
        found = store.stat("below/a.png")
        assert found
        versions.add(found[1])
    assert len(versions) == 2


@pytest.mark.parametrize("upload", [False, True])
@pytest.mark.parametrize(
    ("source", "output"),
    [
        (0o644, 0o644),
        (0o640, 0o640),
        (0o600, 0o600),
        (0o444, 0o644),
        (0o400, 0o600),
        (0o666, 0o644),
        (0o604, 0o600),
    ],
)
def test_no_more_people_may_read_an_output_than_its_source(places, source, output, upload):
    places[0].chmod(source)
    assert mode_of(written(places, upload=upload)) == output


@pytest.mark.parametrize(
    ("folder", "output"), [(0o755, 0o644), (0o700, 0o600), (0o750, 0o640), (0o711, 0o644)]
)
@pytest.mark.parametrize("level", [0, 1])
def test_folders_that_keep_people_out_count(places, folder, output, level):
    places[0].parents[level].chmod(folder)
    assert mode_of(written(places)) == output


def test_folders_that_both_are_in_do_not_count(places):
    places[0].parents[2].chmod(0o700)
    assert mode_of(written(places)) == 0o644


def test_a_link_counts_as_what_it_points_to(places, tmp_path):
    hidden = tmp_path / "hidden" / "b.jpg"
    hidden.parent.mkdir(mode=0o700)
    hidden.write_bytes(b"hidden")
    places[0].unlink()
    places[0].symlink_to(hidden)
    assert mode_of(written(places)) == 0o600


def test_a_stricter_umask_stays(places):
    os.umask(0o077)
    assert mode_of(written(places)) == 0o600


def test_an_existing_output_is_replaced_with_the_new_permissions(places):
    assert mode_of(written(places)) == 0o644
    places[0].chmod(0o600)
    assert mode_of(written(places)) == 0o600


def test_a_source_that_is_gone_leaves_a_private_output(places):
    places[0].unlink()
    assert attributes_of(str(places[0]), str(places[1]), times=True) == PRIVATE
    assert mode_of(written(places)) == 0o600


@as_root
def test_the_group_that_may_read_goes_with_the_file(places):
    os.chown(places[0], -1, 54_321)
    places[0].chmod(0o640)
    made = written(places)
    assert (made.stat().st_gid, mode_of(made)) == (54_321, 0o640)


def test_a_group_that_this_user_is_not_in_cannot_read(places, monkeypatch):
    def refused(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refused)
    store = open_store(str(places[1]))
    for shared, mode in (((True, False), 0o600), ((True, True), 0o604)):
        store.write("a.png", b"output", Attributes(None, shared, 54_321))
        assert mode_of(places[1] / "a.png") == mode


def test_an_access_list_counts_as_its_narrowest_meaning(places, monkeypatch):
    places[0].chmod(0o640)
    monkeypatch.setattr(os, "listxattr", lambda path: ["system.posix_acl_access"], raising=False)
    assert mode_of(written(places)) == 0o600


def test_nothing_is_taken_over_unasked(tmp_path):
    open_store(str(tmp_path)).write("a.png", b"output")
    assert mode_of(tmp_path / "a.png") == 0o644
    assert PLAIN.mode == 0o666


def test_objects_elsewhere_have_neither(store: Store):
    store.write("a", b"output", Attributes(MODIFIED, (False, False)))
    assert store.read("a") == b"output"
