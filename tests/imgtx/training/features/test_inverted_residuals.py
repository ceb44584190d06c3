"""MobileNetV2 and EfficientNet-Lite0 with random weights: shapes, padding, and the reading of the packages' files."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from imgtx.errors import UsageError
from imgtx.training.features import inverted_residuals as networks
from imgtx.training.features.inverted_residuals import (
    EFFICIENTNET_LITE0,
    MOBILENET_V2,
    RECIPES,
    InvertedResiduals,
    PaddedConv,
    Recipe,
)


@pytest.fixture(params=RECIPES.values(), ids=RECIPES)
def recipe(request) -> Recipe:
    return request.param


def test_activations_of_each_stage(recipe):
    network = InvertedResiduals(recipe).eval()
    found = network(torch.rand(2, 3, 64, 96))
    assert [x.shape[1] for x in found] == [stage.channels for stage in recipe.stages]
    assert [tuple(x.shape[2:]) for x in found[:3]] == [(32, 48), (16, 24), (8, 12)]
    assert network.classify(torch.rand(2, 3, 64, 64)).shape == (2, 1000)


@pytest.mark.parametrize(
    ("kernel", "stride", "side"), [(3, 2, 8), (3, 2, 9), (5, 2, 8), (5, 1, 7), (3, 1, 8)]
)
def test_same_padding_puts_more_below(kernel, stride, side):
    """As TensorFlow documents it; where the padding is even, as PyTorch's."""
    conv = PaddedConv(1, 1, kernel, stride=stride, same=True)
    x = torch.rand(1, 1, side, side)
    total = max(0, (-(-side // stride) - 1) * stride + kernel - side)
    before, after = total // 2, total - total // 2
    expected = F.conv2d(F.pad(x, (before, after, before, after)), conv.weight, conv.bias, stride)
    assert conv(x).shape[-1] == -(-side // stride)
    torch.testing.assert_close(conv(x), expected)


def package_file(
    recipe: Recipe,
) -> tuple[dict[str, torch.Tensor], dict[str, tuple[nn.Conv2d, nn.BatchNorm2d]]]:
    """What the package's file may hold, and the same as layers, by our own name."""
    torch.manual_seed(0)
    state, layers = {}, {}
    own = dict(InvertedResiduals(recipe).named_modules())
    for name, (conv_name, norm_name) in networks.layer_names(recipe).items():
        conv = own[name]
        assert isinstance(conv, nn.Conv2d)
        plain = nn.Conv2d(
            conv.in_channels, conv.out_channels, conv.kernel_size, bias=False, groups=conv.groups
        )
        norm = nn.BatchNorm2d(conv.out_channels, eps=recipe.epsilon).eval()
        with torch.no_grad():
            for tensor in (norm.weight, norm.bias, norm.running_mean):
                tensor.normal_()
            norm.running_var.uniform_(0.5, 2)
        state |= {f"{conv_name}.{key}": tensor for key, tensor in plain.state_dict().items()}
        state |= {f"{norm_name}.{key}": tensor for key, tensor in norm.state_dict().items()}
        layers[name] = (plain, norm)
    classifier = "classifier.1" if recipe is MOBILENET_V2 else "_fc"
    state |= {f"{classifier}.weight": torch.randn(1000, 1280), f"{classifier}.bias": torch.randn(1000)}
    return state, layers


@pytest.mark.parametrize(
    ("recipe", "some_names"),
    [
        (MOBILENET_V2, {"features.1.conv.0.0.weight", "features.2.conv.1.1.bias", "features.18.0.weight"}),
        (EFFICIENTNET_LITE0, {"_blocks.0._bn2.bias", "_blocks.15._expand_conv.weight", "_conv_head.weight"}),
    ],
    ids=RECIPES,
)
def test_reads_the_package_with_its_normalisation(recipe, some_names, tmp_path):
    state, layers = package_file(recipe)
    assert some_names <= state.keys()
    torch.save(state, tmp_path / "w.pth")
    network = InvertedResiduals(recipe).eval()
    network.load_state_dict(networks.read_checkpoint(tmp_path / "w.pth", recipe))
    own = dict(network.named_modules())
    for name in ("stem", "blocks.0.depthwise", "blocks.3.expand", "blocks.15.project", "head"):
        plain, norm = layers[name]
        x = torch.rand(1, plain.in_channels, 7, 7)
        expected = norm(plain(x))
        folded = F.conv2d(x, own[name].weight, own[name].bias, groups=plain.groups)
        torch.testing.assert_close(folded, expected, rtol=1e-3, atol=1e-4)


def test_a_file_that_is_no_checkpoint(recipe, tmp_path):
    (tmp_path / "w.pth").write_bytes(b"nothing")
    with pytest.raises(UsageError, match=r"w\.pth is no PyTorch file"):
        networks.read_checkpoint(tmp_path / "w.pth", recipe)


def test_other_weights_are_not_built(recipe, tmp_path, monkeypatch):
    """What answers otherwise than the tested network never reaches the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.save(package_file(recipe)[0], tmp_path / "w.pth")
    monkeypatch.setattr(networks, "fetch", lambda *_: tmp_path / "w.pth")
    with pytest.raises(UsageError, match="its weights were read wrongly"):
        networks.build(recipe)
    assert not networks.cached(recipe.name).exists()
