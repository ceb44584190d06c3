"""`imgtx models` on a store in a folder, and how a run, a retry and an evaluation resolve `NAME@latest`."""

import json
from pathlib import Path

import pytest

from imgtx.errors import DONE
from pipeline.runs import last_spec
from tests.support.archive import look, save_tiny_model
from tests.support.commands import complaint, imgtx, without_ray
from tests.support.zoo import photo, saved


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("weights")
    return [save_tiny_model(folder / f"tiny-{seed}.safetensors", seed=seed) for seed in range(2)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working directory with two photos under `in` and a cache of its own; no store is set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("IMGTX_STORE", raising=False)
    (tmp_path / "in").mkdir()
    for number in range(2):
        (tmp_path / "in" / f"{number}.png").write_bytes(saved(photo(20 + number, 24)))
    return tmp_path


@pytest.fixture
def stored(place: Path, weights: list[str]) -> Path:
    """Return the working directory with both weights in the store `models`; the first is the latest."""
    for path in weights:
        assert imgtx("models", "import", path, "models/tiny").exit_code == DONE
    assert said("models", "promote", "models/tiny@1") == "tiny: latest unset -> 0001"
    return place


def said(*arguments: str) -> str:
    result = imgtx(*arguments)
    assert result.exit_code == DONE, result.output
    return result.stdout.strip()


def test_import_promote_and_rollback_move_the_latest_version(place: Path, weights: list[str]):
    assert said("models", "import", weights[0], "models/tiny") == f"{place}/models/tiny@0001"
    assert said("models", "import", weights[0], "models/tiny") == f"{place}/models/tiny@0001"
    assert said("models", "import", weights[1], "models/tiny") == f"{place}/models/tiny@0002"
    assert "no latest version" in complaint("models", "show", "models/tiny@latest")
    assert said("models", "promote", "models/tiny@1") == "tiny: latest unset -> 0001"
    assert said("models", "promote", "models/tiny@0002") == "tiny: latest 0001 -> 0002"
    assert said("models", "promote", "models/tiny@2") == "tiny: latest is 0002 already"
    rows = [row for row in json.loads(said("models", "list", "models", "--json")) if "version" in row]
    assert [(row["name"], row["version"], row["latest"], row["from"]) for row in rows] == [
        ("tiny", "0001", False, "tiny-0.safetensors"),
        ("tiny", "0002", True, "tiny-1.safetensors"),
    ]
    assert said("models", "rollback", "models/tiny") == "tiny: latest 0002 -> 0001"
    assert "cannot be rolled back" in complaint("models", "rollback", "models/tiny")
    shown = json.loads(said("models", "show", "models/tiny@latest"))
    assert shown["scale"] == 2
    assert shown["digest"] == shown["store"]["files"]["model.safetensors"]["sha256"]
    assert [move["why"] for move in shown["store"]["latest"]] == ["by hand", "by hand", "rollback by hand"]


def test_files_packaged_beside_the_weights_are_imported(place: Path):
    said("models", "import", "sr-x2", "models/sr-x2")
    versions = place / "models" / "sr-x2" / "0001"
    assert {path.name for path in versions.iterdir()} == {
        "model.safetensors",
        "card.json",
        "card.md",
        "evaluation.json",
    }
    assert json.loads((versions / "card.json").read_text())["metrics"]["set5"] > 36


def test_a_store_can_be_set_by_the_environment(stored: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IMGTX_STORE", str(stored / "models"))
    assert said("models", "promote", "tiny@2") == "tiny: latest 0001 -> 0002"
    assert "tiny" in said("models", "list")
    assert json.loads(said("models", "show", "tiny@latest"))["store"]["version"] == "0002"


def test_a_run_and_its_retry_use_one_version(stored: Path, monkeypatch: pytest.MonkeyPatch):
    without_ray(monkeypatch)
    arguments = ("upscale", "in", "out", "--model", "models/tiny@latest", "--json")
    assert json.loads(said(*arguments).splitlines()[-1])["written"] == 2
    first = look("out").outputs
    assert last_spec("out", None).model == f"{stored}/models/tiny@0001"
    said("models", "promote", "models/tiny@2")
    summary = json.loads(said("retry", "out", "--json").splitlines()[-1])
    assert (summary["written"], summary["current"]) == (0, 2), "the retry is of the version that ran"
    plan = json.loads(said("plan", "upscale", "in", "out", "--model", "models/tiny@latest", "--json"))
    assert plan["classes"]["stale"]["images"] == 2
    assert json.loads(said(*arguments).splitlines()[-1])["written"] == 2
    second = look("out").outputs
    assert not {*first.values()} & {*second.values()}
    assert "done" in said("status", "out")
    said("models", "rollback", "models/tiny")
    assert json.loads(said(*arguments).splitlines()[-1])["written"] == 2
    assert look("out").outputs == first


def test_an_evaluation_accepts_a_version(stored: Path):
    report = json.loads(said("evaluate", "models/tiny@2", "in", "--json"))
    assert report["digest"] == json.loads(said("models", "show", "models/tiny@2"))["digest"]


def test_training_can_start_from_a_version(stored: Path):
    (stored / "photos").mkdir()
    (stored / "photos" / "a.png").write_bytes(saved(photo(64, 64)))
    lines = ["name = 'next'", "train = 'photos'", "valid = 'photos'", "steps = 1", "crop = 16", "batch = 1"]
    lines += ["init_from = 'models/tiny@2'", "[model]", "dim = 16", "heads = 1", "encoder_blocks = 1"]
    lines += ["decoder_blocks = 1", "detail_channels = 8", "detail_blocks = 1"]
    (stored / "spec.toml").write_text("\n".join(lines))
    made = said("train", "spec.toml")
    began = json.loads(said("models", "show", made))["training"]["started_from"]
    assert began["digest"] == json.loads(said("models", "show", "models/tiny@2"))["digest"]


def test_a_truncated_file_is_not_imported(place: Path, weights: list[str]):
    (place / "half.safetensors").write_bytes(Path(weights[0]).read_bytes()[:-1000])
    assert "not a whole safetensors file" in complaint("models", "import", "half.safetensors", "models/x")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("import", "gone.safetensors", "models/x"), "no weight file at gone.safetensors"),
        (("import", "sr-x2", "sr-x2"), "names no model store: write STORE/sr-x2, or set IMGTX_STORE"),
        (("import", "sr-x2", "models/a@2"), "expected letters, digits"),
        (("promote", "models/tiny"), "is a model in a store; write models/tiny@latest, or @ and a version"),
        (("promote", "models/tiny@latest"), "write STORE/NAME@VERSION"),
        (("promote", "models/tiny@9"), "no tiny@0009 in the model store"),
        (("rollback", "models/other"), "never set"),
        (("show", "models/tiny@9"), "it has 0001, 0002"),
        (("show", "models/tiny"), "is a model in a store; write models/tiny@latest"),
    ],
)
def test_mistakes_end_in_one_line(stored: Path, arguments: tuple[str, ...], words: str):
    assert words in complaint("models", *arguments)


def test_damaged_weights_are_not_promoted(stored: Path):
    (stored / "models" / "tiny" / "0002" / "model.safetensors").write_bytes(b"short")
    assert "not what its card says (it ends after 5 of" in complaint("models", "promote", "models/tiny@2")
    assert json.loads(said("models", "show", "models/tiny@latest"))["store"]["version"] == "0001"


def test_an_empty_store_says_how_to_fill_it(place: Path):
    assert "no model in models: imgtx models import MODEL STORE/NAME" in said("models", "list", "models")
