"""The schedule and the average of the weights, against their definitions."""

import math

import pytest
import torch
from torch import nn

from imgtx.optim import WeightAverage, learning_rate


def test_the_schedule_warms_up_then_falls_as_a_cosine():
    assert learning_rate(0.01, peak=2.0, warmup=0.02) == pytest.approx(1.0)
    assert learning_rate(0.02, peak=2.0, warmup=0.02) == pytest.approx(2.0)
    assert learning_rate(0.51, peak=2.0, warmup=0.02, floor=0.01) == pytest.approx(2.0 * (0.01 + 0.99 / 2))
    assert learning_rate(1.0, peak=2.0, floor=0.01) == pytest.approx(0.02)
    assert learning_rate(1.5, peak=2.0, floor=0.01) == pytest.approx(0.02)


def test_the_schedule_rises_once_and_falls_once_and_never_stands_at_zero():
    rates = [learning_rate(i / 1000, peak=1.0) for i in range(1001)]
    top = rates.index(max(rates))
    assert top == 20
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert min(rates) > 0


def test_the_average_follows_its_recurrence():
    network = nn.Linear(1, 1, bias=False)
    average = WeightAverage(network, decay=0.5)
    expected = network.weight.item()
    for step in range(12):
        with torch.no_grad():
            network.weight.fill_(math.sin(step))
        average.update(network, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * math.sin(step)
        assert average.state["weight"].item() == pytest.approx(expected, abs=1e-6)
    assert network.weight.item() == pytest.approx(math.sin(11))


def test_the_average_is_a_copy_and_counts_whole_numbers_along():
    network = nn.BatchNorm2d(2)
    average = WeightAverage(network, decay=0.9)
    network(torch.rand(2, 2, 4, 4))
    assert average.state["num_batches_tracked"] == 0
    average.update(network, 0)
    assert average.state["num_batches_tracked"] == 1
    assert average.state["weight"].data_ptr() != network.weight.data_ptr()
