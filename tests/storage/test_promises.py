"""What `imgtx doctor` tries of a destination, on every back end, and that it is gone afterwards."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from imgtx.errors import FAILURES, StorageError
from jobs.cli import main
from pipeline.storage import promises
from pipeline.storage.promises import EXCLUSIVE, LISTED, WHOLE, broken_promises
from pipeline.storage.store import Store, open_store


def everything(store: Store) -> list[str]:
    return [key for batch in store.list() for key in batch["key"].to_pylist()]


def test_every_back_end_keeps_them_and_nothing_is_left(store: Store):
    store.write("there.txt", b"before")
    assert broken_promises(store) == []
    assert everything(store) == ["there.txt"]


class Careless:
    """A store that passes everything on but what it is made to do otherwise."""

    def __init__(self, store: Store, **instead):
        self.store, self.instead = store, instead

    def __getattr__(self, name: str):
        return self.instead.get(name) or getattr(self.store, name)


def test_each_broken_promise_is_found(tmp_path: Path):
    store = open_store(str(tmp_path))
    old = [*store.list()]
    assert broken_promises(Careless(store, create=lambda key, data: store.write(key, data) or True)) == [
        EXCLUSIVE
    ]
    assert broken_promises(Careless(store, read=lambda key: promises.OLD[:10])) == [WHOLE, EXCLUSIVE]
    assert broken_promises(Careless(store, list=lambda prefix: iter(old))) == [LISTED]

    def not_yet(key):
        raise StorageError("not_found", "no such object")

    assert WHOLE in broken_promises(Careless(store, read=not_yet))
    assert [*tmp_path.iterdir()] == []


def test_folders_that_it_made_are_removed_and_no_others(tmp_path: Path):
    (tmp_path / "there").mkdir()
    assert broken_promises(open_store(str(tmp_path / "there" / "new" / "out"))) == []
    assert [*tmp_path.rglob("*")] == [tmp_path / "there"]


def test_a_failure_in_the_middle_leaves_nothing(tmp_path: Path):
    store = open_store(str(tmp_path / "out"))

    def refuse(prefix: str):
        raise StorageError("forbidden", "no")

    with pytest.raises(StorageError, match="no"):
        broken_promises(Careless(store, list=refuse))
    assert [*tmp_path.iterdir()] == []


def test_the_doctor_checks_a_bucket(s3_store: Store):
    done = CliRunner().invoke(main, ["doctor", s3_store.uri, "--engine", "local", "--json"])
    findings = {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert findings["destination"]["level"] == findings["storage"]["level"] == "ok"
    assert everything(s3_store) == []
    bad = CliRunner().invoke(main, ["doctor", "s3://no-such-bucket/out", "--engine", "local", "--json"])
    assert bad.exit_code == FAILURES
    report = json.loads(bad.stdout)
    assert not report["ok"]
    assert "NoSuchBucket" in report["findings"][-1]["text"]
