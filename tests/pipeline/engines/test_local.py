"""The local engine with real processes: same bytes as the stages in this process, and what happens when processes end.

An image that kills its process is one of the name `poison`: its worker is started with a module that kills it there.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from imgtx.errors import ModelError, RunInterruptedError
from jobs.run.driver import run
from jobs.run.prepare import plan_run, prepare
from pipeline.engines import local
from pipeline.engines.in_hand import InHand
from pipeline.engines.local import LocalEngine, local_engine
from pipeline.spec import Job, RunSpec
from pipeline.stages.all_in_one import AllStages
from pipeline.stages.part_done import PartDone
from pipeline.storage.store import open_store
from pipeline.tables.schemas import FINISHED, IMAGES, WORK
from tests.support.archive import FORMATS, fill, save_tiny_model
from tests.support.zoo import photo, saved

pytestmark = pytest.mark.timeout(300)

COUNT = 8
# Rounds over all images, so that many are left when something is killed.
REPEATED = 16
WITHIN = 60.0  # seconds; each takes a fraction of one
KILLS = """
import os, signal
from pipeline.stages import decode

whole = decode.run_stage

def run_stage(stage, row, work):
    if stage == "decode" and "poison" in row["key"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(stage, row, work)

decode.run_stage = run_stage
"""

KILLS_AFTER_SPOOLING = """
import os, signal
from pipeline.stages import on_disk

def enlarge(picture, read, directory, *others):
    assert picture.pixels_path.exists()
    with open({seen!r}, "a") as file:
        print(directory, file=file)
    os.kill(os.getpid(), signal.SIGKILL)

on_disk.enlarge = enlarge
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def spec(tmp_path: Path, model: str) -> RunSpec:
    fill(open_store(str(tmp_path / "in")), COUNT)
    return RunSpec(str(tmp_path / "in"), str(tmp_path / "out"), model=model, engine="local", workers=2)


def prepared(spec: RunSpec) -> tuple[Job, pa.Table]:
    ready = prepare(spec)
    return ready.job, plan_run(ready).work.slice().select(WORK.names)


def poisoned(spec: RunSpec, folder: Path, monkeypatch: pytest.MonkeyPatch, count: int = 1) -> set[str]:
    """Add images that kill their process; returns their keys."""
    sources = open_store(spec.source)
    keys = {f"0/poison-{number}.png" for number in range(count)}
    for key in keys:
        sources.write(key, b"of no importance")
    # Python imports this module when it starts.
    (folder / "sitecustomize.py").write_text(KILLS)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    return keys


def keys_of(tables: list[pa.Table]) -> list[str]:
    return [key for table in tables for key in table["key"].to_pylist()]


def begun(engine: LocalEngine, rows: Iterator[pa.Table]) -> list[pa.Table]:
    """Return what comes until every process has loaded the model: one that is killed before is another case."""
    came = [next(rows)]
    while not all(worker.pid for worker in engine.workers):
        came.append(next(rows))
    return came


def wait_until(condition) -> None:
    deadline = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_same_bytes_as_in_this_process(spec: RunSpec, tmp_path: Path):
    job, work = prepared(spec)
    with local_engine(job, work.num_rows) as engine:
        tables = [*engine.run(work, alone=False)]
        assert len(engine.workers) == 2
    assert all(table.schema == FINISHED for table in tables)
    here, _ = prepared(RunSpec(**spec.to_dict() | {"destination": str(tmp_path / "here")}))
    rows = [*AllStages(here, "cpu")(work)]
    assert sorted(keys_of(tables)) == sorted(keys_of(rows))
    digests = [
        dict(zip(keys_of(t), (d for x in t for d in x["out_sha256"].to_pylist()), strict=True))
        for t in (tables, rows)
    ]
    assert digests[0] == digests[1]
    files = [
        {key: store.read(key) for batch in store.list(IMAGES) for key in batch["key"].to_pylist()}
        for store in (open_store(spec.destination), open_store(str(tmp_path / "here")))
    ]
    assert len(files[0]) == COUNT
    assert files[0] == files[1]


def test_an_image_that_kills_its_process_alone_is_missing(spec: RunSpec, tmp_path: Path, monkeypatch):
    poison = poisoned(spec, tmp_path, monkeypatch, 2)
    job, work = prepared(spec)
    with local_engine(job, work.num_rows) as engine:
        came = keys_of([*engine.run(work, alone=False)])
        missing = set(work["key"].to_pylist()) - set(came)
        assert poison <= missing
        assert len(missing) <= engine.begun * len(poison)
        assert [*engine.run(work.filter(pc.is_in(work["key"], pa.array(sorted(poison)))), alone=True)] == []


def test_a_process_that_is_killed_costs_its_images_and_is_replaced(spec: RunSpec):
    job, work = prepared(spec)
    with local_engine(job, work.num_rows) as engine:
        rows = engine.run(pa.concat_tables([work] * REPEATED), alone=False)
        came = begun(engine, rows)
        os.kill(engine.workers[0].pid, signal.SIGKILL)
        came += rows
        assert REPEATED * COUNT - engine.begun <= len(keys_of(came)) <= REPEATED * COUNT
        assert len(engine.workers) == 2


def test_the_process_that_others_are_forked_from_is_replaced_with_them(spec: RunSpec, monkeypatch):
    # Its workers may end first; a new one is asked of it then, without success, and the engine pauses.
    monkeypatch.setattr(local, "RESTART_SECONDS", 0.1)
    job, work = prepared(spec)
    with local_engine(job, work.num_rows) as engine:
        rows = engine.run(pa.concat_tables([work] * REPEATED), alone=False)
        came = begun(engine, rows)
        assert engine.server
        killed = [psutil.Process(worker.pid) for worker in engine.workers]
        engine.server.process.kill()
        came += rows
        assert REPEATED * COUNT - 2 * engine.begun <= len(keys_of(came)) <= REPEATED * COUNT
        wait_until(lambda: not any(is_alive(process) for process in killed))


def test_processes_that_cannot_start_end_the_run(spec: RunSpec, tmp_path: Path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("import os\nos.write(2, b'no room\\n')\nos._exit(9)")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    job, work = prepared(spec)
    with (
        pytest.raises(RunInterruptedError, match=r"before they had loaded the model.*exit code 9: no room"),
        local_engine(job, work.num_rows) as engine,
    ):
        list(engine.run(work, alone=False))


def test_a_model_that_cannot_be_loaded_is_named(spec: RunSpec, tmp_path: Path):
    only = save_tiny_model(tmp_path / "only.safetensors", seed=1)
    job, work = prepared(RunSpec(**spec.to_dict() | {"model": only}))
    Path(only).unlink()
    with (
        pytest.raises(ModelError, match=r"only\.safetensors could not be loaded by a worker"),
        local_engine(job, work.num_rows) as engine,
    ):
        list(engine.run(work, alone=False))


def test_what_is_in_hand_when_a_run_is_stopped_is_drained_and_no_more(spec: RunSpec):
    job, work = prepared(spec)
    with local_engine(job, work.num_rows) as engine:
        rows = engine.run(pa.concat_tables([work] * 10), alone=False)
        came = keys_of([next(rows)])
        assert any(worker.sent for worker in engine.workers)
        came += keys_of([*engine.drain()])
        assert engine.workers == []
        assert len(came) < 10 * COUNT


@pytest.mark.parametrize("how", ["end", "error"])
def test_no_process_is_left(spec: RunSpec, how: str):
    job, work = prepared(spec)
    processes: list[psutil.Process] = []
    with suppress(ZeroDivisionError), local_engine(job, work.num_rows) as engine:
        rows = engine.run(work, alone=False)
        next(rows)
        processes += [psutil.Process(worker.pid) for worker in engine.workers]
        if how == "error":
            raise ZeroDivisionError
        list(rows)
    assert len(processes) == 2
    assert not any(is_alive(process) for process in processes)


def test_no_spool_folder_is_left_by_killed_processes(spec: RunSpec, tmp_path: Path, monkeypatch):
    """Every image goes through the disk, and is what its process is killed with."""
    (tmp_path / "spools").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "spools"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "spools"))
    (tmp_path / "sitecustomize.py").write_text(KILLS_AFTER_SPOOLING.format(seen=str(tmp_path / "seen")))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    summary = run(replace(spec, limit=1, stream_megapixels=1e-6), lambda tally: None)
    assert summary.reasons == {"worker_crash": 1}
    # Once beside others and twice alone.
    assert len((tmp_path / "seen").read_text().split()) == 3
    assert [*(tmp_path / "spools").iterdir()] == []


def test_what_is_done_of_an_image_is_reported_while_it_is_in_hand(spec: RunSpec, tmp_path: Path, monkeypatch):
    """After each tile here; the last report of an image is of all of it, and its outcome ends it."""
    sources = open_store(spec.source)
    for number, suffix in enumerate(("png", "tif")):
        sources.write(f"1/wide-{number}.{suffix}", saved(photo(700, 24), FORMATS[suffix]))
    (tmp_path / "sitecustomize.py").write_text(
        "from pipeline.stages import part_done\npart_done.REPORT_SECONDS = 0.0\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    job, work = prepared(replace(spec, include=["*/wide-*"], stream_megapixels=1e-6))
    in_hand, seen = InHand(), dict[str, list[PartDone]]()

    def look() -> None:
        for part in in_hand.parts:
            seen.setdefault(part.key, []).append(part)

    in_hand.changed = look
    with local_engine(job, work.num_rows, in_hand) as engine:
        for rows in engine.run(work, alone=False):
            in_hand.finish(rows["key"])
    assert in_hand.parts == []
    assert seen.keys() == {"1/wide-0.png", "1/wide-1.tif"}
    for parts in seen.values():
        shares = [part.share for part in parts]
        assert shares == sorted(shares)
        assert (shares[0], shares[-1]) == (0.0, 1.0)
        assert any(0.0 < share < 1.0 for share in shares)
        assert parts[-1].megapixels == 700 * 24 / 1e6


@pytest.mark.parametrize("busy", ["time.sleep(3600)", "BUSY.sleep(3600)"], ids=["in Python", "in C"])
def test_a_process_ends_with_a_killed_driver_in_the_middle_of_a_call(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: str
):
    open_store(spec.source).write("0/poison.png", b"of no importance")
    code = KILLS.replace(
        "os.kill(os.getpid(), signal.SIGKILL)", f"open({str(tmp_path / 'began')!r}, 'w'); {busy}"
    )
    # A call into libc that continues to sleep after a signal.
    again = "class BUSY:\n    def sleep(s):\n        while ctypes.CDLL(None).poll(None, 0, 1000 * s): pass\n"
    (tmp_path / "sitecustomize.py").write_text("import ctypes, time\n" + again + code)
    command = ["upscale", spec.source, spec.destination, "--model", spec.model, "--engine", "local"]
    paths = os.pathsep.join([str(tmp_path), *(path for path in sys.path if path)])
    driver = subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *command],
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until((tmp_path / "began").exists)
    workers = psutil.Process(driver.pid).children(recursive=True)
    assert workers
    driver.kill()
    driver.wait()
    wait_until(lambda: not any(is_alive(process) for process in workers))
