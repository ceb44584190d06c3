"""Grey images with equalised levels: what counts there, and how it is learnt from."""

import torch

from imgtx.training.style.grey import equalised


def images(count: int = 2, side: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_every_level_is_as_frequent():
    levels = equalised(images()).flatten(2)[:, 0].sort(dim=1).values
    assert torch.allclose(levels, ((torch.arange(64**2) + 0.5) / 64**2).expand(2, -1))


def test_contrast_and_colour_do_not_count():
    grey = images()[:, :1].expand(-1, 3, -1, -1)
    # Levels that round to the same number may change places.
    assert torch.allclose(equalised(grey), equalised(0.2 + 0.5 * grey.square()), atol=1e-3)
    tinted = grey * torch.tensor([0.9, 0.5, 0.1])[:, None, None]
    assert torch.allclose(equalised(grey), equalised(tinted), atol=1e-3)


def test_a_gradient_leads_to_the_wanted_levels():
    torch.manual_seed(0)
    image, wanted = torch.rand(1, 3, 32, 32).requires_grad_(), equalised(torch.rand(1, 3, 32, 32))
    optimizer = torch.optim.Adam([image], 0.02)
    losses = []
    for _ in range(60):
        loss = (equalised(image) - wanted).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.1 * losses[0]


def test_what_changes_all_levels_alike_has_no_gradient():
    image = images(1).requires_grad_()
    equalised(image).mul(images(1).flip(2)).sum().backward()
    gradient = image.grad
    assert gradient is not None
    for change in (torch.ones_like(image), image.detach() - 0.5):
        assert (gradient * change).sum().abs() < 0.02 * (gradient * change).abs().sum()


def test_even_areas_have_finite_gradients():
    image = torch.full((1, 3, 32, 32), 0.5, requires_grad=True)
    equalised(image).square().sum().backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()
