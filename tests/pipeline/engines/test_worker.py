"""What a process of the local engine does beside the model, with stages that wait for each other."""

import threading
from collections.abc import Iterator
from multiprocessing import Pipe

import pyarrow as pa
import pytest

from pipeline.engines.worker import FETCHED_BYTES, FETCHED_IMAGES, Serving
from pipeline.tables.schemas import FINISHED

WITHIN = 60.0


class Stages:
    """Stages that note what has begun; each may be told to wait for what another notes."""

    def __init__(self, waits: dict[tuple[str, str], tuple[str, str]] | None = None):
        self.begun: dict[tuple[str, str], threading.Event] = {}
        self.waits = waits or {}
        self.order: list[tuple[str, str]] = []
        self.calls: list[list[str]] = []

    def event(self, stage: str, key: str) -> threading.Event:
        return self.begun.setdefault((stage, key), threading.Event())

    def _note(self, stage: str, row: dict) -> dict:
        self.order.append((stage, row["key"]))
        self.event(stage, row["key"]).set()
        if other := self.waits.get((stage, row["key"])):
            assert self.event(*other).wait(WITHIN), f"{stage} of {row['key']} waited for {other}"
        return row

    def ahead(self, row: dict) -> dict:
        return self._note("ahead", row)

    def here(self, rows: list[dict]) -> Iterator[dict]:
        self.calls.append([row["key"] for row in rows])
        for row in rows:
            yield self._note("here", row)

    def behind(self, row: dict) -> dict:
        return self._note("behind", row)


class Rows:
    """An inbox that has all rows from the beginning, and then LAST."""

    def __init__(self, keys: tuple[str, ...], size: int):
        self.last = False
        self.rows = [{"key": key, "size": size} for key in keys]

    def take(self, seconds: float | None) -> dict | None:
        if self.rows:
            return self.rows.pop(0)
        self.last |= seconds is None
        return None


def served(stages: Stages, *keys: str, size: int = 1, together: int = 1) -> list[str]:
    """Return the keys of the outcomes, in their order, of a process that is sent these rows and then LAST."""
    driver, worker = Pipe()
    Serving(stages, Rows(keys, size), worker, together).run()
    batches = [
        pa.ipc.read_record_batch(pa.py_buffer(driver.recv_bytes()), FINISHED) for _ in keys if driver.poll()
    ]
    return [key for batch in batches for key in batch["key"].to_pylist()]


def test_the_next_image_is_fetched_and_the_last_one_published_while_the_model_works():
    stages = Stages(
        {
            ("here", "a"): ("ahead", "b"),
            ("here", "b"): ("behind", "a"),
            ("behind", "a"): ("here", "b"),
        }
    )
    assert served(stages, "a", "b", "c") == ["a", "b", "c"]


def test_at_most_two_images_are_begun_and_not_answered():
    """Those of a process that ends run again alone."""
    stages = Stages({("behind", "a"): ("ahead", "d")})
    assert served(stages, "a", "b", "c", "d") == ["a", "b", "c", "d"]
    assert stages.order.index(("behind", "a")) < stages.order.index(("here", "c"))


@pytest.mark.parametrize(("size", "ahead"), [(1, FETCHED_IMAGES), (FETCHED_BYTES, 1)])
def test_images_are_fetched_ahead_within_bounds(size, ahead):
    """While the model has the first image, so many of the next are fetched."""
    keys = [str(number) for number in range(2 * FETCHED_IMAGES)]
    stages = Stages({("here", "0"): ("ahead", str(ahead - 1))} if ahead > 1 else {})
    assert served(stages, *keys, size=size) == keys
    first = stages.order.index(("here", "0"))
    fetched = [key for stage, key in stages.order[: first + 1] if stage == "ahead"]
    assert len(fetched) <= ahead


def test_images_that_share_a_call_are_handed_over_together():
    stages = Stages()
    assert served(stages, *"abcdefgh", together=3) == [*"abcdefgh"]
    assert stages.calls == [["a", "b", "c"], ["d", "e", "f"], ["g", "h"]]
