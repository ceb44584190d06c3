"""A training spec that cannot work ends in one line that says what was given and what is allowed."""

import re
from pathlib import Path

import pytest

from imgtx.errors import UsageError
from imgtx.settings import parse_settings
from imgtx.training.spec import CHOICES, load_train_spec

ROOT = Path(__file__).parents[3]
SPECS = ROOT / "jobs" / "specs"


@pytest.fixture
def write(tmp_path: Path):
    """Return a function that writes a valid spec with lines added, and returns its path."""
    (tmp_path / "photos").mkdir()

    def write(*lines: str, without: str = "") -> Path:
        good = {
            "name": '"tiny"', "minutes": "1",
            "train": f'"{tmp_path}/photos"', "valid": f'"{tmp_path}/photos"',
        }  # fmt: skip
        good.pop(without, None)
        changed = {line.partition("=")[0].strip() for line in lines}
        kept = [f"{name} = {value}" for name, value in good.items() if name not in changed]
        path = tmp_path / "spec.toml"
        path.write_text("\n".join([*kept, *lines]))
        return path

    return write


def complaint(path: Path, *settings: str) -> str:
    with pytest.raises(UsageError) as caught:
        load_train_spec(path, parse_settings(settings))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_valid_spec_loads_with_its_defaults(write):
    spec = load_train_spec(write("[model]", "dim = 32", "heads = 1"))
    assert (spec.name, spec.minutes, spec.scale, spec.crop, spec.precision) == ("tiny", 1, 2, 48, "bfloat16")
    assert (spec.config.dim, spec.config.scale, spec.config.window) == (32, 2, 8)


def test_settings_override_the_file_and_nothing_else(write):
    path = write("scale = 3", "[model]", "dim = 32", "heads = 1")
    spec = load_train_spec(path, parse_settings(("scale=4", "model.dim=64")))
    assert (spec.scale, spec.config.dim, spec.config.heads) == (4, 64, 1)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("minuts = 3", "did you mean 'minutes'?"),
        ("zzz = 3", "expected one of name, train"),
        ('minutes = "x"', "minutes = 'x' is text: must be a number"),
        ("minutes = 0", "steps = 0 and minutes = 0: one of them must be more than 0"),
        ("minutes = nan", "minutes = nan: one of them must be more than 0"),
        ("minutes = -1", "minutes = -1: one of them must be more than 0"),
        ("steps = 100", "steps = 100 and minutes = 1: one of them must be more than 0"),
        ("steps = -1", "steps = -1: must be 0 or more"),
        ("batch = 1.5", "batch = 1.5 is a number: must be a whole number"),
        ("batch = true", "batch = True is true or false: must be a whole number"),
        ("name = 3", "name = 3 is a whole number: must be text"),
        ('name = "a/b"', "name = 'a/b': must be a file name"),
        ("scale = 5", "scale = 5: with degradation = 'bicubic' it must be 2 or 3 or 4"),
        ("crop = 40", "use 32"),
        ("crop = 8", "use 16"),
        ("crop = 0", "crop = 0"),
        ('precision = "float16"', "'float16': must be one of float32, bfloat16"),
        ('degradation = "jpeg"', "'jpeg': must be one of bicubic, archive"),
        ('crop_choice = "best"', "must be one of higher_gradient, energy, uniform"),
        ("procedural_share = 1", "procedural_share = 1: must be 0 or more, and less than 1"),
        (
            'degradation = "archive"\n[damage]\nblurr = 1',
            "[damage]: unknown field 'blurr'; did you mean 'blur'?",
        ),
        ('degradation = "archive"\n[damage]\nskip = 1.5', "[damage]: skip = 1.5: must be 0 to 1"),
        (
            'degradation = "archive"\n[damage]\nbest_quality = 30',
            "worst_quality = 40 is above best_quality = 30",
        ),
        ("degradation = 'restoration'", "scale = 2: with degradation = 'restoration' it must be 1"),
        (
            "[damage]\nblur = 1.0",
            "[damage] needs degradation = 'archive' or 'restoration' or 'holes', and it is 'bicubic'",
        ),
        ('train = "nowhere"', "train = 'nowhere' is not a folder"),
        ('valid = "nowhere"', "valid = 'nowhere' is not a folder"),
        ("seed = -1", "seed = -1: must be 0 or more"),
        ("average = 1.0", "average = 1.0: must be less than 1"),
        ("constant_lr_share = 0.95", "constant_lr_share = 0.95: must be 0 to 0.9"),
        ("constant_lr_share = nan", "constant_lr_share = nan: must be 0 to 0.9"),
        ("model = 3", "model = 3 is a whole number: must be a table"),
        ("[model]\ndimm = 32", "did you mean 'dim'?"),
        ('[model]\ndim = "32"', "dim = '32' is text: must be a whole number"),
        ("[model]\nscale = 2", "unknown field 'scale'"),
        ("[model]\nheads = 5", "dim = 96 does not divide among heads = 5"),
        ('[model]\nnorm = "batch"', "expected one of post, pre, res-post"),
        ("[model]\nwindow = 0", "window = 0: expected a whole number of 1 or more"),
        ("minutes = ", "not valid TOML"),
    ],
)
def test_a_bad_line_is_named(write, line, named):
    path = write(line)
    message = complaint(path)
    assert named in message
    assert str(path) in message


@pytest.mark.parametrize("name", ["name", "train", "valid"])
def test_a_missing_field_is_named(write, name):
    assert f"lacks {name}:" in complaint(write(without=name))


def test_a_bad_setting_is_named(write):
    assert "minutes = 'soon' is text" in complaint(write(), "minutes=soon")
    assert "unknown field 'model.'" not in complaint(write(), "model.wndow=4")


def test_a_missing_spec_file_is_named(tmp_path):
    assert "no spec at" in complaint(tmp_path / "none.toml")
    assert "cannot be read" in complaint(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe4"')
    assert "not valid TOML" in complaint(tmp_path / "latin.toml")


def test_shipped_training_specs_name_only_real_fields(tmp_path):
    shipped = [*SPECS.glob("sr-*.toml"), *SPECS.glob("restore*.toml"), *SPECS.glob("inpaint*.toml")]
    assert len(shipped) > 7
    for path in shipped:
        spec = load_train_spec(path, {"train": str(tmp_path), "valid": str(tmp_path)})
        # The stages of one training.
        assert spec.name == re.sub("-(begin|middle|wide|plateau|gpu)$", "", path.stem)


def test_the_reference_names_every_allowed_value():
    page = (ROOT / "docs/reference/training-spec.md").read_text()
    for name, words in CHOICES.items():
        assert all(f"`{word}`" in page for word in words), name


def test_the_spec_in_the_guide_is_valid(tmp_path):
    guide = (ROOT / "docs/guides/training.md").read_text()
    (tmp_path / "mine.toml").write_text(guide.split("```toml\n")[1].split("```")[0])
    load_train_spec(tmp_path / "mine.toml", {"train": str(tmp_path), "valid": str(tmp_path)})
