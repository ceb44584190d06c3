"""Sources on a web server, through fsspec."""

import pytest

from imgtx.errors import StorageError
from pipeline.storage.retry import FAIL_FAST
from pipeline.storage.store import Store


def test_a_server_that_does_not_answer_is_not_an_empty_folder():
    pytest.importorskip("aiohttp")
    # Port 9 of loopback: nothing listens there.
    store = Store("http://127.0.0.1:9/photos/", retry=FAIL_FAST)
    with pytest.raises(StorageError, match=r"cannot list .*the storage must answer"):
        list(store.list())
