"""How many threads a training computes with: as many as pay on this machine, which others may use too.

Torch's threads wait for each other after every operation, and they wait actively. Where something else takes one of
their cores, two threads compute many times slower than one, and nearly all of their CPU time is waiting. Whether it is
so is found out by trying, and again when steps become slow.
"""

import logging
import math
import os
import time
from collections.abc import Callable

import torch

log = logging.getLogger("imgtx.train")

# What torch reads when it is loaded: a number of threads that the user chose.
CHOSEN_BY_USER = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")

# So many times as fast, or more threads are not worth their cores.
WORTH = 1.2
# So many times as slow as after the choice, and the number is chosen again.
SLOW = 3.0
# The steps that show how long one takes after the choice.
CALM_STEPS = 8
# Seconds of steps that are judged at once: at first, and at most where choosing again changed nothing.
PATIENCE, MOST_PATIENCE = 5.0, 120.0
# Seconds, and at most how often, a step is tried.
TRIAL_SECONDS, TRIALS = 2.0, 3
# Seconds of an operation that is repeated to see whether threads get in each other's way; its numbers.
PROBE_SECONDS, PROBE_SIZE = 0.25, 1 << 18


class Threads:
    """The number of threads of a training on a CPU, at most `most`; what torch had is restored by `close`."""

    def __init__(self, most: int) -> None:
        self.most, self._before = most, torch.get_num_threads()
        self.count = 1
        self._patience = PATIENCE
        # Steps since the choice, the seconds of the shortest of the first, and those since steps were last judged.
        self._steps, self._calm = 0, math.inf
        self._looked_at: list[float] = []

    @property
    def chosen_by_user(self) -> bool:
        return any(os.environ.get(name) for name in CHOSEN_BY_USER)

    def choose(self, trial: Callable[[], object]) -> None:
        """Choose the number by timing `trial`, a step that changes nothing; say what it is."""
        if self.chosen_by_user:
            self.count = self._before
            log.info("computing with %s, as the environment says", _threads(self.count))
            return
        self.count, why = self._fastest(trial)
        torch.set_num_threads(self.count)
        self._steps, self._calm = 0, math.inf
        self._looked_at.clear()
        log.info("computing with %s of %d%s", _threads(self.count), self.most, why)

    def trained(self, seconds: float) -> float:
        """Return how much of a step's CPU time counts as training; waiting for other threads does not."""
        return min(seconds, SLOW * self._calm) if self._steps >= CALM_STEPS and self.count > 1 else seconds

    def watch(self, seconds: float, trial: Callable[[], object]) -> None:
        """Note how long a step took; choose again if several threads have become slow."""
        if self.count == 1 or self.chosen_by_user:
            return
        self._steps += 1
        if self._steps <= CALM_STEPS:
            self._calm = min(self._calm, seconds)
        self._looked_at.append(seconds)
        if sum(self._looked_at) < self._patience or self._steps < CALM_STEPS:
            return
        times = sum(self._looked_at) / len(self._looked_at) / self._calm
        self._looked_at.clear()
        if times > SLOW:
            before = self.count
            log.info("steps take %.0f times as long as at first: choosing the number of threads again", times)
            self.choose(trial)
            self._patience = min(2 * self._patience, MOST_PATIENCE) if self.count == before else PATIENCE

    def close(self) -> None:
        torch.set_num_threads(self._before)

    def _fastest(self, trial: Callable[[], object]) -> tuple[int, str]:
        """Return the number of threads from which on more do not pay, and why."""
        if self.most == 1:
            return 1, ""
        torch.set_num_threads(1)
        trial()
        best, alone = 1, _seconds(trial)
        fastest, rate = alone, _rate()
        for count in _counts(self.most):
            torch.set_num_threads(count)
            # A step of threads that are in each other's way may take minutes: not tried.
            if (now := _rate()) < WORTH * rate:
                return best, ": the other cores are in use" if best == 1 else ""
            if (seconds := _seconds(trial)) * WORTH > fastest:
                break
            best, fastest, rate = count, seconds, now
        return best, f": {alone / fastest:.1f} times as fast as one" if best > 1 else ": more are no faster"


def _counts(most: int) -> list[int]:
    """Return 2, 4, 8, ... and `most`."""
    return sorted({*(1 << power for power in range(1, most.bit_length()) if 1 << power <= most), most})


def _seconds(trial: Callable[[], object]) -> float:
    """Return how long a step takes, the shortest of some."""
    times: list[float] = []
    while len(times) < TRIALS and sum(times) < TRIAL_SECONDS:
        started = time.perf_counter()
        trial()
        times.append(time.perf_counter() - started)
    return min(times)


def _rate() -> float:
    """Return how often a second an operation runs that any number of threads can share."""
    numbers = torch.ones(PROBE_SIZE)
    numbers.sin_()
    started, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < PROBE_SECONDS or not done:
        numbers.sin_()
        done += 1
    return done / passed


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"
