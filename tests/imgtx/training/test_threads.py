"""A training computes with as many threads as pay where others use the machine too, and counts what it computes."""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from imgtx.training import threads as train_threads
from imgtx.training.loop import clock_of, train
from imgtx.training.spec import TrainSpec
from imgtx.training.threads import CALM_STEPS, CHOSEN_BY_USER, Threads
from imgtx.training.waiting import SPINS, wait_briefly
from tests.support.zoo import saved

MODEL = {
    "dim": 16, "heads": 1, "window": 4, "encoder_blocks": 1, "decoder_blocks": 1,
    "detail_channels": 4, "detail_blocks": 1, "ffn_ratio": 1.0,
}  # fmt: skip
IDLE = {1: 100.0, 2: 195.0, 4: 380.0}
# Threads that wait for one another.
SHARED = {1: 100.0, 2: 30.0, 4: 10.0}


class Machine:
    """A machine of four cores: operations a second by the number of threads, and the seconds of a step."""

    def __init__(self, rates: dict[int, float], steps: dict[int, float]):
        self.rates, self.steps, self.tried = rates, steps, set[int]()

    def rate(self) -> float:
        return self.rates[torch.get_num_threads()]

    def seconds(self, trial: Callable[[], object]) -> float:
        trial()
        self.tried.add(torch.get_num_threads())
        return self.steps[torch.get_num_threads()]


@pytest.fixture
def on(monkeypatch) -> Iterator[Callable[..., Threads]]:
    """Return a function that puts a training on a machine."""
    for name in CHOSEN_BY_USER:
        monkeypatch.delenv(name, raising=False)
    made = []

    def on(machine: Machine) -> Threads:
        monkeypatch.setattr(train_threads, "_rate", machine.rate)
        monkeypatch.setattr(train_threads, "_seconds", machine.seconds)
        made.append(Threads(4))
        return made[-1]

    yield on
    for threads in made:
        threads.close()


@pytest.mark.parametrize(
    ("rates", "steps", "count", "said"),
    [
        (IDLE, {1: 1.0, 2: 0.55, 4: 0.5}, 2, "computing with 2 threads of 4: 1.8 times as fast as one"),
        (IDLE, {1: 1.0, 2: 0.55, 4: 0.3}, 4, "computing with 4 threads of 4: 3.3 times as fast as one"),
        # sr-x2 on two cores: 0.26 s with one thread, 0.25 with two.
        (IDLE, {1: 0.26, 2: 0.25, 4: 0.25}, 1, "computing with 1 thread of 4: more are no faster"),
        (SHARED, {1: 1.0}, 1, "computing with 1 thread of 4: the other cores are in use"),
    ],
)
def test_the_number_of_threads_is_the_one_that_pays(on, caplog, rates, steps, count, said):
    caplog.set_level("INFO", "imgtx.train")
    before, machine = torch.get_num_threads(), Machine(rates, steps)
    threads = on(machine)
    threads.choose(lambda: None)
    assert (threads.count, torch.get_num_threads()) == (count, count)
    assert caplog.messages == [said]
    # Where threads hinder each other a step may take minutes: it is not tried.
    assert machine.tried <= steps.keys()
    threads.close()
    assert torch.get_num_threads() == before


def test_threads_that_become_slow_are_chosen_again(on):
    machine = Machine(IDLE, {1: 1.0, 2: 0.6, 4: 0.6})
    threads = on(machine)
    threads.choose(lambda: None)
    for _ in range(CALM_STEPS):
        threads.watch(0.6, lambda: None)
    threads.watch(1.5, lambda: None)
    assert threads.count == 2
    # What a step of 30 s beside others counts as training.
    assert threads.trained(30.0) == pytest.approx(3 * 0.6)
    machine.rates = SHARED
    for _ in range(8):
        threads.watch(30.0, lambda: None)
    assert threads.count == 1
    assert threads.trained(30.0) == 30.0


def test_a_number_that_the_user_chose_stays(on, monkeypatch, caplog):
    caplog.set_level("INFO", "imgtx.train")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = on(Machine({}, {}))
    threads.choose(lambda: pytest.fail("measured"))
    threads.watch(1e9, lambda: pytest.fail("measured"))
    assert threads.count == torch.get_num_threads()
    assert "as the environment says" in caplog.text


def test_the_clock_counts_what_trains_and_no_waiting_threads():
    clock, spun = clock_of("cpu"), []

    def spin() -> None:
        while time.thread_time() < 0.2:
            hashlib.sha256(bytes(100_000)).digest()
        spun.append(time.thread_time())

    waiting = threading.Thread(target=spin)
    before, all_before = clock(), time.process_time()
    waiting.start()
    waiting.join()
    assert time.process_time() - all_before > 0.15
    assert clock() - before < 0.1
    assert spun


def test_choosing_changes_nothing_of_a_training(on, tmp_path):
    squares = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(saved(squares.repeat(4, 0).repeat(4, 1)))
    photos = str(tmp_path / "photos")
    spec = TrainSpec(
        "tiny", photos, photos, steps=3, batch=2, crop=8, precision="float32", valid_images=1, model=MODEL
    )
    tried = []
    threads = on(Machine({1: 1.0, 2: 0.5}, {1: 1.0}))
    choose = threads.choose
    threads.choose = lambda trial: choose(lambda: (tried.append(1), trial()))
    states = []
    for name, chosen in (("a", None), ("b", threads)):
        train(replace(spec), tmp_path / name, lambda line: None, threads=chosen)
        states.append(torch.load(tmp_path / name / "checkpoint.pt", weights_only=True))
    assert tried
    one, other = states
    for part in ("network", "average"):
        assert all(torch.equal(t, other[part][key]) for key, t in one[part].items())


def test_waiting_is_brief_unless_the_user_says_otherwise(monkeypatch):
    (name,) = SPINS
    for said, expected in ((None, SPINS[name]), ("passive", None)):
        monkeypatch.delenv(name, raising=False)
        if said:
            monkeypatch.setenv("OMP_WAIT_POLICY", said)
        wait_briefly()
        assert os.environ.get(name) == expected
    monkeypatch.setenv(name, "7")
    wait_briefly()
    assert os.environ[name] == "7"
