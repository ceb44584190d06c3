"""One set of tests for four back ends: `store` is an empty Store on disk, in memory, on moto, on Ceph."""

import socket
import uuid
from collections.abc import Callable, Iterator

import boto3
import pytest

from pipeline.storage.store import Store, open_store
from tests.support import rgw
from tests.support.s3server import S3Server, serving


@pytest.fixture(scope="session")
def moto_server() -> Iterator[S3Server]:
    with serving() as server:
        yield server


@pytest.fixture
def s3_server(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """Start the server and point this process's environment at it."""
    point_at(moto_server.url, monkeypatch)
    return moto_server


def point_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def s3_store(s3_server: S3Server) -> Store:
    return new_bucket()


@pytest.fixture(scope="session")
def rgw_server() -> Iterator[rgw.Rgw]:
    if reason := rgw.missing():
        pytest.skip(reason)
    with rgw.serving() as server:
        yield server


@pytest.fixture
def rgw_store(rgw_server: rgw.Rgw, monkeypatch: pytest.MonkeyPatch) -> Store:
    point_at(rgw_server.url, monkeypatch)
    for name, value in rgw.CHECKSUMS.items():
        monkeypatch.setenv(name, value)
    return new_bucket()


def new_bucket() -> Store:
    """Return a store in a new bucket."""
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return open_store(f"s3://{bucket}/some/root")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Return a loopback port where nothing listens: bound, so that no other process can use it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield probe.getsockname()[1]


@pytest.fixture(params=["local", "memory", "s3", pytest.param("rgw", marks=pytest.mark.nightly)])
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def store(backend: str, request: pytest.FixtureRequest) -> Store:
    makers: dict[str, Callable[[], Store]] = {
        "local": lambda: open_store(str(request.getfixturevalue("tmp_path") / "some" / "root")),
        "memory": lambda: open_store(f"memory://{uuid.uuid4().hex}/some/root"),
        "s3": lambda: request.getfixturevalue("s3_store"),
        "rgw": lambda: request.getfixturevalue("rgw_store"),
    }
    return makers[backend]()
