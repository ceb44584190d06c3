"""Commands as users see them: one line for each mistake, exit codes, JSON.

Runs use the real stages in this process; only Ray is left out (see `commands.without_ray`).
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from imgtx import __version__
from imgtx.errors import (
    BUG,
    DONE,
    FAILURES,
    INTERRUPTED,
    USAGE,
    ImageError,
    LeaseHeldError,
    StorageError,
    UsageError,
)
from jobs.cli import main
from pipeline.cluster import pool
from tests.support.archive import save_tiny_model
from tests.support.commands import InProcess, complaint, imgtx, without_ray
from tests.support.zoo import photo, saved


@pytest.fixture
def in_process(monkeypatch) -> None:
    without_ray(monkeypatch)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def place(tmp_path: Path, monkeypatch) -> Path:
    """Return a working directory with two photos under `in`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for number in range(2):
        (tmp_path / "in" / f"{number}.png").write_bytes(saved(photo(20 + number, 24)))
    return tmp_path


COMMANDS = {
    (): "Image Transformers over whole archives",
    ("upscale",): "Enlarge every image",
    ("plan",): "without downloading anything",
    ("status",): "the counts of its ledger",
    ("verify",): "missing, truncated or swapped",
    ("retry",): "the failed images of DESTINATION again",
    ("evaluate",): "beside bicubic",
    ("train",): "After an interruption the same command continues",
    ("nightly",): "if it passes the quality gate",
    ("models",): "import and promote models",
    ("models", "list"): "packaged models",
    ("models", "show"): "weights of MODEL say about themselves",
    ("models", "import"): "next version of NAME",
    ("models", "promote"): "the latest of its model",
    ("models", "rollback"): "repeat to go further back",
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_describes_each_command(command, flag):
    result = imgtx(*command, flag)
    assert result.exit_code == DONE
    assert COMMANDS[command] in " ".join(result.stdout.split())


def test_every_command_has_an_example_and_every_option_help():
    def commands(group: click.Group, words: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
        for name, command in group.commands.items():
            if isinstance(command, click.Group):
                yield from commands(command, (*words, name))
            else:
                yield " ".join((*words, name)), command

    for name, command in commands(main, ("imgtx",)):
        assert any(f"{line.strip()} ".startswith(f"{name} ") for line in f"{command.help}".splitlines()), (
            f"{name} has no example"
        )
        for option in command.params:
            assert not isinstance(option, click.Option) or option.help, f"{name} {option.name}"


def test_the_commands_are_listed_in_a_useful_order_with_whole_summaries():
    listed = imgtx("--help").stdout.split("Run:")[1]
    rows = [line for line in listed.partition("Exit codes")[0].splitlines() if line[2:3].strip()]
    names = [row.split()[0] for row in rows if row.startswith("  ")]
    assert names[:6] == ["upscale", "restore", "stylize", "generate", "plan", "retry"]
    assert {*names} == {*main.commands}
    assert "..." not in listed


def test_the_package_can_be_run_as_a_program():
    done = subprocess.run([sys.executable, "-m", "imgtx", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (DONE, f"imgtx, version {__version__}\n")


def test_the_version_is_printed():
    assert imgtx("--version").stdout.strip().endswith(__version__)


@pytest.mark.parametrize("command", [("upscale",), ("plan", "upscale")])
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("nowhere", "out"), "the source cannot be read"),
        (("in/9.png", "out"), "there is no file or folder"),
        (("bad.safetensors", "out"), "is not an image by its name: give one that is named .png"),
        (("in/*.gif", "out"), "has no image that SOURCE *.gif takes"),
        (
            ("in", "out", "--include", "*.gif"),
            "has no image that --include *.gif takes; globs and keys are relative",
        ),
        (("in", "out", "--exclude", "../*"), "--exclude '../*' matches nothing"),
        (("in", "out", "--keys", "none.txt"), "none.txt: there is no such file"),
        (("in", "out", "--set", "include=[1]"), "include = [1]: must be a list of globs"),
        (("in", "out", "--set", "max_skipped=few"), "--max-skipped few: give a share"),
        (("empty", "out"), "is empty: give a folder or prefix that holds images"),
        (("in", "in/out"), "is inside the source"),
        (("in", "in"), "is inside the source"),
        (("", "out"), "an empty URI"),
        (("in", "out", "--scale", "9"), "--scale 9: the packaged models enlarge by"),
        (("in", "out", "--model", "sr-x2", "--scale", "4"), "--scale 4 contradicts --model sr-x2"),
        (
            ("in", "out", "--model", "sr-x99"),
            "unknown model 'sr-x99': packaged models are inpaint, restore, sr-x2",
        ),
        (("in", "out", "--model", "no.safetensors"), "no weight file at no.safetensors"),
        (("in", "out", "--model", "bad.safetensors"), "bad.safetensors is not a whole safetensors file"),
        (("in", "out", "--format", "gif"), "--format gif: must be one of same"),
        (("in", "out", "--quality", "0"), "--quality 0: must be 1 to 100"),
        (("in", "out", "--set", "max_failed=few"), "--max-failed few: give a share"),
        (("in", "out", "--precision", "float8"), "--precision float8: must be one of"),
        (("in", "out", "--set", "limit=0"), "--limit 0: give a number greater than 0"),
        (("in", "out", "--set", "quality=high"), "quality = 'high' is text: must be a whole number"),
        (("in", "out", "--set", "qualty=3"), "did you mean 'quality'?"),
        (("in", "out", "--spec", "no.toml"), "no spec at no.toml"),
        (
            ("s3://bucket/in", "out", "--endpoint-url", "localhost:9000"),
            "'localhost:9000' is not a plain http",
        ),
        (("s3://key:secret@bucket/in", "out"), "put credentials in the environment"),
        (("gopher://in", "out"), "cannot open gopher://in"),
        (("reference://in", "out"), "cannot open reference://in"),
    ],
)
def test_a_mistake_ends_in_one_line_before_ray_starts(place, command, arguments, named):
    (place / "empty").mkdir()
    (place / "bad.safetensors").write_bytes(b"none")
    line = complaint(*command, *arguments)
    assert named in line
    assert "secret" not in line
    assert not (place / "out" / "runs").exists()


@pytest.mark.parametrize(
    ("destination", "named"),
    [
        ("file", "is a file; give a folder"),
        ("file/out", "cannot be written"),
        ("/proc/out", "cannot be written"),
    ],
)
def test_a_destination_that_cannot_be_written_ends_in_one_line(place, destination, named):
    (place / "file").write_text("in the way")
    assert named in complaint("upscale", "in", destination)


def test_an_option_of_the_wrong_type_is_reported_by_click():
    result = imgtx("upscale", "in", "out", "--quality", "high")
    assert result.exit_code == USAGE
    assert "'high' is not a valid integer" in result.stderr


@pytest.mark.parametrize("command", ["status", "verify", "retry"])
def test_a_destination_without_a_run_is_named(place, command):
    assert "has no imgtx run" in complaint(command, "in")
    assert "has no imgtx run" in complaint(command, "nowhere")


def raising(error: BaseException):
    def prepare(*arguments: Any, **options: Any) -> None:
        raise error

    return prepare


@pytest.mark.parametrize(
    ("error", "code", "named"),
    [
        (LeaseHeldError("held by ada"), USAGE, "held by ada"),
        (StorageError("storage", "no answer", transient=True), FAILURES, "run the same command again"),
        (KeyboardInterrupt(), INTERRUPTED, "the same command continues"),
        (ImageError("bug", "a sentence"), FAILURES, "a sentence"),
    ],
)
def test_each_outcome_has_its_exit_code(place, monkeypatch, error, code, named):
    monkeypatch.setattr("jobs.run.driver.prepare", raising(error))
    assert named in complaint("upscale", "in", "out", code=code)


def test_the_traceback_of_a_bug_is_stored_in_a_file(place, monkeypatch):
    monkeypatch.setattr("jobs.run.prepare.prepare", raising(ZeroDivisionError("of all things")))
    monkeypatch.setattr("tempfile.tempdir", str(place))
    line = complaint("plan", "upscale", "in", "out", code=BUG)
    assert "a bug in imgtx: ZeroDivisionError: of all things" in line
    (report,) = place.glob("imgtx-bug-*.txt")
    assert line.endswith(str(report))
    assert "Traceback" in report.read_text()


def test_plan_upscale_status_and_verify_work_in_sequence(place, in_process, model):
    (place / "in" / "cut.png").write_bytes(saved(photo())[:200])
    (place / "in" / "notes.txt").write_text("no image")
    given = ("in", "out", "--model", model)
    planned = json.loads(imgtx("plan", "upscale", *given, "--json").stdout)
    assert (planned["listed"], planned["to_do"]) == (4, 3)
    assert planned["classes"]["new"]["images"] == 3
    assert imgtx("upscale", *given, "--dry-run", "--json").stdout.strip() == json.dumps(planned)
    assert not (place / "out").exists()

    result = imgtx("upscale", *given)
    # 1 of 4 is more than 1%.
    assert result.exit_code == FAILURES
    text = " ".join(result.stdout.split())
    assert "listed 4 = written 2 + current 0 + skipped 1 + failed 1 + pending 0" in text
    assert "truncated" in text
    assert sorted(p.name for p in (place / "out" / "images").iterdir()) == ["0.png", "1.png"]

    again = imgtx("upscale", *given, "--json", "--max-failed", "1")
    assert again.exit_code == DONE
    summary = json.loads(again.stdout)
    assert (summary["written"], summary["current"], summary["failed"], summary["accounted"]) == (
        0,
        2,
        1,
        True,
    )

    status = imgtx("status", "out")
    assert status.exit_code == DONE
    assert "truncated" in status.stdout
    assert "cut.png" in status.stdout
    report = json.loads(imgtx("status", "out", "--json").stdout)
    assert report["ledger"] == {"written": 2, "failed": 1, "skipped": 1}
    assert report["failures"] == {"truncated": 1}

    assert imgtx("verify", "out").exit_code == DONE
    assert json.loads(imgtx("verify", "out", "--json").stdout)["problems"] == []

    (place / "in" / "cut.png").write_bytes(saved(photo()))
    retried = json.loads(imgtx("retry", "out", "--json").stdout)
    assert (retried["written"], retried["current"], retried["failed"]) == (1, 2, 0)


def test_verify_finds_damaged_outputs_and_fix_restores_them(place, in_process, model):
    given = ("in", "out", "--model", model)
    assert imgtx("upscale", *given).exit_code == DONE
    (place / "out" / "images" / "0.png").unlink()
    found = imgtx("verify", "out")
    assert found.exit_code == FAILURES
    assert "deleted: 0.png" in found.stdout
    assert imgtx("verify", "out", "--fix", "--json").exit_code == FAILURES
    assert json.loads(imgtx("upscale", *given, "--json").stdout)["written"] == 1
    assert imgtx("verify", "out").exit_code == DONE


def test_a_limit_leaves_the_rest_pending(place, in_process, model):
    summary = json.loads(imgtx("upscale", "in", "out", "--model", model, "--limit", "1", "--json").stdout)
    assert (summary["written"], summary["pending"], summary["accounted"]) == (1, 1, True)


def test_retry_uses_the_last_runs_settings_on_failed_images_only(place, in_process, model, monkeypatch):
    (place / "in" / "bad.png").write_bytes(b"none")
    given = ("in", "out", "--model", model, "--max-failed", "1", "--json")
    summary = json.loads(imgtx("upscale", *given).stdout)
    assert (summary["written"], summary["failed"]) == (2, 1)
    for name in ("bad.png", "new.png"):
        (place / "in" / name).write_bytes(saved(photo(30, 30)))
    # The settings of the last run are known in every working directory.
    monkeypatch.chdir("/")
    summary = json.loads(imgtx("retry", str(place / "out"), "--json").stdout)
    assert (summary["written"], summary["failed"], summary["pending"]) == (1, 0, 1)
    assert summary["accounted"]


def test_images_that_were_too_large_run_under_a_higher_limit(place, in_process, model):
    given = ("in", "out", "--model", model, "--max-failed", "2", "--json", "--set")
    failed = json.loads(imgtx("upscale", *given, "max_megapixels=0.0001").stdout)
    assert failed["reasons"] == {"too_large": 2}
    for limit, written in (("0.0002", 0), ("1", 2)):
        assert json.loads(imgtx("upscale", *given, f"max_megapixels={limit}").stdout)["written"] == written


def test_reverting_an_interrupted_change_of_settings_leaves_no_mixed_outputs(
    place, in_process, model, monkeypatch
):
    """A user gives another scale by mistake, stops at once, and repeats the old command."""
    assert imgtx("upscale", "in", "out", "--scale", "2").exit_code == DONE
    right = {path.name: path.read_bytes() for path in (place / "out" / "images").iterdir()}
    blocks = InProcess.iter_batches

    def stopped(self, **options):
        # The file is written, its row is not.
        next(blocks(self))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(InProcess, "iter_batches", stopped)
        for change in (("--scale", "4"), ("--scale", "2", "--format", "tiff")):
            assert imgtx("upscale", "in", "out", *change).exit_code == INTERRUPTED
    assert {path.name: path.read_bytes() for path in (place / "out" / "images").iterdir()} != right
    assert imgtx("upscale", "in", "out", "--scale", "2").exit_code == DONE
    assert {path.name: path.read_bytes() for path in (place / "out" / "images").iterdir()} == right
    assert imgtx("verify", "out").exit_code == DONE


def test_a_memory_destination_is_refused(place, model):
    assert "is in the memory of one process" in complaint("upscale", "in", "memory://out", "--model", model)


def test_a_stopped_run_says_how_to_continue(place, in_process, model, monkeypatch):
    blocks = InProcess.iter_batches

    def stopped(self, **options):
        yield next(blocks(self))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(InProcess, "iter_batches", stopped)
        result = imgtx("upscale", "in", "out", "--model", model)
    assert result.exit_code == INTERRUPTED
    assert "1 done, 1 pending; run the same command to continue" in result.stderr.splitlines()[-1]
    assert json.loads(imgtx("status", "out", "--json").stdout)["run"]["state"] == "interrupted"
    summary = json.loads(imgtx("upscale", "in", "out", "--model", model, "--json").stdout)
    assert (summary["written"], summary["current"]) == (1, 1)


def test_models_list_and_show_are_json(model):
    rows = json.loads(imgtx("models", "list", "--json").stdout)
    assert "sr-x2" in [row["name"] for row in rows]
    shown = json.loads(imgtx("models", "show", model).stdout)
    assert (shown["scale"], shown["task"], len(shown["digest"])) == (2, "super-resolution", 64)


def test_evaluate_prints_only_json(place, model):
    (place / "set").mkdir()
    (place / "set" / "a.png").write_bytes(saved(photo(48, 48)))
    result = imgtx("evaluate", model, "set", "--json")
    assert result.exit_code == DONE
    report = json.loads(result.stdout)
    assert report["datasets"][0]["name"] == "set"
    assert "nowhere" in complaint("evaluate", model, "nowhere")
    assert "s3://b/set5: datasets are folders of this machine" in complaint("evaluate", model, "s3://b/set5")


def test_train_ends_in_one_line_or_names_its_weights(place):
    assert "no spec at none.toml" in complaint("train", "none.toml")
    (place / "spec.toml").write_text('name = "a"\nminutes = "x"\ntrain = "in"\nvalid = "in"')
    assert "minutes = 'x' is text" in complaint("train", "spec.toml")
    model = "{dim = 16, heads = 1, window = 2, encoder_blocks = 1, decoder_blocks = 1, detail_channels = 4}"
    result = imgtx(
        *("train", "spec.toml", "--folder", "folder", "--set", "minutes=0.001", "--set", "crop=8"),
        *("--set", f"model={model}", "--set", "batch=1"),
    )
    assert result.exit_code == DONE, result.output
    assert result.stdout.strip() == str(Path("folder") / "a.safetensors")
    assert "valid_psnr_y" in result.stderr
    assert json.loads((place / "folder" / "log.jsonl").read_text().splitlines()[-1])["valid_psnr_y"] > 10


def test_a_run_that_could_not_start_leaves_no_settings_behind(place, in_process, model, monkeypatch):
    given = ("in", "out", "--model", model)
    assert imgtx("upscale", *given, "--limit", "1").exit_code == DONE

    def refused(spec, resources, images):
        raise UsageError("--gpus 3: the cluster has 0")

    with monkeypatch.context() as patch:
        patch.setattr(pool, "size_pool", refused)
        assert imgtx("upscale", *given, "--gpus", "3").exit_code == USAGE
    status = json.loads(imgtx("status", "out", "--json").stdout)
    assert (status["run"]["state"], status["run"]["written"]) == ("done", 1)


def test_another_source_on_the_same_destination_is_reported(place, in_process, model, caplog):
    (place / "other").mkdir()
    (place / "other" / "0.png").write_bytes(saved(photo(12, 12)))
    assert imgtx("upscale", "in", "out", "--model", model).exit_code == DONE
    assert not caplog.messages
    result = imgtx("upscale", "other", "out", "--model", model)
    assert result.exit_code == DONE
    (warning,) = caplog.messages
    assert f"read {place / 'in'}, this one reads {place / 'other'}" in warning
    assert "in the ledger and no longer in the source: 1" in result.stdout


def test_files_are_chosen_the_same_way_again_and_again(place, in_process, model, monkeypatch):
    """A user begins with one file, goes on with a glob and a list, and leaves something out at the end."""
    (place / "in" / "notes.txt").write_text("x")
    (place / "in" / ".git").mkdir()
    (place / "in" / ".git" / "x.png").write_bytes(saved(photo(12, 12)))
    (place / "list.txt").write_text("1.png\nnone.png\n")

    def run(source: str, *more: str, code: int = DONE) -> tuple[dict[str, Any], str]:
        result = imgtx("upscale", source, "out", "--model", model, "--json", *more)
        assert result.exit_code == code, result.output
        return json.loads(result.stdout.splitlines()[-1]), result.stderr

    def counts(summary: dict[str, Any]) -> tuple[int, ...]:
        return tuple(
            summary[name] for name in ("listed", "written", "current", "skipped", "failed", "vanished")
        )

    assert counts(run("in/0.png")[0]) == (1, 1, 0, 0, 0, 0)
    assert counts(run("in/[01].*")[0]) == (2, 1, 1, 0, 0, 0)
    assert counts(run("in", "--keys", "list.txt", code=FAILURES)[0]) == (2, 0, 1, 0, 1, 0)
    summary, said = run("in", "--exclude", "0*")
    assert counts(summary) == (2, 0, 1, 1, 0, 1), "the key that was only in the list is gone"
    assert summary["not_listed"] == {"hidden": 1, "excluded": 1}
    assert summary["skipped_kinds"] == {".txt": 1}
    assert "imgtx: warning: 1 of 2 listed are skipped: 1 .txt" in said
    run("in", "--exclude", "0*", "--max-skipped", "0", code=FAILURES)
    assert sorted(path.name for path in (place / "out" / "images").iterdir()) == ["0.png", "1.png"]
    monkeypatch.chdir("/")
    status = imgtx("status", str(place / "out")).stdout
    assert "warning: 1 of 2 listed are skipped: 1 .txt" in status
    assert "not listed (files and whole folders): 1 hidden, 1 excluded" in status
    verified = imgtx("verify", str(place / "out"), "--json")
    assert json.loads(verified.stdout)["problems"] == []
    retried = json.loads(imgtx("retry", str(place / "out"), "--json").stdout.splitlines()[-1])
    assert counts(retried)[:3] == (2, 0, 1), "retry chooses as the last run did"


def test_odd_names_are_processed_under_the_same_name_and_shown_escaped(place, in_process, model):
    names = {b"new\nline.png", b"esc\x1b[31m.png", b"tab\t.png", b"caf\xe9.png", "caf\u00e9.png".encode()}
    folder = os.path.join(os.fsencode(place), b"odd\xe9\x1b")
    os.mkdir(folder)
    for name in names:
        Path(os.fsdecode(os.path.join(folder, name))).write_bytes(saved(photo(12, 12)))
    Path(os.fsdecode(os.path.join(folder, b"bad\x1b[2J\xe9.png"))).write_bytes(b"none")
    source = os.fsdecode(folder)
    result = imgtx("upscale", source, "out", "--model", model, "--max-failed", "1")
    assert result.exit_code == DONE, result.output
    assert {os.fsencode(path.name) for path in (place / "out" / "images").iterdir()} == names
    shown = "".join(
        imgtx(*command).output for command in (("status", "out"), ("failures", "out"), ("verify", "out"))
    )
    assert r"bad\x1b[2J\x1ae9.png" in shown
    assert all(character == "\n" or character.isprintable() for character in shown)
    assert imgtx("verify", "out").exit_code == DONE
    again = json.loads(imgtx("upscale", source, "out", "--model", model, "--json").stdout.splitlines()[-1])
    assert (again["current"], again["failed"], again["vanished"]) == (5, 1, 0)
    one = Path(os.fsdecode(os.path.join(folder, b"caf\xe9.png")))
    alone = imgtx("upscale", str(one), "out", "--model", model, "--json")
    assert json.loads(alone.stdout.splitlines()[-1])["current"] == 1


def test_replacing_most_of_an_archive_is_asked_for(place, in_process, model, monkeypatch):
    given = ("upscale", "in", "out", "--model", model)
    assert imgtx(*given).exit_code == DONE
    planned = imgtx("plan", *given, "--format", "tiff")
    assert (
        "of images that have not changed, a run deletes 2 existing outputs that get another name"
        in planned.stdout
    )
    counts = json.loads(imgtx("plan", *given, "--quality", "50", "--json").stdout)
    assert (counts["replaces"], counts["deletes"]) == (2, 0)
    # Nobody can be asked: only deleting needs the option, and only that of more than half.
    named = complaint(*given, "--format", "tiff")
    assert "this run deletes 2 existing outputs that get another name, of 2 images" in named
    assert "give --yes to allow it" in named
    assert imgtx(*given, "--format", "tiff", "--limit", "1", "--dry-run").exit_code == DONE
    assert imgtx(*given, "--quality", "50").exit_code == DONE

    asked = []

    def confirm(text: str, **_: Any) -> bool:
        asked.append(text)
        return len(asked) > 1

    monkeypatch.setattr("jobs.cli.submit.answers", lambda: True)
    monkeypatch.setattr(click, "confirm", confirm)
    assert "nothing was done: all outputs stay as they are" in complaint(*given)
    assert imgtx(*given).exit_code == DONE
    assert asked[0] == asked[1]
    assert "this run replaces 2 existing outputs, of 2 images, because an option" in asked[0]
    assert imgtx(*given, "--format", "tiff", "--yes").exit_code == DONE
    assert len(asked) == 2
    assert sorted(path.name for path in (place / "out" / "images").iterdir()) == ["0.tif", "1.tif"]


def test_outputs_beside_a_glob_do_not_become_inputs(place, in_process, model, monkeypatch):
    monkeypatch.chdir(place / "in")
    for expected in (2, 0):
        result = imgtx("upscale", "**/*.png", "out", "--model", model, "--json")
        assert result.exit_code == DONE, result.output
        summary = json.loads(result.stdout.splitlines()[-1])
        assert (summary["listed"], summary["written"]) == (2, expected)
    assert imgtx("upscale", "0.png", ".", "--model", model).exit_code == DONE
    assert (place / "in" / "images" / "0.png").exists()
    assert "is inside the source" in complaint("upscale", ".", "out", "--model", model)
    assert (
        imgtx("upscale", ".", "out", "--exclude", "out", "--exclude", "images", "--model", model).exit_code
        == DONE
    )


def test_a_glob_without_quotes_is_explained(place):
    result = imgtx("upscale", "in/0.png", "in/1.png", "out")
    assert result.exit_code == USAGE
    assert "put a glob in quotes" in result.stderr


def test_a_killed_run_is_not_shown_as_running(place, in_process, model):
    assert imgtx("upscale", "in", "out", "--model", model).exit_code == DONE
    (status,) = (place / "out" / "runs").glob("*/status.json")
    status.write_text(json.dumps(json.loads(status.read_text()) | {"state": "running"}))
    assert "killed" in json.loads(imgtx("status", "out", "--json").stdout)["run"]["state"]


def test_the_next_step_is_suggested(place, in_process, model):
    (place / "in" / "bad.png").write_bytes(b"none")
    given = ("upscale", "in", "out", "--model", model, "--max-failed", "1")
    assert "1 failed: imgtx failures out names them, imgtx retry out tries again" in imgtx(*given).stdout
    assert "1 failed, 1 of them before: imgtx failures out" in imgtx(*given).stdout
    (place / "out" / "images" / "0.png").unlink()
    assert "imgtx verify out --fix marks 1 outputs as pending" in imgtx("verify", "out").stdout
    assert "1 outputs are marked as pending: run the same command" in imgtx("verify", "out", "--fix").stdout


def test_a_source_without_images_is_an_error(place, model):
    (place / "texts").mkdir()
    (place / "texts" / "a.txt").write_text("no image")
    assert "holds no image among 1 files" in complaint("upscale", "texts", "out", "--model", model)


def test_formats_may_be_given_by_suffix_and_invalid_values_are_refused(place, in_process, model):
    assert imgtx("upscale", "in", "out", "--model", model, "--format", "JPG").exit_code == DONE
    assert (place / "out" / "images" / "0.jpg").exists()
    assert "--max-failed 200%" in complaint("upscale", "in", "out", "--max-failed", "200%")
    assert "has one slash after its scheme" in complaint("upscale", "s3:/bucket/in", "out")
