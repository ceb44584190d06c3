"""Folders of large pictures: those of killed processes go, those in use and those of other machines stay."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipeline.stages import spool_folder as module
from pipeline.stages.spool_folder import PREFIX, remove_abandoned, spool_folder

pytestmark = pytest.mark.timeout(120)

HOLDS = """
import sys
from pipeline.stages.spool_folder import spool_folder
with spool_folder() as folder:
    (folder / "pixels").write_bytes(b"many")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_goes_with_its_block_and_not_before(temporary: Path):
    with spool_folder() as folder:
        (folder / "pixels").write_bytes(b"many")
        remove_abandoned()
        assert (folder / "pixels").exists()
    assert [*temporary.iterdir()] == []


def test_the_folder_of_a_killed_process_is_removed_and_that_of_a_living_one_is_not(temporary: Path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HOLDS],
            env=os.environ
            | {"TMPDIR": str(temporary), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    folders = [Path(process.stdout.readline().strip()) for process in processes]
    processes[0].kill()
    processes[0].wait()
    assert all(folder.exists() for folder in folders)
    remove_abandoned()
    assert [folder.exists() for folder in folders] == [False, True]
    processes[1].communicate()
    assert [*temporary.iterdir()] == []


def test_folders_of_another_machine_or_an_earlier_boot_stay(temporary: Path):
    (temporary / f"{PREFIX}0123456789ab-x").mkdir()
    (temporary / f"{PREFIX}older").mkdir()
    remove_abandoned()
    assert len([*temporary.iterdir()]) == 2


def test_a_folder_that_was_taken_for_abandoned_before_it_was_locked_is_made_again(
    monkeypatch: pytest.MonkeyPatch,
):
    made: list[str] = []
    whole = tempfile.mkdtemp

    def swept(**options) -> str:
        made.append(whole(**options))
        if len(made) == 1:
            remove_abandoned()
        return made[-1]

    monkeypatch.setattr(module.tempfile, "mkdtemp", swept)
    with spool_folder() as folder:
        assert folder.exists()
        assert str(folder) == made[1]


def test_a_link_to_a_folder_is_left_alone(temporary: Path):
    (temporary / "own").mkdir()
    (temporary / "own" / "file").touch()
    with spool_folder() as folder:
        name = folder.name
    (temporary / name).symlink_to(temporary / "own")
    remove_abandoned()
    assert (temporary / "own" / "file").exists()
