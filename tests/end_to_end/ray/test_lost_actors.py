"""A pass whose actors were killed leaves nothing behind that the next pass would wait for."""

import gc
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from jobs.run.driver import run
from pipeline.spec import RunSpec
from pipeline.storage.store import Store
from tests.support.archive import assert_sound, fill, look
from tests.support.poison import kill_worker_with_the_large_image
from tests.support.zoo import photo, saved

NEIGHBOURS = 8


@pytest.fixture
def no_collections() -> Iterator[None]:
    """A driver that only waits never triggers a collection. Here none happens by chance, either."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("gpus", [0, 1], ids=["all-in-one", "apart"])
def test_the_pass_after_a_killed_actor_finds_room(
    gpus: int, source: Store, tmp_path: Path, model: str, no_collections: None
):
    fill(source, NEIGHBOURS)
    source.write("poison.png", saved(photo(1800, 1800)))
    spec = RunSpec(source.uri, str(tmp_path / "out"), model=model, gpus=gpus, engine="ray")
    over, killed = threading.Event(), list[int]()
    watcher = threading.Thread(
        target=kill_worker_with_the_large_image,
        args=(lambda: psutil.Process().children(recursive=True), lambda: not over.is_set(), killed),
    )
    watcher.start()
    try:
        summary = run(replace(spec, stream_megapixels=1), lambda tally: None)
    finally:
        over.set()
        watcher.join()
    assert (summary.written, summary.reasons) == (NEIGHBOURS, {"worker_crash": 1})
    # With its neighbours, and twice alone.
    assert len(killed) >= 3
    assert_sound(look(spec.destination))
