"""One local Ray and one S3 server for the whole session; runs in this process use both.

Ray's workers inherit the environment of the moment when Ray starts, so the S3 endpoint and the credentials are set
before. The cluster claims a GPU that it does not have, so that pools for a GPU can be tested without one; `gpus=0`
gives the pools of a machine without.
"""

import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from pipeline.cluster.environment import PATIENCE, WORKER_ENVIRONMENT
from pipeline.cluster.private import patient_start
from pipeline.cluster.start import START_SECONDS
from pipeline.storage.store import Store, open_store
from tests.support.archive import save_tiny_model
from tests.support.s3server import S3Server, serving

S3_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
}
TEST_SETTINGS = {
    # At Ray's default of 15 any other program on the machine starves the workers.
    "RAY_worker_niceness": "0",
    # A worker killed for lack of memory would fetch its image again.
    "RAY_memory_monitor_refresh_ms": "0",
}


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with serving() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in (S3_ENVIRONMENT | {"AWS_ENDPOINT_URL": server.url}).items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="session", autouse=True)
def local_ray(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        # For the workers too.
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        for name, value in (WORKER_ENVIRONMENT | PATIENCE | TEST_SETTINGS).items():
            patch.setenv(name, value)
        import ray

        start_ray()
        yield
        ray.shutdown()


def start_ray() -> None:
    """Start Ray with time enough for a busy machine."""
    import ray

    with patient_start(START_SECONDS):
        ray.init(
            address="local",
            num_cpus=2,
            num_gpus=1,
            include_dashboard=False,
            object_store_memory=512 << 20,
            log_to_driver=False,
        )


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    """Return the URI of an empty bucket."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture
def source(tmp_path: Path) -> Store:
    (tmp_path / "source").mkdir()
    return open_store(str(tmp_path / "source"))
