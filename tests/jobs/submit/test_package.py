"""The package for a cluster contains all code in the same bytes every time, no data, and is not too large."""

import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from imgtx.errors import UsageError
from jobs.submit import package as code_package
from jobs.submit.package import files_to_ship, packages, write_package
from pipeline.cluster.environment import CODE


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for name in ("imgtx/a.py", "imgtx/packaged/w.safetensors", "pipeline/b.py", "jobs/c.py", "jobs/__pycache__/c.pyc",
                 "data/photo.png", "tests/t.py", "requirements.lock"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 10)
    return tmp_path


def shipped(root: Path, **extra: Path) -> list[str]:
    return sorted(files_to_ship(root, extra))


CODE_OF_CLONE = [
    "imgtx/a.py",
    "imgtx/packaged/w.safetensors",
    "jobs/c.py",
    "pipeline/b.py",
    "requirements.lock",
]


def test_code_is_packaged_and_data_is_not(clone):
    assert shipped(clone) == CODE_OF_CLONE


def test_rayignore_is_read_like_gitignore(clone):
    (clone / ".rayignore").write_text("# a comment\n*.safetensors\n/jobs/c.py\n")
    assert shipped(clone) == ["imgtx/a.py", "pipeline/b.py", "requirements.lock"]


def test_this_clone_packages_everything_a_run_needs():
    names = shipped(CODE)
    assert {
        "jobs/cli/__init__.py",
        "pipeline/flow.py",
        "imgtx/packaged/sr-x2.safetensors",
        "requirements.lock",
    } <= {*names}
    assert not [
        name for name in names if name.startswith(("tests/", "bench/", "docs/")) or "__pycache__" in name
    ]


def test_an_oversized_package_is_refused_and_the_largest_files_are_named(clone, monkeypatch):
    monkeypatch.setattr(code_package, "MAX_BYTES", 2_000_000)
    (clone / "imgtx" / "packaged" / "w.safetensors").write_bytes(bytes(2_500_000))
    with pytest.raises(UsageError, match=r"w\.safetensors 2\.5 MB, .*\.rayignore"):
        shipped(clone)


def test_the_same_files_give_the_same_bytes(clone, tmp_path_factory):
    out = tmp_path_factory.mktemp("zips")
    spec = out / "spec.toml"
    spec.write_text("quality = 80")
    files = files_to_ship(clone, {"specs/s.toml": spec})
    write_package(out / "one.zip", files)
    (clone / "imgtx" / "a.py").touch()
    write_package(out / "two.zip", dict(reversed(files.items())))
    assert (out / "one.zip").read_bytes() == (out / "two.zip").read_bytes()
    with zipfile.ZipFile(out / "one.zip") as file:
        assert sorted(file.namelist()) == sorted([*CODE_OF_CLONE, "specs/s.toml"])
        assert file.read("specs/s.toml") == b"quality = 80"


def test_requirements_are_pinned_by_the_lock_and_exclude_ray():
    *wanted, pins = packages(CODE)
    names = {Requirement(line).name for line in wanted}
    assert {"torch", "pyarrow", "s3fs"} <= names
    assert not names & {"ray", "pytest", "matplotlib"}
    assert pins == "-c ${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}/requirements.lock"


def test_without_a_lock_nothing_is_pinned(tmp_path):
    with pytest.raises(UsageError, match="--packages image"):
        packages(tmp_path)
