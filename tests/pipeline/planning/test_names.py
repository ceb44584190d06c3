"""Names of outputs mirror their keys, are never shared, and are the same every time."""

import string
import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.planning.collisions import NameCollisions
from pipeline.planning.names import fold
from pipeline.tables.hashing import bucket_of, hash64


def names(keys: list[str], requested: str = "same", buckets: int = 4) -> list[str]:
    """Return the keys' output names, decided over several buckets."""
    levels, listed = NameCollisions(requested), pa.array(keys, pa.string())
    levels.add(listed, hash64(listed))
    cut = bucket_of(listed, buckets)
    mine = [listed.filter(pa.array(cut == index)) for index in range(buckets)]
    levels.settle(lambda index: (mine[index], hash64(mine[index])), buckets)
    named = {}
    for index, some in enumerate(mine):
        got = levels.names(some, hash64(some), (index, buckets)).to_pylist()
        named |= dict(zip(some.to_pylist(), got, strict=True))
    return [named[key] for key in keys]


def as_a_folding_file_system_sees(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


@pytest.mark.parametrize(
    ("key", "requested", "name"),
    [
        ("a/b.jpg", "same", "a/b.jpg"),
        ("a/b.JPG", "same", "a/b.JPG"),
        ("a/b.jpg", "png", "a/b.png"),
        ("a/b.JPG", "png", "a/b.png"),
        ("a/b.jpeg", "jpeg", "a/b.jpeg"),
        ("a/b.tiff", "jpeg", "a/b.jpg"),
        ("a.b.c/d.e.webp", "tiff", "a.b.c/d.e.tif"),
        ("a/b.bmp", "same", "a/b.png"),
        ("a/b.bmp", "bmp", "a/b.bmp"),
        ("100% Ärger + mehr/ß (1).jpg", "webp", "100% Ärger + mehr/ß (1).webp"),
        ("a/b.gif", "same", "a/b.png"),
        ("a/b.JP2", "same", "a/b.png"),
        ("a/b.pjpeg", "same", "a/b.pjpeg"),
        ("a/b.jif", "png", "a/b.png"),
        ("a/b.jpg ", "same", "a/b.jpg"),
        ("a/b.png. .", "jpeg", "a/b.jpg"),
        ("a/b.c. ", "same", "a/b.c. "),
        ("no suffix", "png", "no suffix.png"),
        ("no suffix", "same", "no suffix"),
    ],
)
def test_a_lone_key_changes_its_suffix_only(key, requested, name):
    assert names([key], requested) == [name]


def test_an_empty_listing_has_no_names():
    assert names([]) == []


@pytest.mark.parametrize(
    "keys",
    [
        ["A.png", "a.png"],
        ["a.jpg", "a.jpeg", "a.png"],
        ["f/Strasse.png", "f/STRAẞE.png", "F/straße.png"],
        [unicodedata.normalize("NFC", "é.png"), unicodedata.normalize("NFD", "é.png")],
    ],
)
def test_every_member_of_a_group_is_hashed(keys):
    got = names([*keys, "bystander.png"], "png")
    assert got[-1] == "bystander.png"
    assert all(len(name.rpartition("~")[2]) == len("01234567.png") for name in got[:-1])
    assert len({as_a_folding_file_system_sees(name) for name in got}) == len(got)


def test_keys_that_keep_different_suffixes_are_not_hashed():
    assert names(["a.jpg", "a.png"], "same") == ["a.jpg", "a.png"]


def test_a_bmp_and_a_png_of_one_stem_clash_under_same():
    first, second = names(["a.bmp", "a.png"], "same")
    assert first != second
    assert first.startswith("a~")
    assert second.startswith("a~")


@pytest.mark.parametrize(
    ("keys", "requested"),
    [
        (["x.png", "x.png/y.png"], "same"),
        (["x.jpg", "x.png/deep/er/y.png"], "png"),
        (["X.PNG", "x.png/y.png"], "same"),
    ],
)
def test_a_file_is_never_a_folder_of_another(keys, requested):
    file, inside = names(keys, requested)
    assert inside == keys[1]
    assert "~" in file


def test_a_key_that_looks_like_a_hashed_name_gets_a_name_of_its_own():
    hashed = names(["a.jpg", "a.png"], "png")
    got = names(["a.jpg", "a.png", *hashed], "png")
    assert len(set(got)) == 4


def test_a_name_too_long_for_a_file_system_is_cut_and_hashed():
    got = names(["é" * 125 + ".jpg", "é" * 125 + ".png"], "webp")
    assert all(len(name.encode()) <= 255 and "~" in name for name in got)
    assert len(set(got)) == 2
    assert len(names(["x" * 251 + ".jpg"], "webp")[0].encode()) <= 255


parts = st.text(alphabet="aAäÄßẞsSeé\u0301\u0131İ~.", min_size=1, max_size=4) | st.sampled_from(
    ["x.png", "X.jpg"]
)
keys_of_any_kind = st.lists(
    st.builds(
        lambda folders, stem, suffix: "/".join([*folders, stem + suffix]),
        st.lists(parts, max_size=2),
        parts,
        st.sampled_from([".png", ".PNG", ".jpg", ".jpeg", ".bmp", ".tif", ".webp"]),
    ),
    unique=True,
    max_size=30,
)


@settings(max_examples=80)
@given(keys=keys_of_any_kind, requested=st.sampled_from(["same", "png", "jpeg"]), seed=st.randoms())
def test_names_are_distinct_never_folders_and_independent_of_order(keys, requested, seed):
    given_names = dict(zip(keys, names(keys, requested), strict=True))
    seen = {as_a_folding_file_system_sees(name) for name in given_names.values()}
    assert len(seen) == len(keys)
    for name in seen:
        folders = [name[:i] for i, letter in enumerate(name) if letter == "/"]
        assert not seen.intersection(folders)
    shuffled = seed.sample(keys, len(keys))
    assert dict(zip(shuffled, names(shuffled, requested), strict=True)) == given_names


@settings(max_examples=40)
@given(
    st.lists(st.text(alphabet=string.ascii_letters + "äÄßẞéÉİ\u0131\u017f\u0301/", max_size=6), max_size=20)
)
def test_fold_joins_every_two_names_that_a_file_system_joins(texts):
    folded = fold(pa.array(texts, pa.string())).to_pylist()
    for text, one in zip(texts, folded, strict=True):
        for other_text, other in zip(texts, folded, strict=True):
            if as_a_folding_file_system_sees(text) == as_a_folding_file_system_sees(other_text):
                assert one == other
        assert one.count("/") == text.count("/")
