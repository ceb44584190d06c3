"""What the command line says of a storage that does not answer, or not to this person."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from jobs.cli import USAGE, main
from tests.zoo import photo, saved


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("ends", [("s3://bucket/in", "out"), ("in", "s3://bucket/out")])
def test_an_endpoint_that_does_not_answer_ends_in_one_line(tmp_path, monkeypatch, silent_port, signed, ends):
    monkeypatch.chdir(tmp_path)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    if signed:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(saved(photo(8, 8)))
    result = CliRunner().invoke(main, ["upscale", *ends, "--endpoint-url", f"http://127.0.0.1:{silent_port}"])
    assert result.exit_code == USAGE, result.output
    (line,) = result.stderr.splitlines()
    what = "source cannot be read" if ends[1] == "out" else "destination s3://bucket/out/ cannot be written"
    assert line.startswith(f"imgtx: the {what}")
    # Without credentials there is nothing to sign, and the endpoint is not asked.
    endpoint, credentials = f"127.0.0.1:{silent_port}", "no credentials found"
    assert (endpoint in line, credentials in line) == (signed, not signed), line


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_does_not_answer_ends_in_one_line_before_anything_is_written(
    tmp_path: Path, silent_port: int, scheme: str
):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(saved(photo(8, 8)))
    address = f"{scheme}127.0.0.1:{silent_port}"
    result = CliRunner().invoke(
        main, ["upscale", str(tmp_path / "in"), str(tmp_path / "out"), "--address", address]
    )
    assert result.exit_code == USAGE, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"imgtx: --address {address}: no Ray cluster answers there")
    assert not (tmp_path / "out").exists()
