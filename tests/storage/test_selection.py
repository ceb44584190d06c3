"""Which files of a source a run takes, on every back end: the same keys by folder, glob, file and list."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imgtx.errors import UsageError
from pipeline.sources import located, looked_up, open_selected
from pipeline.spec import RunSpec
from pipeline.storage.store import Store

KINDS = ("images",)
IMAGES = ["a.jpg", "b [1].png", "2019/c.jpg", "2019/d.PNG", "2019/x/e.jpg", "raw/f.tif"]
HIDDEN = [
    "._a.jpg",
    "@eaDir/a.jpg",
    "@eaDir/b.jpg",
    "2019/.git/x/g.png",
    ".Trash-1000/h.png",
    "__MACOSX/._a.jpg",
]
OTHERS = ["notes.txt", "2019/clip.mov"]


@pytest.fixture
def source(store: Store) -> Store:
    for key in [*IMAGES, *HIDDEN, *OTHERS]:
        store.write(key, key.encode())
    return store


class Listed:
    """The listing of a source: its images with their versions, and the keys of every other outcome."""

    def __init__(self, uri: str, **fields: Any):
        self.spec = located(RunSpec(uri, "out", **fields), KINDS)
        opened = open_selected(self.spec, KINDS)
        self.rows = [row for batch in opened.list(local_destination=True) for row in batch.to_pylist()]
        self.images = {row["key"]: row["version"] for row in self.rows if not row["status"]}
        twice = len(self.images) < sum(not row["status"] for row in self.rows)
        assert not twice or self.spec.keys, "listed twice"
        self.takes = opened.selection.takes
        self.why = opened.why_nothing(len(self.rows))

    def by_reason(self, reason: str) -> set[str]:
        return {row["key"] for row in self.rows if row["reason"] == reason}


def uri_of(store: Store, key: str = "") -> str:
    return f"{store.uri.rstrip('/')}/{key}"


def test_hidden_names_are_left_out_and_counted_once_a_folder(source: Store):
    listed = Listed(source.uri)
    assert sorted(listed.images) == sorted(IMAGES)
    assert listed.by_reason("suffix") == set(OTHERS)
    hidden = {"._a.jpg", "@eaDir/", "2019/.git/", ".Trash-1000/", "__MACOSX/"}
    assert listed.by_reason("hidden") == hidden
    assert listed.takes(pa.array([*IMAGES, *HIDDEN])).tolist() == [True] * len(IMAGES) + [False] * len(HIDDEN)


CHOICES: list[tuple[dict[str, list[str]], list[str]]] = [
    ({"include": ["*.jpg"]}, ["a.jpg", "2019/c.jpg", "2019/x/e.jpg"]),
    ({"include": ["/*.jpg"]}, ["a.jpg"]),
    ({"include": ["2019/**"]}, ["2019/c.jpg", "2019/d.PNG", "2019/x/e.jpg"]),
    ({"include": ["2019/*.jpg", "*.tif"]}, ["2019/c.jpg", "raw/f.tif"]),
    ({"include": ["2019"], "exclude": ["x", "*.PNG"]}, ["2019/c.jpg"]),
    ({"exclude": ["2019/", "raw/**"]}, ["a.jpg", "b [1].png"]),
    # A glob overrides the hidden names that it spells, and no others.
    ({"include": ["._*"]}, ["._a.jpg"]),
    ({"include": ["@eaDir/b*", "b*"]}, ["@eaDir/b.jpg", "b [1].png"]),
    ({"include": ["2019/.git/**"]}, ["2019/.git/x/g.png"]),
    ({"include": [".*"]}, ["._a.jpg", "2019/.git/x/g.png", ".Trash-1000/h.png"]),
    ({"include": ["._*", "__*"]}, ["._a.jpg", "__MACOSX/._a.jpg"]),
    ({"include": [".git", "x"], "exclude": ["g.*"]}, ["2019/x/e.jpg"]),
]


def test_globs_choose(source: Store):
    everything = [*IMAGES, *HIDDEN]
    for fields, taken in CHOICES:
        listed = Listed(source.uri, **fields)
        assert sorted(listed.images) == sorted(taken), fields
        is_taken = dict(zip(everything, listed.takes(pa.array(everything)).tolist(), strict=True))
        assert is_taken == {key: key in taken for key in everything}, fields


def test_what_is_left_out_is_counted_alike_everywhere(source: Store):
    listed = Listed(source.uri, include=["*.jpg", "*.mov"], exclude=["2019/x", "*c.jpg"])
    assert sorted(listed.images) == ["a.jpg"]
    assert listed.by_reason("excluded") == {
        "2019/x/", "2019/c.jpg", "2019/d.PNG", "b [1].png", "raw/f.tif", "notes.txt"
    }  # fmt: skip
    assert listed.by_reason("suffix") == {"2019/clip.mov"}


# SOURCE, the root that keys are relative to, and the keys.
PLACES = [
    ("", "", IMAGES),
    ("a.jpg", "", ["a.jpg"]),
    ("b [1].png", "", ["b [1].png"]),
    ("2019/c.jpg", "2019", ["c.jpg"]),
    # What is named is not hidden.
    ("@eaDir/a.jpg", "@eaDir", ["a.jpg"]),
    ("._a.jpg", "", ["._a.jpg"]),
    ("*.jpg", "", ["a.jpg"]),
    ("**/*.jpg", "", ["a.jpg", "2019/c.jpg", "2019/x/e.jpg"]),
    ("2019/*", "2019", ["c.jpg", "d.PNG", "x/e.jpg"]),
    ("20*/[cd].*", "", ["2019/c.jpg", "2019/d.PNG"]),
    ("?aw", "", ["raw/f.tif"]),
    ("2019/.g*/**", "2019", [".git/x/g.png"]),
]


def test_a_source_may_be_a_folder_a_file_or_a_glob(source: Store):
    for place, root, taken in PLACES:
        listed = Listed(uri_of(source, place))
        assert listed.spec.source.rstrip("/") == uri_of(source, root).rstrip("/"), place
        assert sorted(listed.images) == sorted(taken), place
        for key, version in listed.images.items():
            whole = f"{root}/{key}".lstrip("/")
            assert (len(whole), version) == source.stat(whole)


def write_list(folder: Path, name: str, keys: list[str]) -> str:
    path = folder / name
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"n": range(len(keys)), "key": keys}), path)
    elif path.suffix == ".csv":
        path.write_text("n,key\n" + "".join(f'1,"{key}"\n' for key in keys))
    else:
        path.write_text("\n".join(keys))
    return str(path)


def test_a_list_of_keys_chooses(source: Store, tmp_path_factory, monkeypatch):
    keys = [
        "./a.jpg",
        uri_of(source, "2019/c.jpg"),
        "@eaDir/a.jpg",
        "gone.png",
        "notes.txt",
        "a.jpg",
        "raw/f.tif",
    ]
    folder, version = tmp_path_factory.mktemp("list"), source.stat("2019/c.jpg")[1]
    for name, most in (("a.txt", looked_up.MOST), ("a.parquet", 0), ("a.csv", looked_up.MOST)):
        monkeypatch.setattr(looked_up, "MOST", most)
        rows = Listed(source.uri, keys=write_list(folder, name, keys), exclude=["raw"]).rows
        assert {(row["key"], row["status"], row["reason"]) for row in rows} == {
            ("a.jpg", "", ""),
            ("2019/c.jpg", "", ""),
            ("@eaDir/a.jpg", "", ""),
            ("notes.txt", "skipped", "suffix"),
            ("gone.png", "failed", "not_found"),
            ("raw/", "skipped", "excluded"),
        }, name
        (message,) = {row["message"] for row in rows} - {""}
        assert "--keys names it, and there is no such file" in message
        assert {row["version"] for row in rows if row["key"] == "2019/c.jpg"} == {version}


def test_a_list_may_be_in_storage_and_separated_by_zero_bytes(source: Store):
    source.write("lists/keys", b"a.jpg\x002019/c.jpg\x00")
    assert sorted(Listed(source.uri, keys=uri_of(source, "lists/keys")).images) == ["2019/c.jpg", "a.jpg"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"name\na.jpg\n", "has no column 'key': it has name"),
        ("a.csv", b"key,b\na.jpg\n", "row 1 has 1 cells where the header has 2"),
        ("a.jsonl", b'{"key": 3}\n', "row 1 has 3 as key: it must be text"),
        ("a.txt", b"\n\r\n", "names no key"),
        ("a.txt", "a.jpg".encode("utf-16"), "is UTF-16"),
        ("a.parquet", b"PAR1", "is not a complete Parquet file"),
        ("none.txt", None, "there is no such file"),
    ],
)
def test_a_list_that_cannot_be_read_is_named(tmp_path: Path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        Listed(str(tmp_path), keys=str(path))


def test_nothing_is_taken_for_a_reason(source: Store):
    assert "no image that --include *.gif takes" in Listed(source.uri, include=["*.gif"]).why
    assert "no image that SOURCE x*.jpg takes" in Listed(uri_of(source, "x*.jpg")).why
    assert "no image that --exclude * leaves" in Listed(source.uri, exclude=["*"]).why
