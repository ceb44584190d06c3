"""The command after `imgtx submit ... --` is checked before anything is sent: it must run on a cluster."""

from datetime import date
from pathlib import Path

import click
import pytest

from imgtx.errors import UsageError
from jobs.cli import main
from jobs.submit.command import RUNS, JobCommand, check_command
from tests.support.commands import imgtx

ENDS = ("s3://in/", "s3://out/")
DAY = date(2026, 11, 23)
TRAINING = 'name = "t"\ntrain = "s3://bucket/photos"\nvalid = "s3://bucket/more"\nscale = 2\nsteps = 10\n'
NIGHT = (
    'archive = "s3://bucket/in"\nmodel = "s3://bucket/models/m"\nstate = "s3://bucket/state"\nvalid = "s3://bucket/valid"\n'
    '[upscale]\ndestination = "s3://bucket/out"\n'
)


def checked(*arguments: str, shared: bool = False) -> JobCommand:
    return check_command(arguments, main, shared=shared)


def refused(*arguments: str, shared: bool = False) -> str:
    with pytest.raises(UsageError) as error:
        checked(*arguments, shared=shared)
    return str(error.value)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    (tmp_path / "t.toml").write_text(TRAINING)
    return tmp_path / "t.toml"


def test_the_cluster_gets_the_command_as_typed():
    command = checked("upscale", *ENDS, "--scale", "4", "--set", "model=sr-x4")
    assert command.entrypoint == "python -m jobs.cli upscale s3://in/ s3://out/ --scale 4 --set model=sr-x4"
    assert (command.destination, command.files) == ("s3://out/", {})


def test_shell_characters_are_quoted():
    assert checked("upscale", "s3://in/$(id);x", "s3://out/").entrypoint.endswith(
        "upscale 's3://in/$(id);x' s3://out/"
    )


def test_a_request_has_one_name_per_day():
    one = checked("upscale", *ENDS, "--scale", "4", "--format", "png").submission_id(DAY)
    assert one == checked("upscale", "--format", "png", *ENDS, "--scale=4").submission_id(DAY)
    assert one.startswith("imgtx-upscale-20261123-")
    others = {
        checked("upscale", *ENDS, "--scale", "4").submission_id(DAY),
        checked("upscale", *ENDS, "--scale", "2").submission_id(DAY),
        checked("plan", "upscale", *ENDS, "--scale", "4").submission_id(DAY),
        checked("upscale", *ENDS, "--scale", "4", "--format", "png").submission_id(date(2026, 11, 24)),
    }
    assert len(others | {one}) == 5


def test_a_spec_is_sent_and_its_content_is_part_of_the_name(spec):
    given = ("train", str(spec), "--workers", "2", "--storage", "s3://bucket/t")
    command = checked(*given)
    assert command.arguments[:2] == ("train", "specs/t.toml")
    assert command.files == {"specs/t.toml": spec}
    elsewhere = spec.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "t.toml").write_text(TRAINING)
    moved = checked("train", str(elsewhere / "t.toml"), *given[2:])
    assert moved.digest == command.digest
    spec.write_text(TRAINING.replace("10", "20"))
    assert checked(*given).digest != command.digest


@pytest.mark.parametrize("form", [["--spec", "{}"], ["--spec={}"]])
def test_a_spec_file_is_renamed_in_every_form_of_the_option(tmp_path, form):
    file = tmp_path / "up.toml"
    file.write_text("quality = 80\n")
    arguments = checked("upscale", *ENDS, *(part.format(file) for part in form)).arguments
    assert " ".join(arguments).replace("=", " ").endswith("--spec specs/up.toml")


@pytest.mark.parametrize("command", [("upscale",), ("plan", "restore")])
def test_a_selection_travels_with_the_command(tmp_path, command):
    keys = tmp_path / "keys.txt"
    keys.write_text("a.jpg\n")
    chosen = ("--include", "*.jpg", "--include=2019/**", "--exclude", "raw/", "--keys", str(keys))
    sent = checked(*command, *ENDS, *chosen)
    assert sent.files == {"inputs/0/keys.txt": keys}
    assert sent.arguments == (*command, *ENDS, *chosen[:-1], "inputs/0/keys.txt")
    keys.write_text("b.jpg\n")
    assert checked(*command, *ENDS, *chosen).digest != sent.digest
    in_storage = checked(*command, *ENDS, "--keys", "s3://bucket/keys.parquet")
    assert not in_storage.files


def test_a_nightly_spec_is_checked_too(tmp_path):
    file = tmp_path / "nightly.toml"
    file.write_text(NIGHT)
    assert checked("nightly", str(file)).arguments == ("nightly", "specs/nightly.toml")
    for place in (
        "s3://bucket/in",
        "s3://bucket/models",
        "s3://bucket/state",
        "s3://bucket/valid",
        "s3://bucket/out",
    ):
        file.write_text(NIGHT.replace(place, "/disk/x"))
        assert "is a path of this machine" in refused("nightly", str(file))
        checked("nightly", str(file), shared=True)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("upscale", "photos/", "s3://out/"), "SOURCE photos/ is a path of this machine"),
        (("upscale", "s3://in/", "/data/out"), "DESTINATION /data/out is a path of this machine"),
        (("upscale", *ENDS, "--model", "./x.safetensors"), "imgtx models import"),
        (("restore", *ENDS, "--model", "sr-x2", "--masks", "masks/"), "--masks masks/"),
        (("retry", "out/"), "DESTINATION out/"),
        (("evaluate", "sr-x2", "set5/"), "must be one of upscale, restore"),
        (("upscale", *ENDS, "--scale", "7"), "--scale 7"),
        (("upscale", *ENDS, "--set", "quallity=3"), "did you mean 'quality'"),
        (("upscale", *ENDS, "--address", "auto"), "leave it out"),
        (("status", "s3://out/"), "must be one of upscale, restore"),
        (("models", "list"), "must be one of upscale, restore"),
        (("upscale", "s3://key:pass@in/", "s3://out/"), "s3://... contains a credential"),
        (("upscale", "https://h/x?sig=abc", "s3://out/"), "https://... contains a credential"),
    ],
)
def test_commands_that_cannot_run_on_a_cluster_are_refused_in_one_line(arguments, named):
    message = refused(*arguments)
    assert named in message
    assert "pass@" not in message
    assert "sig=abc" not in message


def test_a_secret_of_this_machine_is_found_anywhere_in_the_command(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted/secret")
    message = refused("upscale", *ENDS, "--set", "model=planted/secret")
    assert "public" in message
    assert "planted" not in message


def test_shared_paths_are_absolute():
    assert checked("upscale", "/mnt/in", "/mnt/out", shared=True).destination == "/mnt/out"
    assert "give its absolute path" in refused("upscale", "in", "/mnt/out", shared=True)
    ends = ("upscale", "s3://in", "s3://out", "--model")
    assert checked(*ends, "torchscript:/mnt/x.ts?scale=2", shared=True).name == "upscale"
    assert "give its absolute path" in refused(*ends, "torchscript:x.ts?scale=2", shared=True)


def test_a_submitted_training_must_write_to_storage(spec):
    assert "give --workers and --storage" in refused("train", str(spec))
    assert "--storage runs" in refused("train", str(spec), "--workers", "2", "--storage", "runs")
    moved = ("--set", "train=photos/")
    assert "train photos/" in refused(
        "train", str(spec), "--workers", "2", "--storage", "s3://bucket/t", *moved
    )


def test_checking_a_command_does_not_affect_the_command_line():
    checked("verify", "s3://out/")
    assert imgtx("verify", "-h").exit_code == 0


def test_every_command_that_starts_a_run_can_be_submitted():
    starting = {
        name for name, command in main.commands.items() if {"workers"} & {p.name for p in command.params}
    }
    assert starting <= {*RUNS}


def test_usage_errors_of_click_are_reported_by_click():
    with pytest.raises(click.UsageError, match="No such option"):
        checked("upscale", *ENDS, "--scael", "4")


def test_a_local_table_of_prompts_travels_and_prompts_of_the_command_need_none(tmp_path):
    table = tmp_path / "prompts.csv"
    table.write_text("prompt\na red circle\n")
    command = checked("generate", str(table), "s3://out/", "--model", "sr-x2")
    assert command.files == {"inputs/0/prompts.csv": table}
    assert command.entrypoint == "python -m jobs.cli generate inputs/0/prompts.csv s3://out/ --model sr-x2"
    command = checked("generate", "s3://out/", "-p", "a red circle", "--model", "sr-x2")
    assert (command.files, command.destination) == ({}, "s3://out/")
    assert command.entrypoint == "python -m jobs.cli generate s3://out/ -p 'a red circle' --model sr-x2"
    assert "sheet.png is a path of this machine" in refused(
        "generate", "s3://out/", "-p", "a", "--model", "sr-x2", "--sheet", "sheet.png"
    )
