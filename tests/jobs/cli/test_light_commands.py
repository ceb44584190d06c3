"""Commands that start no model are light: none of them imports pandas, torch or Ray."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.archive import save_tiny_model
from tests.support.commands import imgtx, without_ray
from tests.support.zoo import photo, saved

HEAVY = {"pandas", "torch", "ray"}
# Prints which heavy modules the command imported, as the last line.
PROGRAM = f"""
import sys
from jobs.cli import main
assert not {HEAVY!r} & sys.modules.keys()
try:
    main(sys.argv[1:])
finally:
    print("heavy:", *sorted({HEAVY!r} & sys.modules.keys()))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with two photos under `in`, which a run has enlarged to `out`."""
    folder = tmp_path_factory.mktemp("light")
    save_tiny_model(folder / "tiny.safetensors")
    (folder / "in").mkdir()
    for number in range(2):
        (folder / "in" / f"{number}.png").write_bytes(saved(photo(20 + number, 24)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        without_ray(patch)
        assert imgtx("upscale", "in", "out", "--model", "tiny.safetensors").exit_code == 0
    return folder


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("plan upscale in out --model tiny.safetensors", "current"),
        ("plan upscale in elsewhere", "new"),
        ("status out", "written 2"),
        ("verify out", "sound"),
        ("verify out --quick", "sound"),
        ("watch out --json", ""),
        ("doctor out", "can be written"),
        ("upscale in out --model tiny.safetensors", "2"),
        ("upscale in out --model tiny.safetensors --dry-run", "current"),
    ],
)
def test_the_command_does_without(place, command, says):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command.split()], cwd=place, capture_output=True, text=True
    )
    assert says in done.stdout, done.stderr
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].split() == ["heavy:"]
