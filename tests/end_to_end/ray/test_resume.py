"""Resume before read: finished images are never fetched again, and stale ones are, exactly.

Fetches are counted where they arrive: in the request log of the S3 server.
"""

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs.run import driver
from jobs.run.driver import run
from jobs.run.prepare import prepare
from jobs.run.tally import Summary, Tally
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.parts import list_parts, write_part
from pipeline.sources.images import inventory
from pipeline.spec import RunSpec
from pipeline.storage.store import open_store
from pipeline.tables.rows import empty
from pipeline.tables.schemas import OUTCOME
from tests.support.archive import assert_sound, fill, look, picture, save_tiny_model
from tests.support.s3server import S3Server

# Some tests start an engine five times.
pytestmark = pytest.mark.timeout(1200)

COUNT = 20


def ignore(tally: Tally) -> None:
    pass


class Archive:
    """An archive in S3 with its destination beside it; counts fetches since the last call."""

    def __init__(self, server: S3Server, bucket: str, model: str, engine: str):
        self.server, self.source = server, open_store(f"{bucket}/archive")
        own = {"model": model, "gpus": 0, "workers": 1, "engine": engine}
        self.spec = RunSpec(self.source.uri, f"{bucket}/out", **own)
        self.keys = fill(self.source, COUNT)
        self._seen = 0

    @property
    def ledger(self) -> Ledger:
        return Ledger(open_store(self.spec.destination))

    def run(self, **changes: object) -> Summary:
        self.spec = replace(self.spec, **changes)
        return run(self.spec, ignore)

    def fetched(self) -> Counter[str]:
        """Return the keys of the source that were read since the last call, with counts."""
        requests = self.server.requests()
        new, self._seen = requests[self._seen :], len(requests)
        folder = "/" + self.source.uri.removeprefix("s3://")
        paths = [unquote(urlsplit(path).path) for method, path, _ in new if method == "GET"]
        return Counter(path.removeprefix(folder) for path in paths if path.startswith(folder))


@pytest.fixture
def without_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make starting an engine fail: a run without work must not. Request it after `archive`, which does."""

    def start(*arguments: object) -> None:
        pytest.fail("the run started an engine")

    monkeypatch.setattr(driver, "_start", start)


@pytest.fixture(params=["ray", "local"])
def archive(s3_server: S3Server, bucket: str, model: str, request: pytest.FixtureRequest) -> Archive:
    """Return an archive that has been run once, to the end."""
    archive = Archive(s3_server, bucket, model, request.param)
    archive.fetched()
    summary = archive.run()
    assert summary.written == COUNT
    # One GET per image.
    assert archive.fetched() == Counter(archive.keys)
    assert_sound(look(archive.spec.destination))
    return archive


def test_a_finished_archive_is_not_fetched_again_and_no_engine_started(
    archive: Archive, without_engine: None
):
    before = look(archive.spec.destination)
    summary = archive.run()
    assert archive.fetched() == Counter()
    assert (summary.written, summary.current) == (0, COUNT)
    assert look(archive.spec.destination) == before


def test_after_ninety_percent_only_the_other_ten_are_fetched(archive: Archive):
    lost = sorted(archive.keys[::10])
    forget_rows(archive.spec.destination, lost)
    added = fill(archive.source, COUNT // 10, start=COUNT)
    summary = archive.run()
    assert archive.fetched() == Counter([*lost, *added])
    assert (summary.written, summary.current) == (len(lost) + len(added), COUNT - len(lost)), summary
    assert summary.causes == {"new": len(lost) + len(added), "current": COUNT - len(lost)}
    assert_sound(look(archive.spec.destination))


def test_a_changed_source_is_fetched_and_replaces_its_output(archive: Archive):
    before = look(archive.spec.destination)
    changed = archive.keys[3]
    archive.source.write(changed, picture(COUNT + 3 + 4 * 11)[1])
    summary = archive.run()
    after = look(archive.spec.destination)
    assert archive.fetched() == Counter([changed])
    assert (summary.written, summary.causes["changed"]) == (1, 1)
    assert {key for key in archive.keys if after.outputs[key] != before.outputs[key]} == {changed}
    assert_sound(after)


def test_a_new_recipe_reruns_stale_images_and_removes_old_outputs(archive: Archive, tmp_path: Path):
    first_spec, first = archive.spec, look(archive.spec.destination)
    for change in (
        {"model": save_tiny_model(tmp_path / "other.safetensors", seed=1)},
        {"model": save_tiny_model(tmp_path / "x3.safetensors", scale=3)},
        {"format": "jpeg"},
    ):
        archive.fetched()
        summary = archive.run(**change)
        found = look(archive.spec.destination)
        assert archive.fetched() == Counter(archive.keys), change
        assert (summary.written, summary.causes) == (COUNT, {"stale": COUNT}), change
        assert_sound(found)
    scales = {row["out_width"] // row["in_width"] for row in found.rows.values()}
    suffixes = {Path(name).suffix for name in found.files}
    assert (scales, suffixes) == ({3}, {".jpg"})
    archive.spec = first_spec
    archive.run()
    again = look(archive.spec.destination)
    assert_sound(again)
    assert again.files == first.files


def test_an_interrupted_change_of_recipe_continues_where_it_stopped(archive: Archive):
    part = archive.run(quality=60, limit=5)
    done = archive.fetched()
    assert (part.written, part.pending, part.accounted) == (5, COUNT - 5, True)
    rest = archive.run(limit=None)
    assert archive.fetched() == Counter(archive.keys) - done
    assert (rest.written, rest.current, rest.pending) == (COUNT - 5, 5, 0)
    found = look(archive.spec.destination)
    assert len({row["recipe"] for row in found.rows.values()}) == 1
    assert_sound(found)


def forget_rows(destination: str, keys: list[str]) -> None:
    """Remove these keys from the ledger, as if their rows had never been written."""
    store = open_store(destination)
    rows = Ledger(store).current()
    for part in list_parts(store):
        store.delete(part.name)
    write_part(store, rows.filter(pc.invert(pc.is_in(rows["key"], pa.array(keys)))))


def test_a_hundred_thousand_finished_images_take_seconds(tmp_path: Path, model: str, without_engine: None):
    """The files are empty: any that was read would fail. The seconds are CPU time, independent of other work;
    the bound is generous: one core needs 1 s.
    """
    count = 100_000
    spec = RunSpec(str(tmp_path / "source"), str(tmp_path / "out"), model=model, gpus=0, workers=1)
    for number in range(count):
        path = tmp_path / "source" / f"{number // 1000:03d}" / f"{number:06d}.png"
        if number % 1000 == 0:
            path.parent.mkdir(parents=True)
        path.touch()
    prepared = prepare(spec)
    listed = pa.Table.from_batches(inventory(prepared.opened.source.store))
    prepared.ledger.append(written_rows(listed), recipe=prepared.job.recipe.digest, run="earlier")
    started = time.process_time()
    summary = run(spec, ignore)
    seconds = time.process_time() - started
    assert (summary.listed, summary.current, summary.written) == (count, count, 0)
    assert seconds < 30
    print(f"{count} finished images: {seconds:.2f} s")


def written_rows(listed: pa.Table) -> pa.Table:
    """Return OUTCOME rows in which every listed key is written."""
    known = dict(zip(listed.column_names, listed.columns, strict=True))
    known |= {"output": listed["key"], "status": pa.repeat("written", len(listed))}
    blank = {f.name: pa.array([empty(f.type)] * len(listed), f.type) for f in OUTCOME if f.name not in known}
    return pa.table(known | blank).select(OUTCOME.names).cast(OUTCOME)
