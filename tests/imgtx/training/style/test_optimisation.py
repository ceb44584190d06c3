"""Optimising one image by the losses of style transfer, with random features."""

import numpy as np
import pytest
import torch

from imgtx.training.features import vgg16
from imgtx.training.style.optimisation import Optimisation
from tests.support.small_style import painting
from tests.support.zoo import photo


@pytest.fixture
def random_features(monkeypatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(vgg16, "load", lambda: vgg16.Vgg16().eval())


@pytest.mark.usefixtures("the_real_processor")
def test_an_image_comes_nearer_to_the_styles_colours(random_features):
    content, style = photo(128, 128), painting(5, 128, 128)
    output = Optimisation([content, style], steps=4)(content, style)
    assert output.shape == content.shape
    assert output.dtype == np.uint8

    def gap(image: np.ndarray) -> float:
        return float(np.abs(image.mean((0, 1)) - style.mean((0, 1))).mean())

    assert gap(output) < gap(content)
