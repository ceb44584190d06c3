"""Globs over keys: what they match, in Arrow and in Python alike, and what is refused."""

import re

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from imgtx.errors import UsageError
from pipeline.sources.globs import Globs, common_beginning, escaped, parse_glob


def matches(glob: str, key: str) -> bool:
    return bool(Globs.parse([glob], "--include").matches(pa.array([key]))[0])


@pytest.mark.parametrize(
    ("glob", "matched", "others"),
    [
        # Without a slash: at every depth, and with everything below.
        ("*.jpg", ["a.jpg", "x/y/a.jpg", ".jpg", "odd.jpg/a.png"], ["a.JPG", "a.jpg.png", "jpg"]),
        ("raw", ["raw", "raw/a.png", "x/raw/y/a.png"], ["raws/a.png", "xraw", "x/draw/a.png"]),
        ("raw/", ["raw/a.png", "x/raw/a.png"], ["raw", "x/raw"]),
        # With a slash: from the root of the source.
        ("/raw", ["raw", "raw/a.png"], ["x/raw"]),
        ("./raw", ["raw/a.png"], ["x/raw"]),
        ("2019/*.jpg", ["2019/a.jpg"], ["x/2019/a.jpg", "2019/x/a.jpg", "2019/a.png"]),
        ("2019/**", ["2019/a.jpg", "2019/x/y.png"], ["2019", "x/2019/a.jpg", "20190/a.jpg"]),
        ("**/raw/*.png", ["raw/a.png", "x/y/raw/a.png"], ["raw/x/a.png", "xraw/a.png"]),
        ("a/**/z.png", ["a/z.png", "a/b/c/z.png"], ["a/bz.png", "b/a/z.png"]),
        ("**", ["a", "a/b/c"], []),
        ("*", ["a", "a/b/c", ""], []),
        ("**/.git/**", [".git/a", "x/.git/a"], [".git", "x.git/a"]),
        ("x**y/a", ["xy/a", "x1y/a"], ["x/y/a"]),
        # Within one part.
        ("a?.png", ["ab.png", "aé.png"], ["a.png", "a/.png", "abc.png"]),
        ("[a-c]1", ["a1", "c1"], ["d1", "1", "-1"]),
        ("[!a-c]1", ["d1", "x/d1"], ["a1", "a/1"]),
        ("[]x]1", ["]1", "x1"], ["a1"]),
        ("[a", ["[a"], ["a"]),
        ("a[^b]", ["ac"], ["ab"]),
        (r"\*.png", ["*.png"], ["a.png"]),
        (r"[\]", ["\\"], ["]"]),
        ("a.b+c(d)|e{2}^$", ["a.b+c(d)|e{2}^$"], ["aXb+c(d)|e{2}^$"]),
        ("a\nb", ["a\nb"], ["ab"]),
        ("*.png", ["a\n.png", "日本/写真.png"], ["a.png\n"]),
    ],
)
def test_what_a_glob_matches(glob, matched, others):
    assert {key: matches(glob, key) for key in [*matched, *others]} == dict.fromkeys(
        matched, True
    ) | dict.fromkeys(others, False)


@pytest.mark.parametrize("glob", ["", "/", "./", "../a", "a/./b", "a\0"])
def test_a_glob_that_matches_nothing_is_refused(glob):
    with pytest.raises(UsageError, match="matches nothing: give a glob of keys"):
        Globs.parse([glob], "--exclude")


def test_a_class_that_is_none_is_refused():
    with pytest.raises(UsageError, match=r"--include '\[z-a\]' is not a glob"):
        Globs.parse(["[z-a]"], "--include")


@pytest.mark.parametrize(
    ("globs", "key", "top"),
    [
        (["a"], "a/b/c.png", "a/"),
        (["*.png"], "x/b.png", "x/b.png"),
        (["b", "/x"], "x/b/c", "x/"),
        (["/x/b", "c"], "x/b/c", "x/b/"),
        (["a/**/z"], "a/z/z/q", "a/z/"),
        (["q"], "a/z", None),
    ],
)
def test_the_first_file_or_folder_that_is_matched(globs, key, top):
    assert Globs.parse(globs, "--exclude").tops(pa.array([key])).to_pylist() == [top]


texts = st.text(st.sampled_from("ab./*?[]!-\\é\n"), max_size=8)


@given(texts, st.lists(texts, max_size=4))
@example("[!]a]", ["b"])
@example("\\", ["\\"])
def test_arrow_and_python_agree_and_names_are_escaped(text, keys):
    try:
        globs = Globs((parse_glob(text, "--include"),))
    except UsageError:
        return
    expression = globs.globs[0].expression.replace("$", r"\Z")
    found = [re.search(expression, key) is not None for key in keys]
    assert globs.matches(pa.array(keys, pa.string())).tolist() == found
    for key, is_found in zip(keys, found, strict=True):
        if is_found:
            assert key.startswith(globs.globs[0].beginning)
    name = text.replace("/", "")
    if name not in ("", ".", ".."):
        (glob,) = Globs.parse([f"/{escaped(name)}"], "SOURCE").globs
        assert glob.key == glob.beginning == name
        assert matches(f"/{escaped(name)}", name)


def test_what_texts_begin_with():
    assert common_beginning([]) == common_beginning(["a", "b"]) == common_beginning(["", "b"]) == ""
    assert common_beginning(["2019/a", "2019/b", "201"]) == "201"
    assert common_beginning(["same"]) == "same"
