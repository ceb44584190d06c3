"""A run end to end: S3, images spooled to disk, the plan for a GPU, limits, retries, two runs at once."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pyvips
from click.testing import CliRunner

import imgtx
from imgtx.codecs import decode
from imgtx.errors import LeaseHeldError, ModelError
from imgtx.models.choice import AUTO
from jobs.cli import main
from jobs.inspect.status import read_status
from jobs.run.driver import run
from jobs.run.prepare import plan_run
from jobs.run.tally import Tally
from pipeline.ledger.lease import Lease
from pipeline.planning.plan import Plan
from pipeline.spec import RunSpec
from pipeline.storage.store import Store, open_store
from pipeline.tables.schemas import FAILED
from tests.support.archive import assert_sound, fill, look, save_tiny_model
from tests.support.zoo import photo, saved

NAMES = (
    "with space.png",
    "100%25 %zz.png",
    "hash#tag.png",
    "what?.png",
    "a+b&c=d;e.png",
    "café.png",
    "写真.png",
    "deep/er/still.png",
)


def saved_16_bit(samples: np.ndarray) -> bytes:
    return pyvips.Image.new_from_array(samples).copy(interpretation="rgb16").pngsave_buffer()


def ignore(tally: Tally) -> None:
    pass


@pytest.fixture
def spec(source: Store, tmp_path: Path, model: str) -> RunSpec:
    return RunSpec(source.uri, str(tmp_path / "out"), model=model, gpus=0, workers=1, engine="ray")


def test_a_run_from_s3_to_s3_handles_every_key(bucket: str, spec: RunSpec, source: Store):
    """The same bytes as on local disk, which the other tests cover."""
    remote = open_store(f"{bucket}/archive")
    for name in NAMES:
        for store in (source, remote):
            store.write(name, saved(photo()))
    assert run(spec, ignore).written == len(NAMES)
    in_s3 = replace(spec, source=remote.uri, destination=f"{bucket}/out")
    summary = run(in_s3, ignore)
    assert (summary.written, summary.accounted) == (len(NAMES), True)
    found = look(in_s3.destination)
    assert set(found.outputs) == set(NAMES)
    assert found.files == look(spec.destination).files
    assert_sound(found)


@pytest.mark.parametrize(("channels", "depth"), [(3, 8), (4, 8), (3, 16), (1, 8)])
def test_spooling_to_disk_gives_the_same_outputs(spec: RunSpec, source: Store, channels: int, depth: int):
    image = photo(157, 203, channels, depth)
    source.write("a.png", saved(image) if depth == 8 else saved_16_bit(image))
    memory = run(spec, ignore)
    streamed = replace(spec, destination=f"{spec.destination}-streamed", stream_megapixels=0.01)
    disk = run(streamed, ignore)
    assert (memory.written, disk.written) == (1, 1)
    both = [pyvips.Image.new_from_file(str(Path(s.destination, "images", "a.png"))) for s in (spec, streamed)]
    assert both[0].bands == channels
    np.testing.assert_array_equal(*(image.numpy() for image in both))
    assert_sound(look(streamed.destination))


def test_the_header_of_each_picture_chooses_its_model(spec: RunSpec, source: Store):
    """The packaged models, without --model: both in one actor."""
    pictures = {"clean.png": photo(20, 28), "best.jpg": photo(28, 20), "web.jpg": photo(24, 24)}
    source.write("clean.png", saved(pictures["clean.png"]))
    for name, quality in (("best.jpg", 95), ("web.jpg", 50)):
        image = pyvips.Image.new_from_array(pictures[name])
        source.write(name, image.jpegsave_buffer(Q=quality, subsample_mode="off"))
    by_header = replace(spec, model=AUTO, format="png", settings={"scale": 2.0})
    summary = run(by_header, ignore)
    assert (summary.written, summary.models) == (3, {"sr-x2": 2, "sr-x2-archive": 1})
    found = look(spec.destination)
    models = {key: row["model"] for key, row in found.rows.items()}
    assert models == {"clean.png": "sr-x2", "best.jpg": "sr-x2", "web.jpg": "sr-x2-archive"}
    for name, model in models.items():
        made = decode(
            Path(spec.destination, "images", found.rows[name]["output"]).read_bytes(), max_pixels=10**6
        )
        original = decode(Path(spec.source, name).read_bytes(), max_pixels=10**6)
        np.testing.assert_array_equal(made.pixels, imgtx.load(model, device="cpu")(original.pixels))
    assert_sound(found)
    assert run(by_header, ignore).current == 3


def test_a_self_ensemble_equals_the_librarys_and_has_its_own_recipe(spec: RunSpec, source: Store):
    pixels = photo(70, 90)
    source.write("a.png", saved(pixels))
    assert run(spec, ignore).written == 1
    of_eight = replace(spec, self_ensemble=True)
    assert (run(of_eight, ignore).written, run(of_eight, ignore).current) == (1, 1)
    written = pyvips.Image.new_from_file(str(Path(spec.destination, "images", "a.png"))).numpy()
    np.testing.assert_array_equal(written, imgtx.load(spec.model, device="cpu", self_ensemble=True)(pixels))
    assert np.any(written != imgtx.load(spec.model, device="cpu")(pixels))
    assert_sound(look(spec.destination))


def test_the_execution_plan_for_a_gpu_gives_the_same_pixels(spec: RunSpec, source: Store):
    """With a GPU, codec tasks and the model's actor do not fuse, so pixels cross the object store."""
    keys = fill(source, 9)
    on_gpu = replace(spec, destination=f"{spec.destination}-gpu", gpus=None, workers=None)
    assert (run(spec, ignore).written, run(on_gpu, ignore).written) == (9, 9)
    found = look(on_gpu.destination)
    assert set(found.outputs) == set(keys)
    assert found.files == look(spec.destination).files


def test_a_limit_leaves_the_rest_pending_and_retry_runs_failed_images(spec: RunSpec, source: Store):
    keys = fill(source, 6)
    source.write("broken.png", saved(photo())[:100])
    limited = run(replace(spec, limit=4), ignore)
    assert (limited.written + limited.failed, limited.pending, limited.accounted) == (4, 3, True)
    rest = run(spec, ignore)
    assert (rest.listed, rest.failed, rest.pending, rest.accounted) == (7, 1, 0, True)
    again = run(spec, ignore, retry_failed=True)
    assert (again.failed, again.failed_before, again.current) == (1, 0, 6)
    plain = run(spec, ignore)
    assert (plain.failed, plain.failed_before, plain.current) == (1, 1, 6)
    found = look(spec.destination)
    assert found.rows["broken.png"]["status"] == FAILED
    assert set(found.outputs) == set(keys)
    assert_sound(found)


def test_a_second_run_on_one_destination_is_refused_with_the_holders_name(spec: RunSpec, source: Store):
    fill(source, 1)
    with (
        Lease(open_store(spec.destination), "the-first-run"),
        pytest.raises(LeaseHeldError, match=f"the-first-run.*process {os.getpid()}"),
    ):
        run(spec, ignore)
    assert run(spec, ignore).written == 1


def test_a_model_that_no_worker_can_load_is_one_error_and_fails_no_image(
    spec: RunSpec, source: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The file is removed after the driver has read it, as on a cluster whose machines lack it."""
    fill(source, 4)
    only_here = save_tiny_model(tmp_path / "only-here.safetensors")

    def plan_and_lose(*arguments: object, **options: bool) -> Plan:
        Path(only_here).unlink()
        return plan_run(*arguments, **options)

    monkeypatch.setattr("jobs.run.driver.plan_run", plan_and_lose)
    with pytest.raises(ModelError, match=r"only-here.*could not be loaded by a worker"):
        run(replace(spec, model=only_here), ignore)
    assert look(spec.destination).rows == {}
    monkeypatch.undo()
    assert read_status(spec.destination, None)["run"]["state"] == "failed"
    # The lease was released.
    assert run(spec, ignore).written == 4


def test_a_truncated_ledger_part_is_named_in_one_line(spec: RunSpec, source: Store):
    fill(source, 2)
    run(spec, ignore)
    part = min(Path(spec.destination, "ledger").iterdir())
    part.write_bytes(part.read_bytes()[:-50])
    for command in (["upscale", spec.source], ["plan", "upscale", spec.source], ["status"], ["verify"]):
        arguments = [*command, spec.destination]
        arguments += ["--model", spec.model] if len(command) > 1 else []
        before = signal.getsignal(signal.SIGTERM)
        result = CliRunner().invoke(main, arguments)
        signal.signal(signal.SIGTERM, before)
        assert result.exit_code == 2, command
        assert result.stdout == "", command
        assert result.stderr.count("\n") == 1, command
        assert part.name in result.stderr, command


def test_a_pool_that_may_grow_beyond_its_machine_does_not_starve_the_rest(spec: RunSpec, source: Store):
    """Three actors do not fit on the session's two CPUs beside the codecs: the run continues with what fits."""
    fill(source, 24)
    seen: list[Tally] = []
    summary = run(replace(spec, workers=3, min_workers=1), seen.append)
    assert (summary.written, summary.accounted) == (24, True)
    assert seen[-1].pool
    assert seen[-1].pool.sizes == {"min_size": 1, "max_size": 3}
    # Measured by the actors themselves.
    assert seen[-1].waited > 0
    assert_sound(look(spec.destination))
