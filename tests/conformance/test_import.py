"""Third-party weights in a model store: converted, with what was measured of them, the same pixels."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import imgtx
from imgtx.errors import ModelError, UsageError
from imgtx.models.references import digest_of, find_source, load_model, read_info
from imgtx.models.sidecar import write_sidecar
from jobs.models.admin import import_model, promote
from pipeline.models.resolve import local_model
from pipeline.models.store import ModelStore
from pipeline.storage.store import open_store
from tests.conformance.architectures import save
from tests.conformance.conftest import save_torchscript, without_spandrel
from tests.support.small_models import noise

pytestmark = without_spandrel


class Explodes:
    def __reduce__(self):
        return Path.touch, (Path("it-was-unpickled"),)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_an_imported_pickle_gives_the_same_pixels(place: Path):
    path = save("SPAN", place)
    exact, version = import_model(str(path), "models/span")
    found = local_model(exact)
    assert found.endswith(".safetensors")
    image = noise(24, 31)
    np.testing.assert_array_equal(imgtx.load(found)(image), imgtx.load(path)(image))
    assert version.card["converted_from"] == digest_of(find_source(path))
    assert version.card["info"]["scale"] == 2
    assert promote(exact).after.version == version.number


def test_the_probes_measurements_are_imported_and_bound_to_the_new_file(place: Path):
    path = save("Compact", place)
    source = find_source(path)
    info = load_model(path).info
    measured = type(info)(**{**vars(info), "halo": 48})
    write_sidecar(path, digest_of(source), measured, {"seams": {}})
    exact, version = import_model(str(path), "models/compact")
    found, digest = read_info(local_model(exact))
    assert (found.halo, digest) == (48, version.digest)


def test_the_same_file_twice_is_one_version(place: Path):
    path = str(save("Compact", place))
    assert import_model(path, "models/compact")[0] == import_model(path, "models/compact")[0]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("hostile.pth", pickle.dumps(Explodes()), "would run code; nothing was run"),
        ("hostile.safetensors", pickle.dumps(Explodes()), "not a whole safetensors file"),
    ],
)
def test_a_pickle_with_code_is_not_imported(place: Path, name: str, content: bytes, complaint: str):
    (place / name).write_bytes(content)
    with pytest.raises(ModelError, match=complaint):
        import_model(name, "models/x")
    assert not (place / "it-was-unpickled").exists()
    assert ModelStore(open_store("models")).versions() == []


def test_tensors_of_an_unknown_network_are_not_imported(place: Path):
    save_file({"a": np.zeros(3, np.float32)}, place / "foreign.safetensors")
    with pytest.raises(ModelError, match="knows no architecture"):
        import_model("foreign.safetensors", "models/x")


def test_a_torchscript_program_is_not_imported(place: Path):
    with pytest.raises(UsageError, match=r"a model store takes .* files that spandrel reads"):
        import_model(save_torchscript(place / "p.pt"), "models/x")


def test_a_version_records_its_original_file(place: Path):
    exact, _ = import_model(str(save("Compact", place)), "models/compact")
    from jobs.models.admin import store_facts

    assert json.dumps(store_facts(exact)["store"]["from"]) == '"Compact.pth"'
