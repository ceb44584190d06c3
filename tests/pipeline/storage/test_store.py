"""What a URI means, before any connection."""

import os

import pytest

from imgtx.errors import UsageError
from pipeline.storage.store import open_store


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///a%20b/c", "/a b/c"),
        ("file://localhost/a/%C3%A9", "/a/é"),
        ("file:///a/%FF", os.fsdecode(b"/a/\xff")),
        ("/a%20b", "/a%20b"),
    ],
)
def test_a_file_uri_is_decoded_and_a_path_is_not(uri, path):
    assert open_store(uri).uri == path


@pytest.mark.parametrize("uri", ["file://server/share/a", "file://a.jpg", "file://../a"])
def test_a_file_uri_of_another_host_is_refused(uri):
    with pytest.raises(UsageError, match=r"only this machine's can be opened: write file:///PATH"):
        open_store(uri)


def test_an_empty_folder_is_empty():
    assert list(open_store("memory://nothing-here").list()) == []
