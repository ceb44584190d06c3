"""What a model reference means, before anything is asked of storage."""

import pytest

from imgtx.errors import UsageError
from pipeline.models.references import InStorage, InStore, is_fetched, parse_reference
from pipeline.models.resolve import exact_reference, local_model

LOCAL = [
    "sr-x2", "x.safetensors", "models/a@2.safetensors", "/abs/x.pth", "spandrel:x.pth", "torchscript:x.pt?scale=4",
    "file:///x.safetensors",
]  # fmt: skip


@pytest.mark.parametrize("reference", LOCAL)
def test_what_is_on_this_machine_passes_unchanged(reference: str):
    assert parse_reference(reference) is None
    assert local_model(reference) == exact_reference(reference) == reference
    assert not is_fetched(reference)


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("s3://bucket/models/sr-x2@latest", InStore("s3://bucket/models", "sr-x2", "latest")),
        ("s3://bucket/sr-x2@3", InStore("s3://bucket", "sr-x2", "0003")),
        ("models/sr-x2@0012", InStore("models", "sr-x2", "0012")),
        ("/sr-x2@latest", InStore("/", "sr-x2", "latest")),
        ("s3://bucket/a b/x.safetensors", InStorage("s3://bucket/a b/x.safetensors")),
        ("spandrel:s3://bucket/x.pth", InStorage("s3://bucket/x.pth", "spandrel:")),
        ("torchscript:s3://b/x.pt?scale=4&a=b", InStorage("s3://b/x.pt", "torchscript:", "?scale=4&a=b")),
        ("memory://x/y@2.pth", InStorage("memory://x/y@2.pth")),
        ("s3://bucket/sana/", InStorage("s3://bucket/sana", folder=True)),
        ("diffusers:s3://bucket/a b", InStorage("s3://bucket/a b", "diffusers:", folder=True)),
        ("transformers:s3://bucket/swin/", InStorage("s3://bucket/swin", "transformers:", folder=True)),
    ],
)  # fmt: skip
def test_models_in_storage_and_in_a_store_are_distinguished(reference: str, found: InStore | InStorage):
    assert parse_reference(reference) == found
    assert is_fetched(reference)


def test_a_name_alone_is_in_the_store_of_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IMGTX_STORE", "s3://bucket/models")
    assert parse_reference("sr-x2@latest") == InStore("s3://bucket/models", "sr-x2", "latest")
    monkeypatch.delenv("IMGTX_STORE")
    with pytest.raises(UsageError, match="sr-x2 names no model store: write STORE/sr-x2, or set IMGTX_STORE"):
        parse_reference("sr-x2@latest")


def test_an_existing_path_is_a_path(tmp_path):
    folder = tmp_path / "swin@2"
    folder.mkdir()
    assert parse_reference(str(folder)) is None


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("s3://bucket/sr-x2@newest", "'newest' is not a version: write @latest or a number such as @0003"),
        ("models/sr x2@1", "expected letters, digits"),
        ("s3://bucket/models/sr-x2", "names no model: expected STORE/NAME@latest"),
        ("spandrel:s3://bucket/folder", "names no model: expected STORE/NAME@latest"),
        ("s3://user:word@bucket/x.pth", "credentials"),
    ],
)
def test_an_impossible_reference_is_refused_in_one_line(reference: str, words: str):
    with pytest.raises(UsageError, match=words) as caught:
        local_model(reference)
    assert "\n" not in str(caught.value)
    assert "word@" not in str(caught.value)
