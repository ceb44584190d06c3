"""VGG-16 with random weights: its layers, its normalisation, and the reading of the Keras file it comes from."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from imgtx.errors import UsageError
from imgtx.training.features import packages, vgg16
from imgtx.training.features.response import check_response


@pytest.fixture(scope="module")
def network() -> vgg16.Vgg16:
    torch.manual_seed(0)
    return vgg16.Vgg16().eval()


def image(side: int = 32) -> torch.Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_activations_by_name(network):
    found = network(image(), ("relu1_2", "relu3_1", "relu4_1"))
    assert {name: tuple(x.shape) for name, x in found.items()} == {
        "relu1_2": (2, 64, 32, 32),
        "relu3_1": (2, 256, 8, 8),
        "relu4_1": (2, 512, 4, 4),
    }
    with pytest.raises(ValueError, match="expected relu1_1 to relu5_3"):
        network(image(), ("relu9_1",))


def test_it_is_frozen_and_passes_gradients_to_the_image(network):
    x = image().requires_grad_()
    network(x, ("relu2_1",))["relu2_1"].sum().backward()
    assert x.grad is not None
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_normalised_activations_differ_by_factors_only(network):
    normalised = vgg16.Vgg16()
    normalised.load_state_dict(network.state_dict())
    vgg16.normalise_activations(normalised, image())
    layers = ("relu1_2", "relu2_2", "relu4_1")
    before, after = network(image(), layers), normalised(image(), layers)
    for layer in layers:
        old, new = (x.transpose(0, 1).flatten(1) for x in (before[layer], after[layer]))
        strong = old.square().mean(1).sqrt() > vgg16.WEAK_CHANNEL * old.square().mean(1).sqrt().mean()
        assert strong.any()
        torch.testing.assert_close(
            new[strong].square().mean(1), torch.ones(int(strong.sum())), rtol=1e-3, atol=0
        )
        factors = (old.norm(dim=1) / new.norm(dim=1))[strong, None]
        torch.testing.assert_close(new[strong] * factors, old[strong], rtol=1e-3, atol=1e-5)


def test_another_network_is_refused(network):
    with pytest.raises(UsageError, match=r"expected 52\.39"):
        check_response(vgg16.NAME, vgg16.mean_responses(network), vgg16.KNOWN_RESPONSE)


def test_loads_what_is_built(network, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    packages.cached(vgg16.NAME).parent.mkdir(parents=True)
    save_file(network.state_dict(), packages.cached(vgg16.NAME))
    assert torch.equal(
        vgg16.load()(image(), ("relu1_1",))["relu1_1"], network(image(), ("relu1_1",))["relu1_1"]
    )


def test_reads_keras_kernels(network, tmp_path):
    """HWIO for BGR in levels of 255, as the package stores them, become what the network holds."""
    h5py = pytest.importorskip("h5py")
    state = network.state_dict()
    with h5py.File(tmp_path / "w.h5", "w") as file:
        for name, kernel in state.items():
            if not name.endswith("weight"):
                continue
            block, number = (int(part) for part in name.split(".")[1].removeprefix("conv").split("_"))
            kernel = kernel.numpy()[:, ::-1] / 255 if (block, number) == (1, 1) else kernel.numpy()
            group = f"block{block}/layers/conv2d{f'_{number - 1}' if number > 1 else ''}/vars"
            file[f"{group}/0"] = kernel.transpose(2, 3, 1, 0)
            file[f"{group}/1"] = state[name.replace("weight", "bias")].numpy()
    read = vgg16.read_keras(tmp_path / "w.h5")
    assert read.keys() == state.keys()
    for name, tensor in read.items():
        np.testing.assert_allclose(tensor.numpy(), state[name].numpy(), rtol=1e-6)
