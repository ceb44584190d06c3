"""Streamed crops: every image once per epoch, for any number of workers; unusable images are replaced."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from imgtx.degradations.archive import ARCHIVE
from imgtx.errors import LeaseHeldError, StorageError, UsageError
from imgtx.models.weight_file import find_weights
from imgtx.training.data import crops
from imgtx.training.data.crops import Batch, CropSettings
from imgtx.training.data.left_out import LeftOut
from imgtx.training.spec import TrainSpec
from jobs.train import stream
from jobs.train.images import TRAIN, VALID, decode_keys, encode_keys, load_valid, part_of
from jobs.train.ray import (
    RayTrainConfig,
    check_ray_config,
    check_resources,
    read_ray_config,
    train_on_ray,
)
from jobs.train.start import prepare, record
from jobs.train.stream import Cache, Images, Shard, Stream
from pipeline.ledger.lease import Lease
from pipeline.storage.store import Store, open_store
from tests.support.zoo import photo, saved

CROPS = 3
ALONE = Shard()


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """Return a store of eleven images of one colour each, so that a crop identifies its image."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(11):
        (folder / f"{number:02}.png").write_bytes(saved(np.full((32, 40, 3), number, np.uint8)))
    return open_store(str(folder))


def keys_of(store: Store) -> pa.Array:
    return pa.array(sorted(path.name for path in Path(store.uri).iterdir()))


def streamed(store: Store, *, batch: int = 4, shard: Shard = ALONE, **settings) -> Stream:
    images = Images(store, keys_of(store), 2)
    return Stream(images, CropSettings(8, **settings), seed=5, batch=batch, crops=CROPS, shard=shard)


def begin(spec: TrainSpec, root: Store) -> None:
    record(prepare(spec, root, None), spec, root, None)


def same(one: Batch, other: Batch) -> bool:
    return (
        one.keys == other.keys
        and np.array_equal(one.small, other.small)
        and np.array_equal(one.clean, other.clean)
    )


def test_a_batch_depends_on_its_step_alone(store):
    whole = streamed(store)
    batches = [whole.batch(step) for step in range(40)]
    for start in (0, 7, 39):
        assert same(streamed(store).batch(start), batches[start])
    assert not same(batches[0], batches[1])


def test_every_image_occurs_once_per_epoch_and_epochs_differ(store):
    """Eleven images, batches of 4: epochs end within batches and blocks."""
    feed = streamed(store)
    # Eleven blocks: 176 visits, 16 epochs.
    steps = 11 * stream.ROTATION * CROPS
    keys = [key for step in range(steps) for key in feed.batch(step).keys]
    assert Counter(keys) == dict.fromkeys(keys_of(store).to_pylist(), 16 * CROPS)
    orders = [tuple(feed._permutation(epoch)) for epoch in range(4)]
    assert len(set(orders)) == 4


def test_crops_show_the_images_of_their_keys(store):
    batch = streamed(store).batch(3)
    assert batch.small.shape == (4, 8, 8, 3)
    assert [f"{pixels[0, 0, 0]:02}.png" for pixels in batch.clean] == list(batch.keys)


def test_neighbouring_batches_share_no_image(store):
    feed = streamed(store, batch=2)
    groups = [set(feed.batch(step).keys) for step in range(stream.ROTATION)]
    assert len(set.union(*groups)) == 2 * stream.ROTATION


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_workers_together_read_the_batches_of_one(store, workers):
    whole = streamed(store)
    parts = [streamed(store, shard=Shard(rank, workers)) for rank in range(workers)]
    for step in (0, 5, 12, 30):
        batches = [part.batch(step) for part in parts]
        joined = Batch(
            sum((b.keys for b in batches), ()),
            np.concatenate([b.small for b in batches]),
            np.concatenate([b.clean for b in batches]),
        )
        assert same(joined, whole.batch(step))


def test_each_visit_draws_a_new_crop(tmp_path):
    (tmp_path / "a.png").write_bytes(saved(photo(64, 64)))
    feed = streamed(open_store(str(tmp_path)), batch=1)
    crops = {feed.batch(step).clean.tobytes() for step in range(24)}
    assert len(crops) > 20


def test_unusable_images_are_replaced_by_the_next_and_counted(store, tmp_path):
    for path in Path(store.uri).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "03.png").write_bytes(b"no image")
    (tmp_path / "07.png").write_bytes(saved(np.zeros((8, 8, 3), np.uint8)))
    feed = streamed(open_store(str(tmp_path)))
    # Gone since they were listed.
    (tmp_path / "05.png").unlink()
    keys = Counter(key for step in range(36) for key in feed.batch(step).keys)
    assert keys.keys() == set(keys_of(store).to_pylist()) - {"03.png", "05.png", "07.png"}
    summary = feed._left_out.summary()
    assert all(part in summary for part in ("1 not an image", "1 too small", "1 not found")), summary
    listed = Images(open_store(str(tmp_path)), keys_of(store), 2)
    again = Stream(listed, CropSettings(8), seed=5, batch=4, crops=CROPS, shard=ALONE)
    assert same(again.batch(9), feed.batch(9))


def test_an_image_that_is_left_out_is_read_once(store, tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"no image")
    (tmp_path / "b.png").write_bytes(saved(photo(40, 40)))
    read, asked = Store.read, []

    def counted(self: Store, key: str, **options) -> bytes:
        asked.append(key)
        return read(self, key, **options)

    monkeypatch.setattr(Store, "read", counted)
    feed = streamed(open_store(str(tmp_path)))
    for step in range(60):
        feed.batch(step)
    # Two threads may ask at once.
    assert 1 <= asked.count("a.png") <= 2


def test_no_usable_image_is_an_error_also_where_all_are_gone(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    feed = streamed(open_store(str(tmp_path)))
    with pytest.raises(UsageError, match=r"none of the 1 images of .* can be used at crop = 8"):
        feed.batch(0)
    (tmp_path / "a.png").unlink()
    images = Images(open_store(str(tmp_path)), pa.array(["a.png"]), 2)
    with pytest.raises(UsageError, match="1 not found; cannot read"):
        Stream(images, CropSettings(8), seed=0, batch=1, crops=1, shard=Shard()).batch(0)


def test_storage_that_fails_is_no_missing_image(store, monkeypatch):
    def failing(self: Store, key: str, **options) -> bytes:
        raise StorageError("storage", "cannot read: the server failed", transient=True)

    monkeypatch.setattr(Store, "read", failing)
    with pytest.raises(StorageError):
        streamed(store).batch(0)


def test_each_visit_reads_one_window_of_a_large_image(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "WINDOW", 32)
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (40, 200, 3))
    (tmp_path / "a.png").write_bytes(saved(np.ascontiguousarray(ramp)))
    feed = streamed(open_store(str(tmp_path)), batch=1, choice="uniform")
    visits = [{int(feed.batch(step).clean.min()) for step in range(s, s + 12, 4)} for s in range(0, 48, 12)]
    spans = [max(visit) - min(visit) for visit in visits]
    # All crops of one visit come from one window.
    assert max(spans) <= 32
    assert max(max(v) for v in visits) - min(min(v) for v in visits) > 32


def test_the_cache_keeps_images_up_to_its_size(store):
    feed = streamed(store)
    (pair, _) = feed._open(0)
    small = Cache(3 * stream._bytes_of(pair))
    for number in range(5):
        small.put(str(number), pair)
    assert [number for number in range(5) if small.get(str(number))] == [2, 3, 4]


def test_dead_leaves_and_damage_are_streamed(store, monkeypatch):
    monkeypatch.setattr(crops, "LEAVES_SIDE", 32)
    feed = streamed(store, procedural_share=0.5, degradation=ARCHIVE)
    keys = [key for step in range(6) for key in feed.batch(step).keys]
    assert 3 < sum(key.startswith("dead leaves") for key in keys) < 21
    again = streamed(store, procedural_share=0.5, degradation=ARCHIVE)
    assert same(again.batch(5), feed.batch(5))


class TestBeforeRayStarts:
    """Checks before Ray starts: a mistake ends in one line, and a training keeps its initial files."""

    @pytest.fixture
    def spec(self, store) -> TrainSpec:
        return TrainSpec("tiny", store.uri, store.uri, steps=10, batch=4, crop=8, valid_images=3)

    def test_images_can_be_listed_from_an_inventory(self, store, spec, tmp_path):
        (Path(store.uri) / "notes.txt").write_text("no image")
        listed = prepare(spec, open_store(str(tmp_path)), None).images
        (Path(store.uri) / "notes.txt").unlink()
        assert not list(tmp_path.iterdir())
        assert part_of(listed, TRAIN).to_pylist() == keys_of(store).to_pylist()
        assert part_of(listed, VALID).to_pylist() == ["00.png", "01.png", "02.png"]
        assert decode_keys(encode_keys(listed)).equals(listed)
        assert [pair.key for pair in load_valid(store, ["01.png"], 2)] == ["01.png"]

    def test_a_training_keeps_its_initial_list_of_images(self, store, spec, tmp_path):
        root = open_store(str(tmp_path / "out" / "tiny"))
        begin(spec, root)
        first = root.read("keys.parquet")
        (Path(store.uri) / "zz.png").write_bytes(saved(photo(40, 40)))
        try:
            begin(spec, root)
            assert root.read("keys.parquet") == first
        finally:
            (Path(store.uri) / "zz.png").unlink()
        begin(replace(spec, steps=20), root)
        with pytest.raises(UsageError, match=r"began with crop = 8, now 16"):
            begin(replace(spec, crop=16), root)
        with pytest.raises(UsageError, match=r"began with model = .*'dim': 48"):
            begin(replace(spec, model={"dim": 48}), root)

    def test_other_places_are_listed_and_a_list_of_which_nothing_is_left(self, store, spec, tmp_path):
        root = open_store(str(tmp_path / "out" / "tiny"))
        begin(spec, root)
        other = tmp_path / "other"
        other.mkdir()
        (other / "new.png").write_bytes(saved(photo(40, 40)))
        begin(replace(spec, train=str(other)), root)
        assert part_of(decode_keys(root.read("keys.parquet")), TRAIN).to_pylist() == ["new.png"]
        assert prepare(replace(spec, train=str(other)), root, None).images is None
        (other / "new.png").rename(other / "newer.png")
        begin(replace(spec, train=str(other)), root)
        assert part_of(decode_keys(root.read("keys.parquet")), TRAIN).to_pylist() == ["newer.png"]

    def test_unusable_validation_images_are_left_out_and_counted(self, store, spec, tmp_path, caplog):
        (tmp_path / "0.png").write_bytes(b"no image")
        for name in ("1.png", "2.png", "3.png", "4.png"):
            (tmp_path / name).write_bytes(saved(photo(40, 40)))
        start = prepare(replace(spec, valid=str(tmp_path)), open_store(str(tmp_path / "out")), None)
        assert part_of(start.images, VALID).to_pylist() == ["1.png", "2.png", "3.png"]
        assert len(start.left_out) == 1
        assert "left out 1 of 4 images of" in caplog.text
        (tmp_path / "2.png").unlink()
        left_out = LeftOut()
        pairs = load_valid(open_store(str(tmp_path)), ["1.png", "2.png"], 2, left_out)
        assert ([pair.key for pair in pairs], len(left_out)) == (["1.png"], 1)

    def test_a_start_with_unusable_images_only_is_refused_and_writes_nothing(self, store, spec, tmp_path):
        (tmp_path / "photos").mkdir()
        for number in range(30):
            # Whole headers: nothing but decoding tells.
            (tmp_path / "photos" / f"{number}.png").write_bytes(saved(photo(64, 64))[:400])
        bad = replace(spec, train=str(tmp_path / "photos"))
        with pytest.raises(UsageError, match=r"none of the 30 images of .* can be trained on: 30 truncated"):
            train_on_ray(bad, RayTrainConfig(2, str(tmp_path / "out")), tmp_path, print)
        assert not (tmp_path / "out").exists()
        (tmp_path / "photos" / "7.png").write_bytes(saved(photo(64, 64)))
        assert len(part_of(prepare(bad, open_store(str(tmp_path / "out")), None).images, TRAIN)) == 30

    def test_a_start_that_another_process_is_ahead_of_is_refused(self, spec, tmp_path):
        root = open_store(str(tmp_path / "out" / "tiny"))
        with (
            Lease(root, "train-tiny"),
            pytest.raises(LeaseHeldError, match=r"run train-tiny .* --force-unlock"),
        ):
            train_on_ray(spec, RayTrainConfig(2, str(tmp_path / "out")), tmp_path, print)

    def test_images_that_are_too_small_are_reported(self, spec, tmp_path):
        with pytest.raises(
            UsageError, match=r"none of the 11 images .*: 11 too small; .* needs 64 px a side"
        ):
            prepare(replace(spec, crop=32), open_store(str(tmp_path)), None)

    @pytest.mark.parametrize("part", ["train", "valid"])
    def test_a_source_without_images_is_reported(self, store, spec, tmp_path, part):
        with pytest.raises(UsageError, match=f"{part} = .* contains no images"):
            prepare(replace(spec, **{part: str(tmp_path)}), open_store(str(tmp_path / "out")), None)

    def test_unwritable_storage_is_reported_before_ray_starts(self, spec, tmp_path):
        (tmp_path / "file").write_text("in the way")
        for storage, named in (
            (tmp_path / "file", "cannot be written"),
            ("memory://x", "memory of one process"),
        ):
            with pytest.raises(UsageError, match=named) as caught:
                train_on_ray(spec, RayTrainConfig(2, str(storage)), tmp_path, print)
            assert "\n" not in str(caught.value)

    def test_the_initial_weights_are_copied_to_storage(self, store, spec, tmp_path):
        root = open_store(str(tmp_path / "tiny"))
        begin(replace(spec, init_from="sr-x2"), root)
        assert root.read("begins-with/sr-x2.safetensors") == find_weights("sr-x2").read_bytes()

    def test_incompatible_options_are_refused(self):
        nothing = dict.fromkeys(("workers", "min_workers", "storage", "endpoint_url", "address"))
        nothing["force_unlock"] = False
        assert read_ray_config(nothing) is None
        # Of the weights to start from.
        assert read_ray_config(nothing | {"endpoint_url": "http://127.0.0.1"}) is None
        with pytest.raises(UsageError, match="--min-workers is for training on Ray: give --workers too"):
            read_ray_config(nothing | {"min_workers": 2})
        with pytest.raises(UsageError, match="--force-unlock is for training on Ray"):
            read_ray_config(nothing | {"force_unlock": True})
        with pytest.raises(UsageError, match="--workers 2: give --storage too"):
            read_ray_config(nothing | {"workers": 2})
        for options in ({"workers": 0}, {"workers": 2, "min_workers": 0, "storage": "out"}):
            with pytest.raises(UsageError, match="workers 0: must be 1 or more"):
                read_ray_config(nothing | options)
        config = read_ray_config(nothing | {"workers": 4, "min_workers": 1, "storage": "out"})
        assert config == RayTrainConfig(4, "out", 1)
        assert config.counts == (1, 4)
        assert RayTrainConfig(4, "out").counts == 4

    def test_impossible_numbers_of_workers_are_refused(self, spec):
        with pytest.raises(UsageError, match="--workers 5: must be 1 to 4"):
            check_ray_config(spec, RayTrainConfig(5, "out"))
        with pytest.raises(UsageError, match="--min-workers 3: must be 1 to --workers, which is 2"):
            check_ray_config(spec, RayTrainConfig(2, "out", 3))
        with pytest.raises(UsageError, match="the cluster has 2 CPUs and 0 GPUs"):
            check_resources(RayTrainConfig(3, "out"), {"CPU": 2.0})
        assert not check_resources(RayTrainConfig(3, "out", 1), {"CPU": 2.0})
        assert check_resources(RayTrainConfig(3, "out"), {"CPU": 2.0, "GPU": 4.0})
