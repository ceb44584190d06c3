"""One local Ray and one S3 server for the whole session; runs in this process use both.

Ray's workers inherit the environment of the moment when Ray starts, so the S3 endpoint and the credentials
stand in it before. The cluster claims a GPU that is not there, so that the GPU's plan can be tested without
one; `gpus=0` is the plan of a machine without.
"""

import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from pipeline.cluster import LOCAL_SETTINGS, WORKER_ENVIRONMENT
from pipeline.storage import Store, open_store
from tests.archive import save_tiny_model
from tests.s3server import S3Server, serving

S3_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
}
# Ray runs its workers at nice 15: on a machine that does other work too they starve.
TEST_SETTINGS = {"RAY_worker_niceness": "0"}


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with serving() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in (S3_ENVIRONMENT | {"AWS_ENDPOINT_URL": server.url}).items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="session", autouse=True)
def local_ray(s3_server: S3Server) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (LOCAL_SETTINGS | WORKER_ENVIRONMENT | TEST_SETTINGS).items():
            patch.setenv(name, value)
        import ray

        ray.init(
            address="local",
            num_cpus=2,
            num_gpus=1,
            include_dashboard=False,
            object_store_memory=512 << 20,
            log_to_driver=False,
        )
        yield
        ray.shutdown()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    """The URI of an empty bucket."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture
def source(tmp_path: Path) -> Store:
    (tmp_path / "source").mkdir()
    return open_store(str(tmp_path / "source"))
