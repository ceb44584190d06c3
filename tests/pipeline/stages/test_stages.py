"""Decode, transform, encode and publish, called in turn over small archives."""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import imgtx
from imgtx.codecs import SUFFIXES, Carry, Picture
from imgtx.codecs import decode as decode_picture
from imgtx.codecs.metadata import exif
from imgtx.codecs.metadata.density import Density
from imgtx.codecs.spool import SpooledPicture
from imgtx.errors import ModelError
from imgtx.imageops.resize import imresize
from imgtx.inference.tiling import core_of, plan
from imgtx.models.weight_file import read_info
from imgtx.models.weights import load_model, save_weights
from pipeline.job import make_job
from pipeline.planning.names import format_of
from pipeline.spec import Job, RunSpec
from pipeline.stages import transform as transform_stage
from pipeline.stages.decode import decode
from pipeline.stages.encode import encode
from pipeline.stages.on_disk import enlarged_alpha
from pipeline.stages.publish import publish
from pipeline.stages.transform import Transform
from pipeline.storage.store import Store, open_store
from pipeline.tables.rows import rows_of, to_table
from pipeline.tables.schemas import FINISHED, PIXELS, WORK
from pipeline.tasks import images as tasks_images
from tests.support.archive import save_tiny_model
from tests.support.metadata import packet, properties, xmp_in
from tests.support.zoo import exif_block, photo, rgb_profile, saved


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def job(tmp_path: Path, model: str) -> Job:
    info, digest = read_info(model)
    (tmp_path / "source").mkdir()
    return make_job(RunSpec(str(tmp_path / "source"), str(tmp_path / "out"), model=model), info, digest)


def put(job: Job, **files: bytes) -> pa.Table:
    """Write files into the source; return WORK rows for them, output under the source's own name."""
    for name, data in files.items():
        (Path(job.spec.source) / name).write_bytes(data)
    return work(*files)


def work(*keys: str) -> pa.Table:
    rows = [{"key": key, "size": 1, "version": "", "output": key} for key in keys]
    return to_table(rows, WORK)


def through(stage: Callable[[pa.Table], Iterator[pa.Table]], table: pa.Table) -> pa.Table:
    """Return all tables of a stage, serialised and read-only as Ray passes them on."""
    made = pa.concat_tables(list(stage(table)))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, made.schema) as writer:
        writer.write_table(made)
    return pa.ipc.open_stream(pa.py_buffer(sink.getvalue().to_pybytes())).read_all()


def through_stages(job: Job, table: pa.Table, *, transform: Transform | None = None) -> list[dict[str, Any]]:
    """Run all stages in order; return the outcome rows."""
    table = through(lambda batch: decode(batch, job), table)
    table = through(transform or Transform(job), table)
    table = through(lambda batch: encode(batch, job), table)
    outcomes = through(lambda batch: publish(batch, job), table)
    assert outcomes.schema == FINISHED
    return outcomes.to_pylist()


def written(job: Job, row: dict[str, Any]) -> Picture:
    """Return the decoded output of a row, after checking the size and digest in the row."""
    assert (row["status"], row["reason"], row["message"]) == ("written", "", "")
    data = (Path(job.spec.destination) / "images" / row["output"]).read_bytes()
    assert (row["out_bytes"], row["out_sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    picture = decode_picture(data, max_pixels=10**7)
    assert picture.pixels.shape[:2] == (row["out_height"], row["out_width"])
    assert (row["out_height"], row["out_width"]) == (2 * row["in_height"], 2 * row["in_width"])
    return picture


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("rgb.png", photo(21, 34)),
        ("grey.png", photo(21, 34, 1)),
        ("deep-grey.png", photo(21, 34, 1, depth=16)),
        ("rgba.png", photo(21, 34, 4)),
        ("one.png", photo(21, 34)[:1, :1]),
        ("rgb.tif", photo(21, 34)),
        ("rgb.bmp", photo(21, 34)),
    ],
)
def test_outputs_equal_those_of_the_library(job, name, pixels):
    """Lossless formats are equal to the bit, with alpha and 16 bits too."""
    output = f"{Path(name).stem}.png"
    table = put(job, **{name: saved(pixels, {".tif": "TIFF", ".bmp": "BMP"}.get(Path(name).suffix, "PNG"))})
    table = table.set_column(table.schema.get_field_index("output"), "output", pa.array([output]))
    (row,) = through_stages(job, table)
    picture = written(job, row)
    expected = imgtx.load(job.spec.model, device="cpu")(pixels)
    found = picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])
    assert found.dtype == pixels.dtype
    assert np.array_equal(found.squeeze(), expected.squeeze())
    assert picture.pixels.shape[2] == (1 if pixels.ndim == 2 else 3)
    assert min(row["seconds_decode"], row["seconds_transform"], row["seconds_encode"]) > 0


def test_orientation_profile_and_exif_survive(job):
    block = exif_block(6, 34, 22)
    (row,) = through_stages(
        job, put(job, **{"turned.jpg": saved(photo(22, 34), "JPEG", exif=block, icc_profile=rgb_profile())})
    )
    picture = written(job, row)
    assert (row["in_height"], row["in_width"]) == (34, 22)
    assert "oriented" in row["notes"]
    assert picture.icc == rgb_profile()
    assert b"A. Nobody" in picture.exif
    assert exif.orientation(picture.exif) == 1


def test_a_format_that_cannot_hold_16_bits_leaves_a_note(job):
    table = put(job, **{"deep.png": saved(photo(22, 34, 1, depth=16))})
    table = table.set_column(table.schema.get_field_index("output"), "output", pa.array(["deep.jpg"]))
    (row,) = through_stages(job, table)
    assert written(job, row).pixels.dtype == np.uint8
    assert row["notes"]


def test_alpha_is_enlarged_by_bicubic(job):
    rgba = photo(22, 34, 4)
    (row,) = through_stages(job, put(job, **{"a.png": saved(rgba)}))
    assert np.array_equal(written(job, row).alpha, imresize(rgba[..., 3], 2))


def test_bad_images_become_rows_and_their_neighbours_are_written(job):
    table = put(
        job,
        **{
            "a.png": saved(photo()),
            "cut.png": saved(photo())[:300],
            "empty.png": b"",
            "page.png": b"<html>not here</html>",
            "z.png": saved(photo()),
        },
    )
    rows = {row["key"]: row for row in through_stages(job, pa.concat_tables([table, work("gone.png")]))}
    assert [rows[key]["status"] for key in ("a.png", "z.png")] == ["written"] * 2
    failures = {key: (row["stage"], row["reason"]) for key, row in rows.items() if row["status"] == "failed"}
    assert failures == {
        "cut.png": ("decode", "truncated"),
        "empty.png": ("decode", "empty"),
        "page.png": ("decode", "not_an_image"),
        "gone.png": ("fetch", "not_found"),
    }
    assert all(rows[key]["message"] for key in failures)
    assert sorted(p.name for p in (Path(job.spec.destination) / "images").iterdir()) == ["a.png", "z.png"]


def test_a_decompression_bomb_is_refused_from_its_header(job):
    job = replace(job, spec=replace(job.spec, max_megapixels=0.001))
    (row,) = through_stages(job, put(job, **{"a.png": saved(photo(40, 40))}))
    assert (row["stage"], row["reason"]) == ("decode", "too_large")
    assert "--set max_megapixels=" in row["message"]


def test_a_bug_inside_the_model_costs_one_image(job, monkeypatch):
    transform = Transform(job)
    run = transform.predictor.run

    def sometimes(stacks):
        if stacks[0][0].height == 30:
            raise IndexError("tensor out of place")
        return run(stacks)

    monkeypatch.setattr(transform.predictor, "run", sometimes)
    table = put(job, **{"bad.png": saved(photo(30, 40)), "good.png": saved(photo(40, 40))})
    bad, good = through_stages(job, table, transform=transform)
    assert (bad["status"], bad["stage"], bad["reason"]) == ("failed", "transform", "bug")
    assert bad["message"] == "IndexError: tensor out of place"
    assert (bad["in_height"], bad["out_height"]) == (30, 0)
    written(job, good)


def test_a_destination_that_refuses_writes_becomes_a_row_of_publish(job):
    Path(job.spec.destination).mkdir()
    (Path(job.spec.destination) / "images").write_text("a file in the way")
    (row,) = through_stages(job, put(job, **{"a.png": saved(photo())}))
    assert (row["status"], row["stage"]) == ("failed", "publish")
    assert row["reason"] in ("storage", "forbidden")


def test_failed_rows_carry_no_pixels_between_stages(job):
    table = through(lambda batch: decode(batch, job), put(job, **{"cut.png": saved(photo())[:300]}))
    assert table.schema == PIXELS
    assert table["tiles"].to_pylist() == [b""]


@pytest.fixture
def wide_halo(job: Job, tmp_path: Path) -> Job:
    """Return the job with a halo as wide as the tiny model sees, so that its pixels do not depend on the tiles."""
    model = load_model(job.spec.model)
    path = tmp_path / "wide.safetensors"
    save_weights(path, model.network, replace(model.info, halo=64))
    return make_job(replace(job.spec, model=str(path)), *read_info(path))


def on_disk_and_in_memory(
    job: Job, pixels: np.ndarray, *, tile: int | None = None
) -> tuple[Picture, Picture]:
    """Return the outputs for one picture on disk (in tiles of side `tile` if given) and in memory."""
    table = put(job, **{"a.png": saved(pixels)})
    (ordinary,) = through_stages(job, table)
    expected = written(job, ordinary)
    (Path(job.spec.destination) / "images" / "a.png").unlink()
    large = replace(job, spec=replace(job.spec, stream_megapixels=0.01))
    (marked,) = rows_of(through(lambda batch: decode(batch, large), table))
    assert marked["large"]
    assert len(marked["tiles"]) == 0
    transform = Transform(large)
    transform.predictor.tile = tile or transform.predictor.tile
    assert transform.predictor.plan_for(*pixels.shape[:2]).count > 1
    (row,) = through_stages(large, table, transform=transform)
    same = ("key", "in_height", "in_width", "out_height", "out_width", "notes")
    assert [row[name] for name in same] == [ordinary[name] for name in same]
    found = written(job, row)
    assert found.pixels.dtype == expected.pixels.dtype
    assert (found.alpha is None) == (expected.alpha is None)
    assert found.alpha is None or np.array_equal(found.alpha, expected.alpha)
    return found, expected


@pytest.mark.parametrize("shape", [(613, 33, 4), (33, 617, 1), (609, 610, 3)], ids=str)
def test_pixels_on_disk_equal_those_in_memory(job, shape):
    """Equal to the bit because the tiles are the same, even with a halo that does not cover all that a model sees."""
    found, expected = on_disk_and_in_memory(job, photo(*shape, depth=16 if shape[2] == 1 else 8))
    np.testing.assert_array_equal(found.pixels, expected.pixels)


@pytest.mark.parametrize("channels", [3, 4, 1])
def test_pixels_on_disk_equal_those_in_memory_in_other_tiles(wide_halo, channels):
    pixels = photo(200, 40, channels, depth=16 if channels == 1 else 8)
    found, expected = on_disk_and_in_memory(wide_halo, pixels, tile=144)
    difference = np.abs(found.pixels.astype(int) - expected.pixels.astype(int))
    # Float sums in another order may round to the other side.
    assert difference.max() <= 1
    assert np.mean(difference > 0) < 0.01


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 53), (47, 1), (3, 5), (47, 53), (90, 31)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_alpha_by_windows_equals_alpha_as_a_whole(tmp_path, scale, height, width, dtype):
    alpha = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (height, width), dtype)
    (tmp_path / "alpha.raw").write_bytes(alpha.tobytes())
    paths = tmp_path / "pixels.raw", tmp_path / "alpha.raw"
    spooled = SpooledPicture(height, width, 3, np.dtype(dtype), *paths, Carry(b"", b"", "png", 3), ())
    whole = imresize(alpha, scale)
    cut = plan(height, width, tile=(9, 11), halo=2, multiple=1)
    for index in range(cut.count):
        tile = np.empty((cut.tile_height * scale, cut.tile_width * scale, 1))
        place, _ = core_of(tile, cut, index, scale)
        found = enlarged_alpha(spooled, place, scale)
        np.testing.assert_array_equal(
            found, whole[place.top : place.bottom, place.left : place.right], strict=True
        )


def test_a_damaged_large_image_becomes_a_row(job):
    large = replace(job, spec=replace(job.spec, stream_megapixels=0.001))
    (row,) = through_stages(large, put(large, **{"a.png": saved(photo())[:-400]}))
    assert (row["status"], row["reason"]) == ("failed", "truncated")
    assert not (Path(job.spec.destination) / "images" / "a.png").exists()


@pytest.mark.parametrize("limit", [50.0, 0.001])
def test_what_is_left_of_a_truncated_image_is_taken_where_that_is_asked_for(job, limit):
    job = replace(job, spec=replace(job.spec, on_damage="accept", stream_megapixels=limit))
    cut = saved(photo(120, 160), "JPEG", quality=100)
    rows = through_stages(job, put(job, **{"cut.jpg": cut[: len(cut) // 2], "none.jpg": cut[:50]}))
    taken, failed = sorted(rows, key=lambda row: row["key"])
    assert (taken["status"], taken["notes"]) == ("written", ["damage-accepted"])
    assert 0.2 < dict(taken["measures"])["missing"] < 1
    assert (failed["status"], failed["reason"]) == ("failed", "unrecoverable")


def test_a_shared_batch_that_fails_runs_again_one_by_one(job, monkeypatch, caplog):
    """On a GPU several images share one call; a bad one must not fail its neighbours."""
    transform = Transform(job)
    transform.batched = True
    run, calls = transform.predictor.run, []

    def narrow(stacks):
        calls.append(len(stacks))
        if len(stacks) == 3:
            raise RuntimeError("CUDA error")
        return run(stacks)

    monkeypatch.setattr(transform.predictor, "run", narrow)
    files = {f"{i}.png": saved(np.roll(photo(32, 32), i)) for i in range(3)}
    rows = through_stages(job, put(job, **files), transform=transform)
    assert calls == [3, 1, 1, 1]
    for i, row in enumerate(rows):
        expected = imgtx.load(job.spec.model, device="cpu")(np.roll(photo(32, 32), i))
        assert np.array_equal(written(job, row).pixels, expected)
    calls.clear()
    through_stages(job, work("0.png", "1.png", "gone.png"), transform=transform)
    assert calls == [2]


def test_an_object_that_changed_after_it_was_listed_fails(job):
    put(job, **{"a.png": saved(photo())})
    listed = to_table([{"key": "a.png", "size": 1, "version": "1-1", "output": "a.png"}], WORK)
    for either in (job, replace(job, spec=replace(job.spec, stream_megapixels=0.0001))):
        (row,) = through_stages(either, listed)
        assert (row["status"], row["reason"]) == ("failed", "changed")
        assert not (Path(job.spec.destination) / "images").exists()


def test_a_file_too_large_for_memory_is_never_read_whole(job, monkeypatch):
    monkeypatch.setattr(tasks_images, "MAX_BYTES", 0)
    monkeypatch.setattr(Store, "read", None)
    (row,) = through_stages(job, put(job, **{"a.png": saved(photo(32, 40))}))
    assert (row["status"], row["in_height"], row["in_width"]) == ("written", 32, 40)
    expected = imgtx.load(job.spec.model, device="cpu")(photo(32, 40))
    assert np.array_equal(written(job, row).pixels, expected)
    (row,) = through_stages(job, put(job, **{"b.png": b"<html>"}))
    assert (row["status"], row["reason"]) == ("failed", "not_an_image")


def test_a_model_of_another_digest_is_refused(job):
    other = replace(job, recipe=replace(job.recipe, model_digest="0" * 64))
    with pytest.raises(ModelError, match="put the same file on every machine"):
        Transform(other)


def test_stages_work_with_other_storage(model):
    info, digest = read_info(model)
    job = make_job(RunSpec("memory://stages/in", "memory://stages/out", model=model), info, digest)
    open_store(job.spec.source).write("ü 1%.png", saved(photo()))
    (row,) = through_stages(job, work("ü 1%.png"))
    assert row["status"] == "written"
    data = open_store(job.spec.destination).read("images/ü 1%.png")
    assert hashlib.sha256(data).hexdigest() == row["out_sha256"]


def test_the_output_name_decides_the_format():
    assert {format_of("a" + suffix) for suffix in SUFFIXES} == set(SUFFIXES.values())
    assert {format_of("d/" + suffix.upper()) for suffix in SUFFIXES} == set(SUFFIXES.values())


def test_rows_say_how_long_their_actor_waited(job, monkeypatch):
    """Time between two batches, and while a table is handed over, counts as waiting in the next row."""
    now = [100.0]
    monkeypatch.setattr(transform_stage.time, "perf_counter", lambda: now[0])
    actor = Transform(job)
    tables = list(decode(put(job, **{f"{n}.png": saved(photo(8, 8)) for n in range(3)}), job))
    waited = []
    for table, idle, blocked in zip(tables, (5.0, 0.0, 2.0), (0.5, 4.0, 0.0), strict=True):
        now[0] += idle
        for made in actor(table):
            waited.append(made["seconds_waited"][0].as_py())
            now[0] += blocked
    assert waited == [5.0, 0.5, 6.0]


@pytest.mark.parametrize("stream_megapixels", [50, 1e-9], ids=["in memory", "on disk"])
def test_outputs_say_what_made_them_unless_told_not_to(job, stream_megapixels):
    job = replace(job, spec=replace(job.spec, stream_megapixels=stream_megapixels))
    table = put(job, **{"a.jpg": saved(photo(), "JPEG", dpi=(300, 300), xmp=packet('xmp:Rating="4"'))})
    (row,) = through_stages(job, table)
    assert "resolution-scaled" in row["notes"]
    assert not {"xmp-dropped", "iptc-dropped"} & {*row["notes"]}
    path = Path(job.spec.destination) / "images" / row["output"]
    said = properties(xmp_in(path.read_bytes()))
    assert said["xmp:Rating"] == "4"
    assert (said["imgtx:Task"], said["imgtx:Model"]) == ("super-resolution", job.info.name)
    assert said["imgtx:ModelDigest"] == job.recipe.model_digest
    assert written(job, row).metadata.density == Density(Fraction(600), Fraction(600), "inch")
    unmarked = make_job(replace(job.spec, provenance=False), job.info, job.recipe.model_digest)
    through_stages(unmarked, table)
    said = properties(xmp_in(path.read_bytes()))
    assert said["xmp:Rating"] == "4"
    assert not any(name.startswith("imgtx:") for name in said)


@pytest.mark.parametrize("stream_megapixels", [50, 1e-9], ids=["in memory", "on disk"])
def test_outputs_keep_the_time_and_are_no_more_public_than_their_source(job, stream_megapixels):
    job = replace(job, spec=replace(job.spec, stream_megapixels=stream_megapixels))
    table = put(job, **{name: saved(photo()) for name in ("open.png", "private.png")})
    modified = 1_500_000_000_123_456_789
    for name, mode in (("open.png", 0o644), ("private.png", 0o600)):
        os.utime(Path(job.spec.source) / name, ns=(modified, modified))
        os.chmod(Path(job.spec.source) / name, mode)
    through_stages(job, table)
    made = {
        name: os.stat(Path(job.spec.destination) / "images" / name) for name in ("open.png", "private.png")
    }
    assert {name: made[name].st_mtime_ns // 10**6 for name in made} == dict.fromkeys(made, modified // 10**6)
    umask = os.umask(0)
    os.umask(umask)
    assert made["private.png"].st_mode & 0o777 == 0o600
    assert made["open.png"].st_mode & 0o777 == 0o666 & ~umask
    through_stages(replace(job, spec=replace(job.spec, times=False)), table)
    assert os.stat(Path(job.spec.destination) / "images/open.png").st_mtime > 1_600_000_000
