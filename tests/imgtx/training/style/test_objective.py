"""The objective of style transfer on a random VGG-16: what it asks for, and that it can be descended."""

import pytest
import torch

from imgtx.training.features.vgg16 import Vgg16, normalise_activations
from imgtx.training.style.objective import StyleObjective, total
from imgtx.training.style.weights import StyleWeights


def noise(count: int, seed: int, scale: int = 4, side: int = 128) -> torch.Tensor:
    """(count, 3, side, side) in [0, 1]: squares of `scale` pixels."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(count, 3, side // scale, side // scale, generator=generator)
    return small.repeat_interleave(scale, 2).repeat_interleave(scale, 3)


@pytest.fixture(scope="module")
def objective() -> StyleObjective:
    torch.manual_seed(0)
    network = Vgg16()
    normalise_activations(network, noise(2, seed=9))
    return StyleObjective(network)


def parts(objective, output, content, styles) -> dict[str, float]:
    torch.manual_seed(0)
    targets = objective.targets(styles)
    found = objective(output, content, targets, torch.Generator().manual_seed(1))
    return {name: float(value) for name, value in found.items()}


def test_the_content_itself_keeps_its_structure(objective):
    content, styles = noise(4, 1), noise(2, 2, scale=16)
    unchanged = parts(objective, content, content, styles)
    assert unchanged["content"] == 0
    assert parts(objective, noise(4, 3), content, styles)["content"] > 0.5


def test_the_style_itself_has_its_statistics(objective):
    content, styles = noise(4, 1), noise(2, 2, scale=16)
    mirrored = torch.stack([styles, styles.flip(3)], 1).flatten(0, 1)
    own = parts(objective, mirrored, content, styles)
    unchanged = parts(objective, content, content, styles)
    swapped = parts(objective, mirrored.roll(2, 0) ** 3, content, styles)
    for name in ("moments", "sliced"):
        assert own[name] < 0.7 * unchanged[name]
        assert own[name] < 0.7 * swapped[name]


def test_values_outside_the_range_cost(objective):
    content, styles = noise(2, 1), noise(1, 2)
    beyond = parts(objective, content + 1, content, styles)["smooth"]
    assert beyond > parts(objective, content, content, styles)["smooth"] + 1


def test_descent_lowers_the_loss(objective):
    content, styles = noise(1, 1), noise(1, 2, scale=16)
    targets, weights = objective.targets(styles), StyleWeights()
    output = content.clone().requires_grad_()
    optimizer, history = torch.optim.Adam([output], 0.04), []
    for _ in range(3):
        loss = total(weights, objective(output, content, targets, torch.Generator().manual_seed(0)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.95 * history[0]


def test_weights_count_the_parts_that_are_given():
    weights = StyleWeights(content=2, identity=3, smooth=0)
    given = {"content": torch.tensor(1.0), "identity": torch.tensor(0.5), "smooth": torch.tensor(7.0)}
    assert total(weights, given) == pytest.approx(3.5)
