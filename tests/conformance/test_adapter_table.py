"""Adding a kind of model takes one file and one line, shown with a made-up one."""

import hashlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import imgtx
from imgtx.errors import UsageError
from imgtx.models import references
from imgtx.models.adapters import ADAPTERS
from imgtx.models.info import ModelInfo
from jobs.models.admin import import_model
from jobs.models.probe import describe
from pipeline.job import make_job
from pipeline.models.resolve import local_model
from pipeline.spec import RunSpec
from tests.support.small_models import Nearest, noise


def load(source, digest):
    scale = int(source.path.read_text()) * int(source.declared.get("times", 1))
    model = Nearest(ModelInfo("nearest", "super-resolution", scale, multiple=1, halo=4))
    model.digest, model.record = digest, {"architecture": "none"}
    return model


NEAREST = SimpleNamespace(
    PREFIX="nearest",
    SUFFIXES=(".nearest",),
    IS_FOLDER=False,
    MARK="",
    folder_files=None,
    FORM="nearest:{path} for a number",
    DECLARES=True,
    convert=None,
    facts=None,
    recognizes=lambda path: path.suffix == ".nearest",
    digest=lambda source: hashlib.sha256(f"{source.path.read_text()} {source.declared}".encode()).hexdigest(),
    load=load,
)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(references, "ADAPTERS", (*ADAPTERS, NEAREST))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.nearest"
    path.write_text("3")
    return path


def test_a_new_adapter_runs_by_suffix_and_by_prefix(model: Path):
    image = noise(5, 7, 3)
    np.testing.assert_array_equal(imgtx.load(model, device="cpu")(image), image.repeat(3, 0).repeat(3, 1))
    doubled = imgtx.load(f"nearest:{model}?times=2", device="cpu")
    np.testing.assert_array_equal(doubled(image), image.repeat(6, 0).repeat(6, 1))


def test_a_run_is_planned_with_a_new_adapter_and_every_declared_value_enters_the_digest(model: Path):
    info, digest = references.read_info("nearest:x.nearest?times=2")
    assert make_job(RunSpec("in", "out", model="nearest:x.nearest?times=2"), info, digest).info.scale == 6
    assert digest != references.read_info(model)[1]
    assert references.absolute("nearest:x.nearest?times=2") == f"nearest:{model}?times=2"
    assert describe(str(model))["model"] == {"architecture": "none"}


def test_a_new_adapters_file_is_fetched_from_storage(model: Path):
    assert Path(local_model(f"memory://{_in_memory(model)}")).read_text() == "3"


def _in_memory(model: Path) -> str:
    import fsspec

    fsspec.filesystem("memory").pipe("/models/x.nearest", model.read_bytes())
    return "models/x.nearest"


def test_unsupported_options_of_an_adapter_are_reported(model: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="a model store takes"):
        import_model(str(model), "models/x")
    (tmp_path / "x.unknown").write_text("3")
    with pytest.raises(UsageError, match=r"\.nearest\): write .*, nearest:.*x\.unknown for a number"):
        references.find_source(tmp_path / "x.unknown")
    with pytest.raises(UsageError, match=r"no model file at no\.nearest"):
        references.find_source("no.nearest")


def test_the_table_is_read_without_torch():
    code = "import sys, imgtx.models.adapters; assert not {'torch', 'spandrel', 'transformers'} & sys.modules.keys()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_each_prefix_and_suffix_selects_one_adapter():
    prefixes = [adapter.PREFIX for adapter in ADAPTERS]
    suffixes = [suffix for adapter in ADAPTERS for suffix in adapter.SUFFIXES]
    assert len({*prefixes}) == len(prefixes)
    assert len({*suffixes}) == len(suffixes)
