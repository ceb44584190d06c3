"""One resolution of a reference gives everything that a run needs to know of its model."""

from pathlib import Path

import pytest

from imgtx.models.weight_file import file_digest, find_weights, read_info
from pipeline.models import resolve
from pipeline.models.resolve import ResolvedModel, exact_reference, local_model, resolve_model
from pipeline.models.store import ModelStore
from pipeline.storage.store import open_store


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return find_weights("sr-x2").read_bytes()


def test_a_packaged_name_stays_what_it_is():
    info, digest = read_info("sr-x2")
    assert resolve_model("sr-x2") == ResolvedModel("sr-x2", "sr-x2", info, digest, fetched=False)


def test_a_local_file_gets_its_absolute_path(weights: bytes, tmp_path: Path):
    Path("x.safetensors").write_bytes(weights)
    found = resolve_model("x.safetensors")
    assert (found.reference, found.fetched) == (f"{tmp_path}/x.safetensors", False)
    assert found.digest == file_digest(Path(found.local))


def test_the_latest_version_is_looked_up_and_opened_once(
    weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    models = ModelStore(open_store("models"))
    models.promote("m", models.add("m", weights, {}).number, why="test", over=None)
    opened = []

    def counted(uri: str, **options):
        opened.append(uri)
        return open_store(uri, **options)

    monkeypatch.setattr(resolve, "open_store", counted)
    found = resolve_model("models/m@latest")
    assert opened == ["models"]
    assert found.fetched
    assert found.reference.endswith(f"{tmp_path}/models/m@0001")
    assert found.info == read_info("sr-x2")[0]
    assert Path(found.local).read_bytes() == weights
    assert local_model("models/m@latest") == found.local
    assert exact_reference("models/m@latest") == found.reference
