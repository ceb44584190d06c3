"""A cluster for the tests of a file: a head, machines with a logical GPU of Ray, one with CPUs alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest

from pipeline.storage.store import open_store
from tests.end_to_end.cluster.hosts import missing, network
from tests.end_to_end.cluster.nodes import CREDENTIALS, S3_PORT, Cluster, Run
from tests.end_to_end.cluster.s3proxy import proxying
from tests.support import rgw
from tests.support.archive import Destination, assert_sound, fill, look, save_tiny_model
from tests.support.s3server import serving

COUNT = 96
# Seconds per answer of storage, so that images are in transit when a machine is lost.
DELAY = 0.1
MODEL = "s3://models/tiny.safetensors"


@dataclass(frozen=True)
class Served:
    """A running S3 server, and the settings that its clients need besides its URL."""

    url: str
    settings: dict[str, str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if reason := missing():
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="module")
def s3_server(request: pytest.FixtureRequest) -> Iterator[Served]:
    """Start the file's SERVER, by default moto; the tests' own process reaches it without the proxy."""
    kind, settings = getattr(request.module, "SERVER", "moto"), {"AWS_DEFAULT_REGION": "us-east-1"}
    if kind == "rgw":
        if reason := rgw.missing():
            pytest.skip(reason)
        settings |= rgw.CHECKSUMS
    with {"moto": serving, "rgw": rgw.serving}[kind]() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in (CREDENTIALS | settings | {"AWS_ENDPOINT_URL": server.url}).items():
            patch.setenv(name, value)
        yield Served(server.url, settings)


@pytest.fixture(scope="module")
def archive(s3_server: Served, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the name of a bucket of COUNT images; the model is in another bucket."""
    client = boto3.client("s3")
    for bucket in ("archive", "models"):
        client.create_bucket(Bucket=bucket)
    fill(open_store("s3://archive"), COUNT)
    model = Path(save_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors"))
    open_store("s3://models").write(model.name, model.read_bytes())
    return "archive"


@pytest.fixture(scope="module")
def cluster(
    archive: str,
    s3_server: Served,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Cluster]:
    """Start as many machines with a GPU as the file's MODELS says."""
    with network() as net, proxying(net.listen(S3_PORT), s3_server.url) as proxy:
        proxy.delay = DELAY
        made = Cluster(net, proxy, tmp_path_factory.mktemp("logs"), settings=s3_server.settings)
        made.begin("head", cpus=0, head=True)
        made.wait("head")
        names = [f"gpu-{number + 1}" for number in range(request.module.MODELS)]
        for name in names:
            made.begin(name, cpus=1, gpus=1)
        made.begin("cpu", cpus=2)
        made.wait(*names, "cpu")
        yield made


def begin(cluster: Cluster, destination: str, *options: str) -> Run:
    """Return a function that starts `imgtx upscale` of the archive into a bucket of that name."""
    boto3.client("s3").create_bucket(Bucket=destination)
    return cluster.upscale("archive", destination, "--model", MODEL, *options)


@dataclass(frozen=True)
class Undisturbed:
    """A run without faults, and what it makes of the archive."""

    run: Run
    found: Destination

    def equals(self, found: Destination) -> None:
        """Assert that every output is the same as here, byte for byte."""
        assert_sound(found)
        assert found.outputs == self.found.outputs


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster) -> Undisturbed:
    run = begin(cluster, "undisturbed")
    assert run.finish() == 0, run.log.read_text()
    return Undisturbed(run, look("s3://undisturbed"))


def report(event: str, run: Run, undisturbed: Undisturbed) -> None:
    """Print a row of docs/explanation/faults.md; repeated work is counted in requests, by the proxy."""
    summary = run.summary()
    assert summary["accounted"], summary
    more = run.seconds - undisturbed.run.seconds
    print(f"\n| {event} | {more:+.0f} s | {run.put_twice} | {run.fetched_twice} |")
