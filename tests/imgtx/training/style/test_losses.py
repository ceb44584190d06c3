"""The losses of style transfer: what they ignore and what they see."""

import pytest
import torch

from imgtx.training.style import losses


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def activations(count: int = 4, channels: int = 8, side: int = 32) -> torch.Tensor:
    return torch.rand(count, channels, side, side).square()


def both(one: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Moment and sliced distances of each style between two (B, C, H, W), two images a style."""
    along = losses.directions(one.shape[1], 6, torch.Generator().manual_seed(0))
    own, style = (losses.statistics(losses.grouped(x, 2), along) for x in (one, other))
    return losses.moment_distance(own, style), losses.sliced_distance(own, style)


def test_directions_are_unit_vectors():
    assert torch.allclose(losses.directions(64, 10, torch.Generator()).norm(dim=0), torch.ones(10))


def test_style_does_not_ask_where():
    x = activations()
    shuffled = x.flatten(2)[..., torch.randperm(1024)].view_as(x)
    for distance in both(x, shuffled):
        assert torch.allclose(distance, losses.root(torch.zeros(2)), atol=1e-4)


def test_images_of_a_style_are_judged_together():
    x = activations()
    swapped = torch.cat([x[1:2], x[:1], x[2:]])
    assert all(torch.allclose(d, losses.root(torch.zeros(2)), atol=1e-4) for d in both(x, swapped))


def test_style_sees_scale_in_its_own_group_only():
    x = activations()
    louder = torch.cat([x[:2], 2 * x[2:]])
    for quiet, loud in both(x, louder):
        assert loud > 3 * quiet


def test_slices_see_what_moments_do_not():
    gauss = torch.randn(2, 1, 64, 64)
    signs = gauss.sign()  # the same mean and deviation
    moments, sliced = both(signs, gauss)
    assert moments < 0.06
    assert sliced > 0.3


def test_quantiles_do_not_depend_on_the_number_of_positions():
    x = activations(2, side=64)
    along = losses.directions(8, 6, torch.Generator().manual_seed(0))
    all_of_them = losses.statistics(losses.grouped(x, 2), along, most=10**9)
    some = losses.statistics(losses.grouped(x, 2), along, most=2048)
    assert all_of_them.quantiles.shape == some.quantiles.shape == (1, 6, losses.QUANTILES)
    assert (all_of_them.quantiles - some.quantiles).abs().mean() < 0.02


def test_content_ignores_contrast_and_sees_structure():
    x = activations()
    assert losses.content_distance(3 * x + 1, x).max() < 0.05
    assert (losses.content_distance(x.flip(3), x) - 2).abs().max() < 0.2


def test_total_variation():
    assert losses.total_variation(torch.full((1, 3, 8, 8), 0.3)) == 0
    ramp = torch.linspace(0, 0.7, 8).expand(1, 3, 8, 8)
    assert losses.total_variation(ramp) == pytest.approx(0.1)
