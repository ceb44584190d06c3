"""What file systems of fsspec raise becomes a StorageError, never a bug in imgtx."""

import pytest

from imgtx.errors import StorageError
from pipeline.storage.fsspec import FsspecFiles
from pipeline.storage.retry import RetryPolicy


class ClientError(Exception):
    """Like those of an HTTP client: no OSError."""


@pytest.mark.parametrize(
    ("error", "transient"),
    [(ClientError("name not known\nand more"), True), (NotImplementedError("no list"), False)],
)
def test_a_file_systems_own_exception_is_a_storage_error(monkeypatch, error, transient):
    files = FsspecFiles("memory://own-exceptions", RetryPolicy(attempts=2, first_pause=0))

    def fail(path: str) -> None:
        raise error

    monkeypatch.setattr(files, "_fs", type("FileSystem", (), {"exists": staticmethod(fail)})())
    with pytest.raises(StorageError) as raised:
        files.probe()
    assert raised.value.reason == "storage"
    assert raised.value.transient == transient
    assert "\n" not in str(raised.value)
    assert str(error).splitlines()[0] in str(raised.value)
