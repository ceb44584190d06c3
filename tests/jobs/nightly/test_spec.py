"""A nightly spec that cannot work ends in one line before the run begins."""

from pathlib import Path

import numpy as np
import pytest

from imgtx.errors import DONE, UsageError
from imgtx.settings import parse_settings
from jobs.nightly.spec import load_nightly_spec
from tests.support.archive import save_tiny_model
from tests.support.commands import complaint, imgtx
from tests.support.zoo import photo, saved

SHIPPED = Path(__file__).parents[3] / "jobs" / "specs" / "nightly.toml"


def complaint_about(*settings: str) -> str:
    with pytest.raises(UsageError) as caught:
        load_nightly_spec(SHIPPED, parse_settings(settings))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_shipped_spec_loads():
    spec = load_nightly_spec(SHIPPED)
    assert spec.store_and_name == ("s3://bucket/models", "sr-x2")
    assert (spec.rule.worse_by, spec.train["minutes"], spec.upscale["format"]) == (0.05, 60, "same")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["achive=x"], "unknown field 'achive'; did you mean 'archive'?"),
        (["gate.worse=1"], "[gate]: unknown field 'worse'; did you mean 'worse_by'?"),
        (["train.peak=1"], "[train]: unknown field 'peak'"),
        (["train.scale=4"], "[train]: unknown field 'scale'"),
        (["upscale.model=x"], "[upscale]: unknown field 'model'"),
        (["upscale.destination=''"], "[upscale] lacks destination"),
        (["state=''"], "lacks state: a nightly spec needs archive, model, state and valid"),
        (["max_new_images=0"], "max_new_images = 0: expected 1 or more"),
        (["datasets=photos"], "datasets = 'photos' is text: must be a list"),
        (["model=models/sr-x2@latest"], "names a version: write STORE/NAME"),
    ],
)
def test_errors_in_a_spec_are_named(settings: list[str], words: str):
    assert words in complaint_about(*settings)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with everything a nightly run needs, and its spec."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for folder in ("archive", "valid", "empty"):
        (tmp_path / folder).mkdir()
    for folder in ("archive", "valid"):
        (tmp_path / folder / "a.png").write_bytes(saved(photo(64, 64)))
    lines = [
        'archive = "archive"\nmodel = "models/tiny"\nstate = "state"\nvalid = "valid"',
        "[train]\nsteps = 1\ncrop = 16",
    ]
    (tmp_path / "night.toml").write_text("\n".join(lines))
    assert (
        imgtx("models", "import", save_tiny_model(tmp_path / "tiny.safetensors"), "models/tiny").exit_code
        == DONE
    )
    return tmp_path


def test_errors_in_stores_and_datasets_are_reported_before_any_work(place: Path):
    def night(*settings: str, date: str = "2026-11-23") -> str:
        options = [part for setting in settings for part in ("--set", setting)]
        return complaint("nightly", "night.toml", "--date", date, *options)

    assert "models/tiny@latest is not set, and training continues from it: imgtx models import" in night()
    assert imgtx("models", "promote", "models/tiny@1").exit_code == DONE
    assert "--date 23.11.2026 is not a date" in night(date="23.11.2026")
    assert "there is no folder" in night("archive=gone")
    assert "found no image in" in night("datasets=['empty']")
    assert "have the same name" in night("datasets=['valid', 'valid']")
    assert "better_on = 'x': expected one of the datasets valid" in night("gate.better_on=x")
    assert "crop = 20 is not a multiple of the model's 16 px" in night("train.crop=20")
    assert "one of them must be more than 0" in night("train.minutes=1")
    assert "largest_side = 16; a crop of 16 px at scale 2 needs 32 or more" in night("largest_side=16")
    assert "--format gif" in night("upscale.destination=out", "upscale.format=gif")
    assert "the destination" in night("state=night.toml")
    assert not (place / "state" / "nights").exists()


def test_without_new_images_nothing_is_trained_or_promoted(place: Path):
    imgtx("models", "promote", "models/tiny@1")
    (place / "archive" / "a.png").unlink()
    (place / "archive" / "notes.txt").write_bytes(b"no image")
    result = imgtx("nightly", "night.toml", "--date", "2026-11-23")
    assert (result.exit_code, result.stdout) == (
        DONE,
        "2026-11-23: latest stays: nothing new in the archive\n",
    )
    assert not [*(place / "state" / "consumed").glob("*")]
    again = imgtx("nightly", "night.toml", "--date", "2026-11-23").stdout
    assert again.startswith("2026-11-23: latest stays: nothing new in the archive; done at ")
    assert again.endswith("nothing to do\n")


def test_unusable_images_are_skipped_once(place: Path):
    imgtx("models", "promote", "models/tiny@1")
    (place / "archive" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing")
    (place / "archive" / "b.png").write_bytes(saved(np.zeros((31, 64, 3), np.uint8)))
    first = imgtx("nightly", "night.toml", "--date", "2026-11-23").stdout
    assert "no image could be trained on: {" in first
    assert "'too_small': 1" in first
    assert "nothing new" in imgtx("nightly", "night.toml", "--date", "2026-11-24").stdout
