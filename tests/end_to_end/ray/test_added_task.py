"""Adding a task takes a file and a line: made-up tasks run on Ray with ledger, resume, verify and submit.

The diff is applied to a copy of the code (`tests/support/code_copy.py`), so that workers know no more of
the task than they would in a release.
"""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from imgtx.codecs import decode
from tests.support.archive import assert_sound, look
from tests.support.code_copy import COLOURS, FLIP, CodeCopy
from tests.support.zoo import photo, saved

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> CodeCopy:
    return CodeCopy(tmp_path_factory.mktemp("code"), FLIP | COLOURS)


def pixels(path: Path) -> np.ndarray:
    return decode(path.read_bytes(), max_pixels=10**6).pixels


class TestFlip:
    """A task from image to image: a module and its line."""

    @pytest.fixture
    def model(self, tmp_path: Path) -> str:
        torch.jit.save(torch.jit.script(nn.Identity()), tmp_path / "same.ts")
        return f"torchscript:{tmp_path}/same.ts?scale=1"

    def test_a_new_task_is_planned_run_resumed_verified_and_submitted(
        self, code: CodeCopy, model: str, tmp_path: Path
    ):
        (tmp_path / "in").mkdir()
        for number in range(5):
            (tmp_path / "in" / f"{number}.png").write_bytes(saved(photo(20 + number, 30)))
        (tmp_path / "in" / "bad.png").write_bytes(b"none")
        given = (str(tmp_path / "in"), str(tmp_path / "out"), "--model", model)
        assert "flip" in code.imgtx("--help")
        planned = json.loads(code.imgtx("plan", "flip", *given, "--json"))
        assert planned["classes"]["new"]["images"] == 6

        code.imgtx(
            "flip", *given, "--engine", "ray", "--limit", "2", "--workers", "1", "--max-failed", "1", "--json"
        )
        assert len(look(str(tmp_path / "out")).rows) == 2
        code.imgtx("flip", *given, "--workers", "1", "--json", code=3)
        found = look(str(tmp_path / "out"))
        assert_sound(found)
        assert {key: row["reason"] for key, row in found.rows.items() if row["reason"]} == {
            "bad.png": "not_an_image"
        }
        for number in range(5):
            made = pixels(tmp_path / "out/images" / f"{number}.png")
            np.testing.assert_array_equal(made, photo(20 + number, 30)[::-1])
            assert dict(found.rows[f"{number}.png"]["measures"])["rows"] == 20 + number
        assert json.loads(code.imgtx("verify", given[1], "--json"))["problems"] == []
        assert "listed 6" in code.imgtx("status", given[1])
        checked = (
            "import sys; from jobs.cli import main; from jobs.submit.command import check_command;"
            "print(check_command(sys.argv[1:], main).entrypoint)"
        )
        command = code.python("-c", checked, "flip", "s3://in/", "s3://out/", "--model", "restore")
        assert command.strip() == "python -m jobs.cli flip s3://in/ s3://out/ --model restore"


class TestColours:
    """A task from lines of a table: a module, a kind of source and a kind of model, and their lines."""

    def test_three_outputs_per_row_survive_a_kill_and_an_edited_row_reruns_alone(
        self, code: CodeCopy, tmp_path: Path
    ):
        lines = {f"early{n:02d}": [40 + n, 100, 200 - n] for n in range(30)} | {"late": [250, 90, 80]}
        table, out, gate = tmp_path / "table.csv", tmp_path / "out", tmp_path / "gate"
        (tmp_path / "x.flat").write_text(str(gate))
        write(table, lines)
        given = (
            str(table),
            str(out),
            "--model",
            str(tmp_path / "x.flat"),
            "--workers",
            "1",
            "--json",
            "--engine",
            "ray",
        )

        process = code.start("colours", *given)
        deadline = time.monotonic() + 300
        while not sum(1 for _ in out.glob("images/early*")):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        family = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        psutil.wait_procs(family, timeout=60)
        assert not list(out.glob("images/late*"))

        gate.touch()
        resumed = json.loads(code.imgtx("colours", *given).splitlines()[-1])
        assert (resumed["listed"], resumed["written"] + resumed["current"]) == (93, 93)
        found = look(str(out))
        assert_sound(found)
        for name, colour in lines.items():
            for number in range(3):
                row = found.rows[f"{name}-{number}"]
                assert (row["item"], row["inputs"][0]["role"], row["inputs"][0]["key"]) == (
                    name,
                    "line",
                    name,
                )
                made = pixels(out / "images" / row["output"])
                assert made.shape == (16, 24, 3)
                assert {*made.reshape(-1)} == {level - 10 * number for level in colour}
        assert json.loads(code.imgtx("verify", str(out), "--json"))["problems"] == []

        # The run kept a copy.
        table.unlink()
        write(table, lines | {"early07": [1, 2, 30]})
        edited = json.loads(code.imgtx("colours", *given).splitlines()[-1])
        assert (edited["written"], edited["current"]) == (3, 90)
        again = look(str(out))
        changed = {key for key in again.outputs if again.outputs[key] != found.outputs[key]}
        assert changed == {"early07-0", "early07-1", "early07-2"}
        table.unlink()
        assert json.loads(code.imgtx("verify", str(out), "--json"))["problems"] == []
        assert json.loads(code.imgtx("retry", str(out), "--json").splitlines()[-1])["written"] == 0


def write(table: Path, lines: dict[str, list[int]]) -> None:
    table.write_text("".join(f"{name},{','.join(map(str, colour))}\n" for name, colour in lines.items()))
