"""Resolve a model reference (the value of --model) to its facts and to the loaded model.

    sr-x2                     a packaged model
    file.safetensors          our own weights, or any that spandrel knows
    file.pth .pt .ckpt        any that spandrel knows (`spandrel:PATH` says so outright)
    transformers:FOLDER       a Swin2SR folder of transformers
    diffusers:FOLDER          a pipeline of diffusers that makes images from text, or an upscaler
    torchscript:PATH?scale=4  a TorchScript program with the signature that is declared for it

Every kind but our own is an adapter of `imgtx.models.adapters`. Facts come without torch where the file carries them
(our own) or `imgtx models probe` has left them beside it. Everything here is a local path; storage is the pipeline's.
"""

import logging
import os
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from imgtx.errors import ModelError, UsageError
from imgtx.models import weight_file
from imgtx.models.adapters import ADAPTERS
from imgtx.models.adapters.base import Adapter, Source, as_query
from imgtx.models.adapters.pipeline_folder import split_weight
from imgtx.models.info import ModelInfo
from imgtx.models.sidecar import read_sidecar
from imgtx.models.weight_file import file_digest, find_weights, opened

if TYPE_CHECKING:
    # This imports torch.
    from imgtx.models.contract import ImageModel

log = logging.getLogger("imgtx")

# The kind of our own weights, which carry their facts inside.
OWN = "imgtx"
# What a reference may declare whose values begin with a file or a URI: `lora=FILE.safetensors:0.8`.
FILES = ("lora",)


def find_source(reference: str | Path) -> Source:
    """Find what `reference` names; UsageError where there is no such model, ModelError for a broken file."""
    if not isinstance(reference, str | os.PathLike):
        raise UsageError(
            f"a model given as {type(reference).__name__}: expected a packaged name such as 'sr-x2' (imgtx models "
            "list) or the path of a weight file"
        )
    prefix, colon, rest = str(reference).partition(":")
    path = Path(reference)
    for adapter in ADAPTERS:
        if colon and prefix == adapter.PREFIX:
            where, declared = _split_query(rest) if adapter.DECLARES else (rest, {})
            return _checked(adapter, Path(where), declared)
    if _is_own(path):
        return Source(OWN, path)
    for adapter in ADAPTERS:
        if adapter.recognizes(path):
            return _checked(adapter, path, {})
    if path.is_file():
        raise UsageError(
            f"{path} has no suffix that says what it is ({', '.join(suffixes())}): write "
            + ", ".join(adapter.FORM.format(path=path) for adapter in ADAPTERS if adapter.FORM)
        )
    return Source(OWN, find_weights(reference))


def path_in(reference: str) -> str:
    """Return the path in a local reference, without an adapter's prefix and what is declared behind `?`."""
    prefix, colon, rest = reference.partition(":")
    for adapter in ADAPTERS:
        if colon and prefix == adapter.PREFIX:
            return _split_query(rest)[0] if adapter.DECLARES else rest
    return reference


def declaring(reference: str, more: dict[str, str]) -> str:
    """Return a reference that also declares `more`: files after those it declares already, else instead of them."""
    path, declared = _split_query(reference)
    for name, values in more.items():
        declared[name] = f"{declared[name]}\n{values}" if name in FILES and name in declared else values
    return f"{path}{as_query(dict(sorted(declared.items())))}"


def files_of(reference: str) -> list[str]:
    """Return the files and URIs that a reference declares beside the model's own."""
    found: list[str] = []

    def note(file: str) -> str:
        found.append(file)
        return file

    with_files(reference, note)
    return found


def with_files(reference: str, change: Callable[[str], str]) -> str:
    """Return the reference with `change` of each file that it declares beside the model's own."""
    if not any(f"{name}=" in reference for name in FILES):
        return reference
    path, declared = _split_query(reference)
    for name in declared.keys() & {*FILES}:
        parts = (split_weight(value) for value in declared[name].split("\n"))
        declared[name] = "\n".join(change(file) + weight for file, weight in parts)
    return f"{path}{as_query(declared)}"


def suffixes() -> tuple[str, ...]:
    """Return the file suffixes of models, our own first."""
    known = [".safetensors", *(suffix for adapter in ADAPTERS for suffix in adapter.SUFFIXES)]
    return tuple(dict.fromkeys(known))


def folder_adapter(prefix: str, names: Collection[str] = ()) -> Adapter | None:
    """Return the adapter of folders with this prefix, or, for "", of a folder that holds files of these names."""
    folders = [adapter for adapter in ADAPTERS if adapter.IS_FOLDER]
    return next((a for a in folders if (prefix == a.PREFIX if prefix else a.MARK in names)), None)


def absolute(reference: str) -> str:
    """Return the reference in a form that means the same in every working directory."""
    source = find_source(reference)
    if source.kind != OWN and reference.startswith(f"{source.kind}:"):
        whole = str(replace(source, path=Path(os.path.abspath(source.path))))
        return with_files(whole, lambda file: file if "://" in file else os.path.abspath(file))
    if not Path(reference).exists():
        # A packaged name: its path differs between machines.
        return reference
    return os.path.abspath(reference)


def read_info(reference: str | Path) -> tuple[ModelInfo, str]:
    """Return the info and digest of any model; torch is imported only for one never probed and not our own."""
    source = find_source(reference)
    if source.kind == OWN:
        info, digest = weight_file.read_info(source.path)
        return _with_speed(info, read_sidecar(source.path, digest)), digest
    digest = digest_of(source)
    measured = read_sidecar(source.path, digest)
    if measured is not None:
        return measured, digest
    if facts := adapter_of(source).facts:
        return facts(source)[0], digest
    info = load_model(reference).info
    log.warning(
        "%s was never probed: tiles of at most %d px get a halo of %d px whether or not that hides their seams, and "
        "only float32 is used; imgtx models probe '%s' measures what it needs",
        *(source.path, info.largest, info.halo, reference),
    )
    return info, digest


def load_model(reference: str | Path, info: ModelInfo | None = None) -> "ImageModel":
    """Load the model, in float32 on the CPU.

    `info` is what `read_info` said of the same file elsewhere: a worker may lack the sidecar that the driver read.
    Without it the model's info has no `compiled_tile`, which is only for callers that compile it (`imgtx.load`).
    Raises UsageError where there is no such model or its library is missing, ModelError where the file cannot be
    trusted or used.
    """
    source = find_source(reference)
    if source.kind == OWN:
        from imgtx.models.weights import load_model as load_own

        own = load_own(source.path)
        own.info = _with_speed(own.info, info)
        return own
    digest = digest_of(source)
    model = adapter_of(source).load(source, digest)
    measured = info or read_sidecar(source.path, digest)
    if measured is not None and info is None:
        measured = replace(measured, compiled_tile=0)
    if measured is not None:
        recorded, actual = ((i.task, i.scale, i.in_channels, i.out_channels) for i in (measured, model.info))
        if recorded != actual:
            raise ModelError(f"{source.path} is {actual} and was recorded as {recorded}: probe it again")
        model.info = measured
    return model


def adapter_of(source: Source) -> Adapter:
    """Return the adapter that reads `source`, which is not our own."""
    return next(adapter for adapter in ADAPTERS if source.kind == adapter.PREFIX)


def digest_of(source: Source) -> str:
    """Return the SHA-256 in hex of all that decides what the model computes."""
    return file_digest(source.path) if source.kind == OWN else adapter_of(source).digest(source)


def _with_speed(info: ModelInfo, measured: ModelInfo | None) -> ModelInfo:
    """Return our own weights' info, which says everything except what is fast on a machine: that is `measured`."""
    if measured is None:
        return info
    names = ("dtypes", "fast", "channels_last", "compiled_tile", "compiled_gain", "not_compiled")
    return replace(info, **{name: getattr(measured, name) for name in names})


def _is_own(path: Path) -> bool:
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    with opened(path, framework="numpy") as file:
        return "imgtx" in (file.metadata() or {})


def _split_query(text: str) -> tuple[str, dict[str, str]]:
    """Split `PATH?scale=4&channels=3`; a question mark that belongs to the file's name stays in it."""
    path, mark, query = text.rpartition("?")
    if not mark or Path(text).is_file():
        return text, {}
    declared: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        # A plus is one: file names have them.
        name, _, value = (unquote(piece) for piece in part.partition("="))
        declared[name] = f"{declared[name]}\n{value}" if name in declared else value
    return path, dict(sorted(declared.items()))


def _checked(adapter: Adapter, path: Path, declared: dict[str, str]) -> Source:
    """Return the source; UsageError where nothing is at `path`."""
    there = path.is_dir() if adapter.IS_FOLDER else path.is_file()
    if not there:
        what = "folder" if adapter.IS_FOLDER else "file"
        raise UsageError(
            f"no model {what} at {path}: give the path of one, or a packaged name (imgtx models list)"
        )
    return Source(adapter.PREFIX, path, declared)
