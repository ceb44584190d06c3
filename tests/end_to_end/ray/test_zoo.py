"""Bad and odd images beside good ones in one archive: all are accounted for, none affects another."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image

from imgtx.codecs import decode
from jobs.run.prepare import plan_run, prepare
from pipeline.spec import RunSpec
from pipeline.stages.all_in_one import AllStages
from pipeline.storage.store import Store, open_store
from pipeline.tables.schemas import OUTCOME, REASONS, WORK
from tests.support.archive import Destination, assert_sound, fill, look
from tests.support.commands import imgtx
from tests.support.zoo import Expectation, build_zoo

# A dangling link in the source.
UNREADABLE = "broken/dangling link.png"


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, dict[str, Expectation]]:
    """Return the zoo, ten good images, an unreadable one and a file that is not named as an image."""
    folder = tmp_path_factory.mktemp("zoo")
    expected = build_zoo(folder)
    expected |= dict.fromkeys(fill(open_store(str(folder)), 10), Expectation())
    (folder / UNREADABLE).symlink_to(folder / "nowhere")
    (folder / "notes.txt").write_text("not an image")
    return open_store(str(folder)), expected | {UNREADABLE: Expectation("not_found", stage="fetch")}


@pytest.fixture(scope="module", params=["ray", "local"])
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def destination(engine: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("zoo-out"))


@pytest.fixture(scope="module")
def first_run(zoo: tuple[Store, dict[str, Expectation]], destination: str, model: str, engine: str) -> Result:
    return imgtx(*command(zoo[0].uri, destination, model), "--engine", engine)


@pytest.fixture(scope="module")
def found(first_run: Result, destination: str) -> Destination:
    return look(destination)


def command(source: str, destination: str, model: str) -> tuple[str, ...]:
    # 100 megapixels: less than the zoo's decompression bombs claim
    options = ("--model", model, "--gpus", "0", "--set", "max_megapixels=100", "--json")
    return ("upscale", source, destination, *options)


def summary_of(result: Result) -> dict:
    return json.loads(result.stdout.splitlines()[-1])


def test_every_good_image_is_written_and_every_bad_one_has_a_reason(
    zoo: tuple[Store, dict[str, Expectation]], found: Destination
):
    _, expected = zoo
    assert sum(not e.written for e in expected.values()) >= 20
    assert set(found.rows) == {*expected, "notes.txt"}
    ends = {
        key: ("written", "", "") if e.written else ("failed", e.stage, e.reason)
        for key, e in expected.items()
    }
    ends["notes.txt"] = ("skipped", "list", "suffix")
    rows = found.rows
    assert {key: (row["status"], row["stage"], row["reason"]) for key, row in rows.items()} == ends
    for key, row in rows.items():
        assert bool(row["message"]) == (row["status"] == "failed"), (key, row["message"])
        assert row["reason"] in {"", *REASONS}, key
    assert_sound(found)


@pytest.fixture(scope="module")
def here(
    zoo: tuple[Store, dict[str, Expectation]], model: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, dict], Destination]:
    """Return what the stages make of the zoo one after the other in this process: outcomes, and files."""
    folder = str(tmp_path_factory.mktemp("zoo-here"))
    run = prepare(RunSpec(zoo[0].uri, folder, model=model, gpus=0, max_megapixels=100))
    work = plan_run(run).work.slice().select(WORK.names)
    rows = [row for table in AllStages(run.job, "cpu")(work) for row in table.to_pylist()]
    return {row["key"]: row for row in rows}, look(folder)


def test_both_engines_write_the_same_bytes_and_rows(
    here: tuple[dict[str, dict], Destination], found: Destination
):
    rows, files = here
    assert found.files == files.files
    # When and how fast is each run's own; what was skipped by its name never reaches a stage.
    own = {name for name in OUTCOME.names if name.startswith("seconds_")}
    for key, row in rows.items():
        assert {name: found.rows[key][name] for name in OUTCOME.names if name not in own} == {
            name: row[name] for name in OUTCOME.names if name not in own
        }
    assert set(found.rows) == {*rows, "notes.txt"}


def test_outputs_have_twice_the_size_and_list_conversions(
    zoo: tuple[Store, dict[str, Expectation]], found: Destination, destination: str
):
    for key, expectation in zoo[1].items():
        if not expectation.written or expectation.size is None:
            continue
        row = found.rows[key]
        height, width = expectation.size
        assert (row["out_height"], row["out_width"]) == (2 * height, 2 * width), key
        assert set(expectation.notes) <= set(row["notes"]), key
        output = Path(destination, "images", row["output"])
        if output.suffix == ".jxl":
            # Pillow reads none.
            made = decode(output.read_bytes(), max_pixels=10**7).pixels
            assert made.shape[:2] == (2 * height, 2 * width), key
            continue
        with Image.open(output) as image:
            assert image.size == (2 * width, 2 * height), key
            image.load()


def test_the_accounting_identity_holds(
    first_run: Result, zoo: tuple[Store, dict[str, Expectation]], found: Destination
):
    summary, expected = summary_of(first_run), zoo[1]
    bad = sum(not e.written for e in expected.values())
    assert summary["accounted"]
    assert summary["listed"] == len(expected) + 1
    assert (summary["written"], summary["failed"], summary["skipped"]) == (len(expected) - bad, bad, 1)
    assert (summary["current"], summary["pending"]) == (0, 0)
    assert sum(summary["reasons"].values()) == bad


def test_too_many_failures_give_exit_code_3_and_allowed_ones_0(
    first_run: Result, zoo: tuple[Store, dict[str, Expectation]], destination: str, model: str
):
    assert first_run.exit_code == 3, first_run.output
    again = command(zoo[0].uri, destination, model)
    forgiven = imgtx(*again, "--max-failed", "50%")
    assert forgiven.exit_code == 0, forgiven.output
    counted = summary_of(forgiven)
    bad = sum(not e.written for e in zoo[1].values())
    assert imgtx(*again, "--max-failed", str(bad - 1)).exit_code == 3
    assert imgtx(*again, "--max-failed", str(bad)).exit_code == 0
    assert (counted["written"], counted["current"]) == (0, len(zoo[1]) - bad)
