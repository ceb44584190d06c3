"""Which images a nightly run takes: those that no run has consumed, drawn by the date, up to its limits."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from imgtx.errors import StorageError, UsageError
from jobs.nightly.images import SEEN, Choice, choose, consumed, fetch_cuts, local_folder, mark_consumed
from pipeline.storage.store import Store, open_store
from tests.support.zoo import photo, saved


@pytest.fixture
def archive(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path / "archive"))
    for number in range(10):
        store.write(f"{number % 2}/{number}.png", saved(photo(40, 40 + number)))
    store.write("0/notes.txt", b"no image")
    return store


@pytest.fixture
def state(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "state"))


def keys(rows: pa.Table) -> list[str]:
    return rows["key"].to_pylist()


def night(
    archive: Store, state: Store, day: int, *, max_new_images: int = 4, replay_images: int = 2
) -> Choice:
    choice = choose(
        archive, state, f"2026-11-{day}", max_new_images=max_new_images, replay_images=replay_images
    )
    mark_consumed(state, f"2026-11-{day}", choice.rows)
    return choice


def test_successive_runs_consume_all_new_images(archive: Store, state: Store):
    nights = [night(archive, state, day) for day in (21, 22, 23, 24)]
    assert [choice.found_new for choice in nights] == [10, 6, 2, 0]
    taken = [keys(choice.new) for choice in nights]
    assert [len(found) for found in taken] == [4, 4, 2, 0]
    assert len({key for found in taken for key in found}) == 10
    assert [choice.replayed.num_rows for choice in nights] == [0, 2, 2, 2]
    assert {*keys(nights[1].replayed)} <= {*taken[0]}
    assert {*keys(nights[2].replayed)} <= {*taken[0], *taken[1]}


def test_the_selection_depends_on_the_date_and_is_repeatable(archive: Store, state: Store):
    first = night(archive, state, 21)
    assert night(archive, state, 21).rows.equals(first.rows)
    other = choose(archive, state, "2026-11-22", max_new_images=6, replay_images=0)
    assert not {*keys(other.new)} & {*keys(first.new)}


def test_changed_images_are_new_and_deleted_ones_are_not_replayed(archive: Store, state: Store):
    night(archive, state, 21, max_new_images=10)
    archive.write("0/0.png", saved(photo(50, 50)))
    archive.delete("1/1.png")
    choice = night(archive, state, 22, replay_images=10)
    assert keys(choice.new) == ["0/0.png"]
    assert sorted(keys(choice.replayed)) == sorted({f"{n % 2}/{n}.png" for n in range(2, 10)})


def test_a_consumed_row_counts_once(state: Store):
    rows = pa.table({"key": ["a", "b"], "version": ["1", "1"]}, SEEN)
    mark_consumed(state, "2026-11-21", rows)
    mark_consumed(state, "2026-11-22", rows.slice(0, 1))
    assert sorted(keys(consumed(state, but="2026-11-23"))) == ["a", "b"]
    assert keys(consumed(state, but="2026-11-21")) == ["a"]


def test_crops_are_bounded_repeatable_and_fetched_once(
    archive: Store, state: Store, tmp_path: Path, monkeypatch
):
    rows = night(archive, state, 21, max_new_images=10).rows
    assert not fetch_cuts(archive, rows, tmp_path / "one", smallest=32, largest=36)
    assert not fetch_cuts(archive, rows, tmp_path / "two", smallest=32, largest=36)
    for number in range(10):
        one = np.asarray(Image.open(tmp_path / "one" / f"{number:06d}.png"))
        assert one.shape == (36, 36, 3)
        assert np.array_equal(one, np.asarray(Image.open(tmp_path / "two" / f"{number:06d}.png")))
    monkeypatch.setattr(Store, "read", lambda *_, **__: pytest.fail("fetched again"))
    fetch_cuts(archive, rows, tmp_path / "one", smallest=32, largest=36)


def test_unusable_images_are_counted_by_reason(archive: Store, state: Store, tmp_path: Path):
    rows = night(archive, state, 21, max_new_images=10).rows
    archive.write("0/0.png", saved(photo(60, 60)))
    archive.delete("1/1.png")
    left_out = fetch_cuts(archive, rows, tmp_path / "cuts", smallest=41, largest=64)
    assert left_out == {"changed": 1, "not_found": 1, "too_small": 8}


def test_unreachable_storage_stops_the_run(archive: Store, state: Store, tmp_path: Path, monkeypatch):
    def away(*_, **__):
        raise StorageError("storage", "away", transient=True)

    rows = night(archive, state, 21).rows
    monkeypatch.setattr(Store, "read", away)
    with pytest.raises(StorageError, match="away"):
        fetch_cuts(archive, rows, tmp_path / "cuts", smallest=8, largest=64)


def test_photos_in_storage_are_copied_under_their_own_names(tmp_path: Path):
    store = open_store("memory://night-data/photos/set7/")
    with pytest.raises(UsageError, match="holds no image"):
        local_folder(store.uri, tmp_path, None)
    store.write("sub/a.png", b"first")
    store.write("notes.txt", b"no image")
    folder = local_folder(store.uri, tmp_path, None)
    assert folder == tmp_path / "set7"
    assert [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()] == ["sub/a.png"]
    store.write("sub/a.png", b"longer")
    assert (local_folder(store.uri, tmp_path, None) / "sub" / "a.png").read_bytes() == b"longer"
    assert local_folder(str(tmp_path), tmp_path / "unused", None) == tmp_path


def test_a_key_that_escapes_the_folder_is_not_copied(tmp_path: Path):
    store = open_store("memory://night-data/hostile/")
    store.write("../outside.png", b"x")
    store.write("a.png", b"x")
    folder = local_folder(store.uri, tmp_path / "deep", None)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [folder / "a.png"]
