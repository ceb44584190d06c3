"""Guarantees of a model store on every back end: versions stay, the pointer moves once, damage is reported."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imgtx.errors import ModelError, UsageError
from imgtx.models.weight_file import file_digest, read_info
from pipeline.models.resolve import exact_reference, local_model
from pipeline.models.store import CARD, MODEL, ModelStore
from pipeline.storage.store import Store
from tests.support.archive import save_tiny_model


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("weights")
    return [Path(save_tiny_model(folder / f"{seed}.safetensors", seed=seed)) for seed in range(3)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "imgtx" / "models"


@pytest.fixture
def models(store: Store) -> ModelStore:
    return ModelStore(store)


@pytest.fixture
def filled(models: ModelStore, weights: list[Path]) -> ModelStore:
    """Return a store with three versions of `tiny`; the second is the latest, promoted after the first."""
    for path in weights:
        models.add("tiny", path.read_bytes(), {"note": path.stem}, {"card.md": b"# tiny\n"})
    for number in ("0001", "0002"):
        assert models.promote("tiny", number, why="by hand", over=models.latest("tiny"))
    return models


def reference(models: ModelStore, version: str) -> str:
    return f"{models.store.uri.rstrip('/')}/tiny@{version}"


def test_an_empty_store_has_nothing(models: ModelStore):
    assert models.names() == models.versions() == models.numbers("tiny") == models.history("tiny") == []
    assert models.latest("tiny") is None


def test_versions_are_numbered_and_describe_their_content(filled: ModelStore, weights: list[Path]):
    assert filled.names() == ["tiny"]
    versions = filled.versions("tiny")
    assert versions == filled.versions()
    assert [v.number for v in versions] == ["0001", "0002", "0003"]
    assert [v.digest for v in versions] == [file_digest(path) for path in weights]
    assert versions[2].card["note"] == "2"
    assert set(versions[2].files) == {MODEL, "card.md"}
    assert filled.version("tiny", "0003") == versions[2]


def test_the_same_weights_twice_are_one_version(filled: ModelStore, weights: list[Path]):
    again = filled.add("tiny", weights[0].read_bytes(), {"note": "other words"})
    assert (again.number, again.card["note"]) == ("0001", "0")
    assert filled.numbers("tiny") == ["0001", "0002", "0003"]


def test_racing_writers_get_separate_versions(models: ModelStore):
    together = threading.Barrier(6)

    def add(number: int) -> str:
        together.wait()
        return models.add("tiny", bytes([number]) * 100, {}).number

    with ThreadPoolExecutor(6) as pool:
        numbers = list(pool.map(add, range(6)))
    assert sorted(numbers) == models.numbers("tiny")
    assert len(set(numbers)) == 6


def test_a_killed_writer_leaves_an_unused_number(filled: ModelStore):
    filled.store.write(f"tiny/0004/{MODEL}", b"half of what was to come")
    assert filled.numbers("tiny") == ["0001", "0002", "0003"]
    with pytest.raises(UsageError, match=r"no tiny@0004 .*it has 0001, 0002, 0003"):
        filled.version("tiny", "0004")
    assert filled.add("tiny", b"whole", {}).number == "0005"


def test_a_foreign_object_is_not_mistaken_for_a_version(models: ModelStore, monkeypatch):
    claim = models._claim

    def claimed(name: str, data: bytes) -> str:
        number = claim(name, data)
        models.store.write(f"{name}/{number}/{CARD}", b"{}")
        return number

    monkeypatch.setattr(models, "_claim", claimed)
    with pytest.raises(ModelError, match="card of another writer"):
        models.add("tiny", b"1", {})


def test_only_one_of_many_racers_moves_latest(filled: ModelStore):
    before = filled.latest("tiny")
    together = threading.Barrier(6)

    def promote(number: int) -> bool:
        together.wait()
        return filled.promote("tiny", f"{number % 3 + 1:04d}", why=str(number), over=before) is not None

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(promote, range(6))) == 1
    latest = filled.latest("tiny")
    assert (latest.generation, latest.version) == (3, f"{int(latest.why) % 3 + 1:04d}")


def test_promoting_from_an_outdated_pointer_changes_nothing(filled: ModelStore):
    assert filled.promote("tiny", "0003", why="late", over=None) is None
    assert filled.latest("tiny").version == "0002"


def test_only_an_existing_version_can_be_promoted(filled: ModelStore):
    with pytest.raises(UsageError, match="no tiny@0009"):
        filled.promote("tiny", "0009", why="", over=filled.latest("tiny"))


def test_rollback_moves_back_step_by_step(filled: ModelStore):
    filled.promote("tiny", "0003", why="gate", over=filled.latest("tiny"))
    assert [filled.rollback("tiny").version for _ in range(2)] == ["0002", "0001"]
    with pytest.raises(UsageError, match="first version 0001"):
        filled.rollback("tiny")
    filled.promote("tiny", "0003", why="gate", over=filled.latest("tiny"))
    assert filled.rollback("tiny").version == "0001"
    assert [p.version for p in filled.history("tiny")] == [
        "0001",
        "0002",
        "0003",
        "0002",
        "0001",
        "0003",
        "0001",
    ]


def test_a_pointer_that_was_never_set_cannot_be_rolled_back(models: ModelStore):
    with pytest.raises(UsageError, match="never set"):
        models.rollback("tiny")


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".hidden", "a b", "a@1", "x.safetensors"])
def test_names_must_be_simple(models: ModelStore, name: str):
    with pytest.raises(UsageError, match="expected letters"):
        models.add(name, b"1", {})


def test_a_reference_resolves_to_a_version_and_then_to_a_verified_file(
    filled: ModelStore, weights: list[Path], cache: Path
):
    exact = exact_reference(reference(filled, "latest"))
    assert exact == reference(filled, "0002") == exact_reference(reference(filled, "2"))
    path = Path(local_model(exact))
    assert path.is_relative_to(cache)
    assert path.read_bytes() == weights[1].read_bytes()
    assert read_info(path)[1] == filled.version("tiny", "0002").digest
    filled.promote("tiny", "0003", why="gate", over=filled.latest("tiny"))
    assert local_model(exact) == str(path), "an exact reference stays what it was"


def test_a_cached_file_is_verified_and_repaired(filled: ModelStore, weights: list[Path], monkeypatch):
    path = Path(local_model(reference(filled, "1")))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert Path(local_model(reference(filled, "1"))).read_bytes() == weights[0].read_bytes()
    monkeypatch.setattr(Store, "download", lambda *_: pytest.fail("fetched again"))
    assert local_model(reference(filled, "1")) == str(path)


@pytest.mark.parametrize("damage", ["truncated", "foreign"])
def test_a_damaged_version_is_reported_and_never_used(
    filled: ModelStore, weights: list[Path], damage: str, cache: Path
):
    whole = weights[0].read_bytes()
    filled.store.write(f"tiny/0001/{MODEL}", whole[:-100] if damage == "truncated" else b"x" * len(whole))
    what = (
        f"it ends after {len(whole) - 100} of {len(whole)} bytes" if damage == "truncated" else "other bytes"
    )
    with pytest.raises(ModelError, match=rf"tiny/0001/{MODEL} is not what its card says \({what}") as caught:
        local_model(reference(filled, "1"))
    assert "\n" not in str(caught.value)
    assert not [p for p in cache.rglob("*") if p.is_file()]
    anew = filled.add("tiny", whole, {})
    assert Path(local_model(reference(filled, anew.number))).read_bytes() == whole


@pytest.mark.parametrize(
    "card", [b"", b"[1]", b"{}", b'{"files": {"model.safetensors": {"sha256": "../..", "bytes": 1}}}']
)
def test_a_damaged_card_is_reported(filled: ModelStore, card: bytes):
    filled.store.write(f"tiny/0001/{CARD}", card)
    with pytest.raises(ModelError, match=rf"tiny/0001/{CARD} (cannot be read|holds no|has no)"):
        local_model(reference(filled, "1"))


def test_a_plain_file_is_fetched_once_per_content(store: Store, weights: list[Path], monkeypatch):
    uri = f"{store.uri.rstrip('/')}/some model.safetensors"
    store.write("some model.safetensors", weights[0].read_bytes())
    if store.is_local:
        assert local_model(uri) == uri, "a local path is what it is"
        return
    first = Path(local_model(uri))
    assert (first.name, first.read_bytes()) == ("some model.safetensors", weights[0].read_bytes())
    with monkeypatch.context() as patch:
        patch.setattr(Store, "download", refuse_models(Store.download))
        assert local_model(uri) == str(first)
    store.write("some model.safetensors", weights[1].read_bytes())
    store.write("some model.safetensors.imgtx.json", b'{"version": 1}')
    second = Path(local_model(f"spandrel:{uri}").removeprefix("spandrel:"))
    assert second.read_bytes() == weights[1].read_bytes()
    assert second.with_name("some model.safetensors.imgtx.json").read_bytes() == b'{"version": 1}'
    assert exact_reference(uri) == uri


def refuse_models(download):
    def refusing(self: Store, key: str, path: str, *, version: str = "") -> None:
        assert key.endswith(".imgtx.json"), f"fetched {key} again"
        download(self, key, path, version=version)

    return refusing


def test_a_missing_object_is_reported(filled: ModelStore):
    with pytest.raises(UsageError, match=r"no tiny@0007 .* it has 0001, 0002, 0003"):
        local_model(reference(filled, "7"))
    with pytest.raises(UsageError, match=r"other has no latest version in .*; the store has tiny"):
        exact_reference(reference(filled, "latest").replace("tiny", "other"))
    if not filled.store.is_local:
        with pytest.raises(UsageError, match=r"no model at .*gone\.pth"):
            local_model(f"{filled.store.uri.rstrip('/')}/gone.pth")


def test_files_unused_for_a_month_are_removed_from_the_cache(filled: ModelStore, cache: Path, monkeypatch):
    first = Path(local_model(reference(filled, "1")))
    monkeypatch.setattr("pipeline.models.cache.KEPT_DAYS", -1)
    second = Path(local_model(reference(filled, "2")))
    assert second.exists()
    assert not first.exists()
    assert Path(local_model(reference(filled, "1"))).exists()


def test_an_unwritable_cache_is_reported(filled: ModelStore, cache: Path):
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where a folder must be")
    with pytest.raises(ModelError, match="set XDG_CACHE_HOME"):
        local_model(reference(filled, "1"))
