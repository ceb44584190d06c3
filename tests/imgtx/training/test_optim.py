"""The optimizers, the schedule and the average of the weights follow their definitions."""

import math

import pytest
import torch
from torch import nn

from imgtx.models.config import ModelConfig
from imgtx.models.transformer import EncoderDecoder
from imgtx.training.muon import Float32Muon
from imgtx.training.optim import MuonAdamW, WeightAverage, learning_rate, optimizer_of


def test_the_schedule_warms_up_and_decays_as_a_cosine():
    assert learning_rate(0.01, peak=2.0, warmup=0.02) == pytest.approx(1.0)
    assert learning_rate(0.02, peak=2.0, warmup=0.02) == pytest.approx(2.0)
    assert learning_rate(0.51, peak=2.0, warmup=0.02, floor=0.01) == pytest.approx(2.0 * (0.01 + 0.99 / 2))
    assert learning_rate(1.0, peak=2.0, floor=0.01) == pytest.approx(0.02)
    assert learning_rate(1.5, peak=2.0, floor=0.01) == pytest.approx(0.02)


def test_the_schedule_stays_at_its_peak_for_the_configured_share():
    held = {"peak": 2.0, "constant_share": 0.6, "warmup": 0.02, "floor": 0.01}
    assert learning_rate(0.01, **held) == pytest.approx(1.0)
    assert [learning_rate(share, **held) for share in (0.02, 0.3, 0.62)] == pytest.approx([2.0] * 3)
    assert learning_rate(0.81, **held) == pytest.approx(2.0 * (0.01 + 0.99 / 2))
    assert learning_rate(1.0, **held) == pytest.approx(0.02)


def test_the_schedule_rises_once_falls_once_and_is_never_zero():
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


def test_the_average_is_a_copy_and_copies_integer_buffers():
    network = nn.BatchNorm2d(2)
    average = WeightAverage(network, decay=0.9)
    network(torch.rand(2, 2, 4, 4))
    assert average.state["num_batches_tracked"] == 0
    average.update(network, 0)
    assert average.state["num_batches_tracked"] == 1
    assert average.state["weight"].data_ptr() != network.weight.data_ptr()


def test_muon_updates_the_linear_layers_and_adamw_the_rest():
    network = EncoderDecoder(ModelConfig())
    optimizer = MuonAdamW(network, rate=1e-3, weight_decay=0.0)
    muon, adam = ([id(p) for group in part.param_groups for p in group["params"]] for part in optimizer.parts)
    assert sorted(muon + adam) == sorted(map(id, network.parameters()))
    names = {id(p): name for name, p in network.named_parameters()}
    assert {names[i].rpartition(".")[2] for i in muon} == {"weight"}
    assert not [names[i] for i in muon if names[i].split(".")[0] in ("stem", "refine", "head")]
    assert not [names[i] for i in adam if "key_value.weight" in names[i]]


@pytest.mark.parametrize("shape", [(48, 48), (96, 48), (48, 96)])
def test_muon_moves_a_matrix_equally_in_every_direction(shape):
    """Gradients are a thousand times larger in one direction; the update is as large as AdamW's 0.2 per entry."""
    torch.manual_seed(0)
    layer = nn.Linear(shape[1], shape[0])
    before = layer.weight.detach().clone()
    u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    layer.weight.grad = u @ torch.diag(torch.logspace(0, -3, min(shape))) @ v
    optimizer_of(layer, "muon", rate=1e-2, weight_decay=0.0).step()
    change = layer.weight.detach() - before
    lengths = torch.linalg.svdvals(change)
    # Five steps of Newton-Schulz bring singular values above a hundredth of the norm to between 0.7 and 1.2.
    assert lengths[: min(shape) // 2].min() > 0.5 * lengths[0]
    assert change.square().mean().sqrt() == pytest.approx(0.2 * 1e-2, rel=0.35)


@pytest.mark.parametrize("shape", [(48, 48), (96, 48), (48, 96)])
def test_muon_in_float32_takes_the_steps_of_torchs(shape):
    torch.manual_seed(0)
    ends, states = [], []
    start, gradients = torch.randn(shape), torch.randn(3, *shape)
    for kind in (torch.optim.Muon, Float32Muon):
        weight = nn.Parameter(start.clone())
        optimizer = kind([weight], lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
        for gradient in gradients:
            weight.grad = gradient.clone()
            optimizer.step()
        ends.append(weight.detach())
        states.append(optimizer.state_dict())
    # An update is 0.002 an entry; bfloat16 has two to three digits.
    torch.testing.assert_close(ends[1], ends[0], atol=2e-4, rtol=0)
    torch.testing.assert_close(states[1]["state"], states[0]["state"])


def test_both_optimizers_follow_one_learning_rate():
    network = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    optimizer = optimizer_of(network, "muon", rate=1.0, weight_decay=0.0)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = [p.detach().clone() for p in network.parameters()]
    network(torch.randn(2, 4)).square().sum().backward()
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    optimizer.zero_grad()
    assert all(p.grad is None for p in network.parameters())
