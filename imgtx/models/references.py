"""The door to every model, ours or anybody's: from what a person wrote after --model to its facts and itself.

    sr-x2                     a packaged model
    file.safetensors          our own weights, or anybody's that spandrel knows
    file.pth .pt .ckpt        anybody's (`spandrel:PATH` says so outright)
    transformers:FOLDER       a Swin2SR folder of transformers
    torchscript:PATH?scale=4  a TorchScript program with the signature that is declared for it

Facts come without torch where the file carries them (our own) or `imgtx models probe` has left them beside it.
Everything here is a local path; storage is the pipeline's.
"""

import hashlib
import json
import logging
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from imgtx.errors import ModelError, UsageError
from imgtx.models import weight_file
from imgtx.models.info import ModelInfo
from imgtx.models.sidecar import read_sidecar
from imgtx.models.weight_file import file_digest, find_weights, opened

if TYPE_CHECKING:
    from imgtx.models.contract import ImageModel  # brings torch

log = logging.getLogger("imgtx")

OWN, SPANDREL, TRANSFORMERS, TORCHSCRIPT = "imgtx", "spandrel", "transformers", "torchscript"
ADAPTERS = (SPANDREL, TRANSFORMERS, TORCHSCRIPT)
PICKLES = (".pth", ".pt", ".ckpt")
FOLDER_FILES = ("config.json", "model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Source:
    """Where a model lies and what reads it. `signature` is a TorchScript program's, as it was declared."""

    kind: str
    path: Path
    signature: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        query = "&".join(f"{name}={value}" for name, value in self.signature.items())
        return f"{self.kind}:{self.path}" + (f"?{query}" if query else "")


def find_source(reference: str | Path) -> Source:
    """What `reference` stands for; UsageError where there is no such model, ModelError for a broken file."""
    kind, colon, rest = str(reference).partition(":")
    if colon and kind in ADAPTERS:
        path, signature = _split_query(rest) if kind == TORCHSCRIPT else (Path(rest), {})
        _check_there(kind, path)
        return Source(kind, path, signature)
    path = Path(reference)
    if path.suffix in PICKLES:
        _check_there(SPANDREL, path)
        return Source(SPANDREL, path)
    if (path / "config.json").is_file():
        return Source(TRANSFORMERS, path)
    if path.is_file() and path.suffix != ".safetensors":
        raise UsageError(
            f"{path} has no suffix that says what it is ({', '.join(('.safetensors', *PICKLES))}): write "
            f"{SPANDREL}:{path} for somebody's weights, {TORCHSCRIPT}:{path}?scale=N for a program"
        )
    path = find_weights(reference)
    return Source(OWN if _is_own(path) else SPANDREL, path)


def absolute(reference: str) -> str:
    """The reference in words that mean the same in every working directory."""
    source = find_source(reference)
    kind, colon, _ = reference.partition(":")
    if colon and kind in ADAPTERS:
        return str(Source(source.kind, Path(os.path.abspath(source.path)), source.signature))
    if not Path(reference).exists():
        return reference  # a packaged name lies elsewhere on every machine
    return os.path.abspath(reference)


def read_info(reference: str | Path) -> tuple[ModelInfo, str]:
    """The info and digest of any model. Torch comes in only for one that is not ours and was never probed."""
    source = find_source(reference)
    if source.kind == OWN:
        info, digest = weight_file.read_info(source.path)
        return _with_speed(info, read_sidecar(source.path, digest)), digest
    digest = digest_of(source)
    measured = read_sidecar(source.path, digest)
    if measured is not None:
        return measured, digest
    info = load_model(reference).info
    log.warning(
        "%s was never probed: tiles of at most %d px get a halo of %d px whether or not that hides their seams, and "
        "only float32 is used; imgtx models probe '%s' measures what it needs",
        *(source.path, info.largest, info.halo, reference),
    )
    return info, digest


def load_model(reference: str | Path, info: ModelInfo | None = None) -> "ImageModel":
    """The model itself, in float32 on the CPU.

    `info` is what `read_info` said of the same file elsewhere: a worker may lack the sidecar that the driver read.
    Without it the model's info has no `compiled_tile`, which is for those alone that compile it (`imgtx.load`).
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
    model = _adapt(source, digest)
    measured = info or read_sidecar(source.path, digest)
    if measured is not None and info is None:
        measured = replace(measured, compiled_tile=0)
    if measured is not None:
        said, is_so = ((i.task, i.scale, i.in_channels, i.out_channels) for i in (measured, model.info))
        if said != is_so:
            raise ModelError(f"{source.path} is {is_so} and was recorded as {said}: probe it anew")
        model.info = measured
    return model


def _with_speed(info: ModelInfo, measured: ModelInfo | None) -> ModelInfo:
    """Our own weights' info, which tells all but what is fast on a machine: that is `measured`."""
    if measured is None:
        return info
    names = ("dtypes", "fast", "channels_last", "compiled_tile", "compiled_gain", "not_compiled")
    return replace(info, **{name: getattr(measured, name) for name in names})


def digest_of(source: Source) -> str:
    """SHA-256 of all that decides what the model computes: the file, a folder's files, a declared signature."""
    if source.kind == TRANSFORMERS:
        parts = {n: file_digest(source.path / n) for n in FOLDER_FILES if (source.path / n).is_file()}
    elif source.kind == TORCHSCRIPT:
        parts = {"file": file_digest(source.path)} | source.signature
    else:
        return file_digest(source.path)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _adapt(source: Source, digest: str) -> "ImageModel":
    """Each library is imported only for its own models."""
    if source.kind == SPANDREL:
        from imgtx.models.adapters.spandrel import load as load_spandrel

        return load_spandrel(source.path, digest)
    if source.kind == TRANSFORMERS:
        from imgtx.models.adapters.transformers import load as load_transformers

        return load_transformers(source.path, digest)
    from imgtx.models.adapters.torchscript import load as load_torchscript

    return load_torchscript(source.path, digest, source.signature)


def _is_own(path: Path) -> bool:
    with opened(path, framework="numpy") as file:
        return "imgtx" in (file.metadata() or {})


def _split_query(text: str) -> tuple[Path, dict[str, str]]:
    """`PATH?scale=4&channels=3`; a question mark that belongs to the file's name stays in it."""
    path, mark, query = text.rpartition("?")
    if not mark or Path(text).is_file():
        return Path(text), {}
    return Path(path), dict(sorted(parse_qsl(query, keep_blank_values=True)))


def _check_there(kind: str, path: Path) -> None:
    there = path.is_dir() if kind == TRANSFORMERS else path.is_file()
    if not there:
        what = "folder" if kind == TRANSFORMERS else "file"
        raise UsageError(
            f"no model {what} at {path}: give the path of one, or a packaged name (imgtx models list)"
        )
