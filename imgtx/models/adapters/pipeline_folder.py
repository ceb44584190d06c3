"""Folders of diffusers: which of their files a pipeline is made of, read without torch and without diffusers.

    model_index.json                          the pipeline's class, and the library and class of each component
    scheduler/scheduler_config.json           a folder per component
    transformer/config.json
    transformer/diffusion_pytorch_model.safetensors, or an index and shards; a variant has its name before the suffix

Published folders hold more: other precisions, pickles, files for other libraries. What is not read is neither fetched
nor part of the digest.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgtx.errors import ModelError, UsageError
from imgtx.models.weight_file import opened

INDEX = "model_index.json"
EXPECTED = f"a folder of diffusers ({INDEX} beside a folder for each component, as save_pretrained writes it)"
# How diffusers and transformers name their weights.
STEMS = ("diffusion_pytorch_model", "model")
# Classes of components without weights end so.
WEIGHTLESS = ("Tokenizer", "TokenizerFast", "Scheduler", "Processor", "ProcessorFast", "Extractor")
# Of components beside their weights.
SETTINGS = (".json", ".txt", ".model", ".jinja", ".tiktoken")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
# What other libraries call the same precision is first in this order.
VARIANTS = ("fp16", "bf16", "fp32")
# Pipelines that enlarge pictures and take no prompt, or may go without one.
UPSCALERS = ("StableDiffusionUpscalePipeline", "LDMSuperResolutionPipeline")
# The components that denoise, of which the first there is decides what the weights are stored in.
DENOISERS = ("transformer", "unet", "prior", "decoder")
PRECISION_OF = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class Component:
    """A component by its name: its library and class, and its weight files within the folder, () where it has none."""

    name: str
    library: str
    kind: str
    weights: tuple[str, ...] = ()


@dataclass(frozen=True)
class Extras:
    """What a reference adds to a folder.

    loras: files of low-rank changes to the weights, which are multiplied by a number each and added. vae_tiles: whether
    the autoencoder decodes in tiles, whose blended seams change pixels. offload: whether each component goes to the GPU
    only for its turn. steps, noise_level and seed are for upscalers: None is the pipeline's own.
    """

    loras: tuple[tuple[Path, float], ...] = ()
    vae_tiles: bool = False
    offload: bool = False
    steps: int | None = None
    noise_level: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class PipelineFolder:
    """A pipeline's class and components; `files` are all that is read, by their paths within the folder.

    variant: between the weights' names and their suffix, as in model.fp16.safetensors; None for the plain ones.
    """

    pipeline: str
    components: tuple[Component, ...]
    files: tuple[str, ...]
    variant: str | None

    def component(self, *names: str) -> Component | None:
        """Return the first component there is of these."""
        found = {component.name: component for component in self.components}
        return next((found[name] for name in names if name in found), None)


def split_weight(value: str) -> tuple[str, str]:
    """Split `FILE.safetensors:0.8` into the file and ":0.8", "" where no weight is given."""
    file, colon, weight = value.rpartition(":")
    if not colon or value.endswith(".safetensors"):
        return value, ""
    return file, f":{weight}"


def read_folder(path: Path) -> PipelineFolder:
    """Find what a local folder is made of; raises as `choose_files`."""
    below = [folder for folder in path.iterdir() if folder.is_dir()] if path.is_dir() else []
    names = [file.relative_to(path).as_posix() for folder in (path, *below) for file in folder.iterdir()]
    return choose_files(names, lambda name: (path / name).read_bytes(), str(path))


def choose_files(names: Collection[str], read: Callable[[str], bytes], where: str) -> PipelineFolder:
    """Find what a folder is made of.

    names: paths of its files within it. read: returns a file's bytes. where: the folder, for messages.
    Raises UsageError for a folder of another kind, ModelError for one that is not whole, has weights only as pickles,
    or asks for code of its own.
    """
    if INDEX not in names:
        raise UsageError(f"{where} has no {INDEX}: expected {EXPECTED}")
    index = _json(read, INDEX, where)
    pipeline = index.pop("_class_name", None)
    # A list is the name of a file beside it, and of a class in that file.
    if not isinstance(pipeline, str) or not pipeline.isidentifier():
        if isinstance(pipeline, list):
            raise _runs_code(where, f"the pipeline in {pipeline[0]}.py" if pipeline else "a pipeline")
        raise ModelError(f"{where}/{INDEX} names no pipeline class: expected {EXPECTED}; copy it again")
    entries = {
        name: value
        for name, value in index.items()
        if isinstance(value, list) and len(value) == 2 and None not in value
    }
    networks = [name for name, (_, kind) in entries.items() if not str(kind).endswith(WEIGHTLESS)]
    for name, (library, kind) in entries.items():
        _check_component(names, read, name, str(library), str(kind), where)
    variant = _variant(names, networks, where)
    components, files = [], {INDEX}
    for name, (library, kind) in entries.items():
        weights, index_of_shards = (
            _weights(names, read, name, variant, where) if name in networks else ((), ())
        )
        components.append(Component(name, library, kind, weights))
        files |= {*weights, *index_of_shards, *_settings(names, name)}
    return PipelineFolder(pipeline, tuple(components), tuple(sorted(files)), variant)


def read_tensors(path: Path, component: Component) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """Yield name, shape and type ("F32") of every tensor of a component, from the headers of its files.

    Raises ModelError for a file that is not a whole safetensors file.
    """
    for name in component.weights:
        with opened(path / name, framework="numpy") as file:
            for tensor in file.keys():  # noqa: SIM118 - no dict
                part = file.get_slice(tensor)
                yield tensor, tuple(part.get_shape()), part.get_dtype()


def read_config(path: Path, component: Component | None) -> dict[str, Any]:
    """Read a network's config.json, {} where it has none."""
    if component is None or not (path / component.name / "config.json").is_file():
        return {}
    return _json(lambda name: (path / name).read_bytes(), f"{component.name}/config.json", str(path))


def licence_of(path: Path) -> str:
    """Return what the README's header says of the licence, "unknown" where it says nothing."""
    try:
        text = (path / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "unknown"
    header = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    said = re.search(r"^license:[ \t]*(\S.*?)\s*$", header[1], re.MULTILINE) if header else None
    return "".join(c for c in said[1] if c.isprintable())[:100] if said else "unknown"


def _check_component(
    names: Collection[str], read: Callable[[str], bytes], name: str, library: str, kind: str, where: str
) -> None:
    """Raise ModelError for a component that is missing or brings its own code."""
    if not re.fullmatch(r"\w+", name) or not any(file.startswith(f"{name}/") for file in names):
        raise ModelError(f"{where} lacks its component {name} ({kind}): copy the whole folder again")
    if f"{name}/{library}.py" in names or not re.fullmatch(r"[A-Za-z]\w*", library):
        raise _runs_code(where, f"the component {name} in {library}.py")
    # With a class of the library itself, what a config says of other code is not followed.
    config = f"{name}/config.json"
    if kind.startswith("Auto") and config in names and "auto_map" in _json(read, config, where):
        raise _runs_code(where, f"the component {name}, by auto_map in its config")


def _variant(names: Collection[str], networks: list[str], where: str) -> str | None:
    """Return None where all networks have plain weights, else the variant that the others have."""
    lacking = {name: _variants(names, name) for name in networks if not _is_plain(names, name)}
    if not lacking:
        return None
    common = set.intersection(*lacking.values())
    if common:
        return min(common, key=lambda v: (VARIANTS.index(v) if v in VARIANTS else len(VARIANTS), v))
    name = next((n for n, variants in lacking.items() if not variants), next(iter(lacking)))
    pickles = [n for n in names if n.startswith(f"{name}/") and n.endswith(PICKLES)]
    if pickles:
        raise ModelError(
            f"{where} has the weights of {name} only as a pickle ({pickles[0]}), which can run code: where you trust "
            "it, load it elsewhere and save it with pipeline.save_pretrained(folder, safe_serialization=True)"
        )
    raise ModelError(
        f"{where} has no weights of {name}: expected {name}/{STEMS[0]}.safetensors or {name}/{STEMS[1]}.safetensors; "
        "copy the whole folder again"
    )


def _is_plain(names: Collection[str], name: str) -> bool:
    return any(
        f"{name}/{stem}.safetensors{index}" in names for stem in STEMS for index in ("", ".index.json")
    )


def _variants(names: Collection[str], name: str) -> set[str]:
    stems = "|".join(STEMS)
    found = (
        re.fullmatch(
            rf"{re.escape(name)}/(?:{stems})\.(?:safetensors\.index\.(\w+)\.json|(\w+)\.safetensors)", n
        )
        for n in names
    )
    return {match[1] or match[2] for match in found if match}


def _weights(
    names: Collection[str], read: Callable[[str], bytes], name: str, variant: str | None, where: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return a network's weight files, and the index where they are shards."""
    use = variant if variant in _variants(names, name) else None
    for stem in STEMS:
        whole = f"{name}/{stem}.{use}.safetensors" if use else f"{name}/{stem}.safetensors"
        index = f"{name}/{stem}.safetensors.index" + (f".{use}.json" if use else ".json")
        if whole in names:
            return (whole,), ()
        if index in names:
            shards = _json(read, index, where).get("weight_map")
            if not isinstance(shards, dict) or not all(
                isinstance(shard, str) and "/" not in shard for shard in shards.values()
            ):
                raise ModelError(f"{where}/{index} names no files: copy it again")
            files = tuple(sorted({f"{name}/{shard}" for shard in shards.values()}))
            missing = [file for file in files if file not in names]
            if missing:
                raise ModelError(f"{where} lacks {missing[0]}: copy the whole folder again")
            return files, (index,)
    raise ModelError(f"{where} has no weights of {name}: copy the whole folder again")


def _settings(names: Collection[str], name: str) -> Iterator[str]:
    """Yield a component's files that are neither weights nor about weights."""
    for file in names:
        if file.startswith(f"{name}/") and file.endswith(SETTINGS) and ".index." not in file:
            yield file


def _json(read: Callable[[str], bytes], name: str, where: str) -> dict[str, Any]:
    try:
        values = json.loads(read(name))
    except (OSError, ValueError) as error:
        raise ModelError(f"{where}/{name} cannot be read ({error}): copy it again") from error
    if not isinstance(values, dict):
        raise ModelError(f"{where}/{name} is not a table of settings: expected {EXPECTED}")
    return values


def _runs_code(where: str, what: str) -> ModelError:
    return ModelError(
        f"{where} brings code of its own ({what}), which imgtx does not run: choose a pipeline whose classes are all "
        "in diffusers and transformers"
    )
