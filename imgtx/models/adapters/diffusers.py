"""Pipelines of diffusers: `diffusers:FOLDER`, as `DiffusionPipeline.save_pretrained` writes it.

    diffusers:FOLDER?lora=FILE.safetensors:0.8&vae_tiles=1&offload=1

LoRA files with their weights, an autoencoder that decodes in tiles, and components that wait on the CPU for their turn
on the GPU, may follow a question mark (`read_extras`).

Any pipeline that makes images from a prompt alone is run (`makes_images_from_text`): PixArt, Stable Diffusion 1.5 to
3.5, Flux, Sana, Lumina, Qwen-Image, Z-Image and so on. Weights are read from safetensors only, no code of a folder is
run, and nothing is ever downloaded. Upscalers (UPSCALERS) run too, with steps=, noise_level= and seed= after the
question mark.
"""

import hashlib
import importlib
import inspect
import json
import math
import re
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgtx.errors import ModelError, UsageError
from imgtx.models.adapters.base import Source
from imgtx.models.adapters.pipeline_folder import (
    DENOISERS,
    INDEX,
    PRECISION_OF,
    UPSCALERS,
    Extras,
    PipelineFolder,
    choose_files,
    licence_of,
    read_config,
    read_folder,
    read_tensors,
    split_weight,
)
from imgtx.models.generation import TASK, Generation
from imgtx.models.info import ModelInfo
from imgtx.models.weight_file import file_digest

# torch is imported only when a model is loaded: planning does not need it.
if TYPE_CHECKING:
    from imgtx.models.adapters.diffusion_model import DiffusionModel
    from imgtx.models.adapters.diffusion_upscaler import DiffusionUpscaler

PREFIX = "diffusers"
SUFFIXES = ()
IS_FOLDER = True
MARK = INDEX
FORM = ""
DECLARES = True
convert = None

INSTALL = "pip install 'imgtx[diffusion]'"
# Parameters that every text-to-image pipeline has.
NEEDED = {"prompt", "generator", "height", "width", "num_inference_steps", "output_type"}
# Parameters of pipelines that make something else, or need more than a prompt.
OTHERS = ("control", "video", "audio", "frames", "num_frames", "mask", "source_prompt", "reference_image")
# These may come with a prompt, or not at all, in pipelines that diffusers itself lists for text-to-image.
PICTURES = ("image", "images")
# Pipelines of which a batch was found to equal its images one by one (tests/conformance/test_generating.py).
BATCHES = frozenset(
    {
        "AuraFlowPipeline",
        "ChromaPipeline",
        "FluxPipeline",
        "Lumina2Pipeline",
        "PixArtSigmaPipeline",
        "SanaPipeline",
        "StableDiffusion3Pipeline",
        "StableDiffusionPipeline",
        "ZImagePipeline",
    }
)
# What a reference may declare of an upscaler.
OF_UPSCALERS = ("steps", "noise_level", "seed")
BLENDED = (
    "blended where they overlap; noise is drawn by pixel position, so that the same picture comes out the same, but "
    "tiled output does not equal untiled output"
)
# Of a tile's side, on each side of it, that is blended with its neighbour.
SHARE_BLENDED = 8
# Pixels a side, where neither the pipeline nor its config says more.
DEFAULT_SIDE, LARGEST_SIDE = 1024, 8192
# Images in a call until `imgtx models probe` has measured how many fit.
UNMEASURED_BATCH = 4


def recognizes(path: Path) -> bool:
    """Return whether `path` is a folder with a pipeline's index."""
    return (path / MARK).is_file()


def folder_files(names: Collection[str], read: Callable[[str], bytes], where: str) -> tuple[str, ...]:
    """Return the files that the pipeline is made of."""
    return choose_files(names, read, where).files


def digest(source: Source) -> str:
    """Return the SHA-256 in hex of all files that the pipeline is made of."""
    folder = read_folder(source.path)
    with ThreadPoolExecutor() as pool:
        sums = pool.map(lambda name: file_digest(source.path / name), folder.files)
        parts = dict(zip(folder.files, sums, strict=True))
    extras = read_extras(source, folder.pipeline)
    if extras.loras:
        parts["?lora"] = ", ".join(f"{file_digest(file)} {weight:g}" for file, weight in extras.loras)
    if extras.vae_tiles:
        parts["?vae_tiles"] = "1"
    for name in OF_UPSCALERS:
        if value := getattr(extras, name):
            parts[f"?{name}"] = str(value)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def facts(source: Source) -> tuple[ModelInfo, dict[str, Any]]:
    """Return the info of a pipeline that was never probed, and what its files say beside it; reads no tensor.

    Raises UsageError where diffusers is not installed or the folder holds no pipeline for text-to-image, ModelError for
    a folder that is not whole or cannot be trusted.
    """
    folder = read_folder(source.path)
    read_extras(source, folder.pipeline)
    kind, record = pipeline_class(source.path, folder), _record(source.path, folder)
    if folder.pipeline in UPSCALERS:
        return _upscaler_info(source.path, folder), record | {"tiles": BLENDED}
    return _info(source.path, folder, kind), record


def load(source: Source, digest: str) -> "DiffusionModel | DiffusionUpscaler":
    """Return the pipeline, whose weights are read once it is known where and in which precision it runs.

    Raises as `facts`.
    """
    from imgtx.models.adapters.diffusion_model import DiffusionModel
    from imgtx.models.adapters.diffusion_upscaler import DiffusionUpscaler

    folder = read_folder(source.path)
    kind, extras = pipeline_class(source.path, folder), read_extras(source, folder.pipeline)
    info, record = facts(source)
    if folder.pipeline in UPSCALERS:
        return DiffusionUpscaler(source.path, folder, kind, info, digest, record, extras)
    from_image = image_to_image_class(kind)
    return DiffusionModel(source.path, folder, kind, info, digest, record, extras, from_image)


def read_extras(source: Source, pipeline: str) -> Extras:
    """Read what is declared after the folder of a pipeline; UsageError for what cannot be."""
    declared = dict(source.declared)
    parts = [split_weight(value) for value in declared.pop("lora", "").split("\n") if value]
    loras = [(file, _number(weight.removeprefix(":")) if weight else 1.0) for file, weight in parts]
    flags = {name: declared.pop(name, "0") for name in ("vae_tiles", "offload")}
    own = {name: declared.pop(name) for name in OF_UPSCALERS if pipeline in UPSCALERS and name in declared}
    if (
        declared
        or not all(re.fullmatch(r"\d{1,9}", value) for value in own.values())
        or own.get("steps") == "0"
        or not all(math.isfinite(weight) for _, weight in loras)
        or any(value not in ("0", "1") for value in flags.values())
    ):
        raise UsageError(
            f"{source}: expected diffusers:FOLDER, and after a question mark any of lora=FILE.safetensors or "
            "lora=FILE.safetensors:WEIGHT, vae_tiles=1, offload=1, and for upscalers steps=N, noise_level=N, seed=N, "
            "with & between them"
        )
    for file, _ in loras:
        if not (file.endswith(".safetensors") and Path(file).is_file()):
            raise UsageError(f"no LoRA at {file}: give a .safetensors file")
    files = tuple((Path(file), weight) for file, weight in loras)
    numbers = {name: int(value) for name, value in own.items()}
    return Extras(files, flags["vae_tiles"] == "1", flags["offload"] == "1", **numbers)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def pipeline_class(path: Path, folder: PipelineFolder) -> type:
    """Return the class of a folder's pipeline; UsageError where it is not for text-to-image."""
    library = import_diffusers()
    # This imports torch.
    from imgtx.models.adapters.diffusion_model import quiet

    with quiet():
        kind = getattr(library, folder.pipeline, None)
        # Which imports all of its pipelines.
        importlib.import_module("diffusers.pipelines.auto_pipeline")
    if not isinstance(kind, type) or not issubclass(kind, library.DiffusionPipeline):
        raise UsageError(
            f"{path} holds a {folder.pipeline}, which diffusers {library.__version__} does not have: choose another "
            "pipeline, or the diffusers that wrote it"
        )
    if folder.pipeline not in UPSCALERS and not makes_images_from_text(kind):
        raise UsageError(
            f"{path} holds a {folder.pipeline}, which does not make images from text alone: expected a pipeline for "
            "text-to-image, such as PixArtSigmaPipeline, StableDiffusion3Pipeline or FluxPipeline, or an upscaler "
            f"({', '.join(UPSCALERS)})"
        )
    return kind


def makes_images_from_text(kind: type) -> bool:
    """Return whether a pipeline needs nothing but a prompt and returns images, by its signature and its module."""
    listed = importlib.import_module("diffusers.pipelines.auto_pipeline").AUTO_TEXT2IMAGE_PIPELINES_MAPPING
    call: Any = kind.__call__
    parameters = inspect.signature(call).parameters
    required = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty and name not in ("self", "prompt", "args", "kwargs")
    ]
    outputs = vars(inspect.getmodule(kind)).values()
    return (
        parameters.keys() >= NEEDED
        and not required
        and not any(name.startswith(OTHERS) for name in parameters)
        and any("images" in getattr(output, "__dataclass_fields__", {}) for output in outputs)
        and (not any(name in parameters for name in PICTURES) or kind in listed.values())
    )


def image_to_image_class(kind: type) -> type | None:
    """Return the pipeline that begins with a picture and has the same components, None where diffusers has none."""
    auto = importlib.import_module("diffusers.pipelines.auto_pipeline")
    names = [name for name, found in auto.AUTO_TEXT2IMAGE_PIPELINES_MAPPING.items() if found is kind]
    other = next(filter(None, map(auto.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING.get, names)), None)
    if other is None or other is kind:
        return None
    call: Any = other.__call__
    parameters = inspect.signature(call).parameters
    own, theirs = (set(inspect.signature(cls).parameters) for cls in (kind, other))
    return (
        other if parameters.keys() >= {"prompt", "image", "strength", "generator"} and own >= theirs else None
    )


def import_diffusers() -> Any:
    """Import diffusers, so that nothing is ever asked of a hub; UsageError where it cannot be imported."""
    from imgtx.models.adapters.diffusion_model import offline_libraries

    try:
        return offline_libraries()[0]
    except (ImportError, RuntimeError) as error:
        raise UsageError(
            f"pipelines of diffusers need diffusers and accelerate ({error}): {INSTALL}"
        ) from error


def _info(path: Path, folder: PipelineFolder, kind: type) -> ModelInfo:
    denoiser, vae = folder.component(*DENOISERS), folder.component("vae", "vqvae", "vqgan", "movq")
    shrinks = _shrinks(read_config(path, vae))
    call: Any = kind.__call__
    parameters = inspect.signature(call).parameters
    # Transformers take patches of two, except where the autoencoder shrinks more than they would.
    multiple = shrinks * 2 if denoiser and denoiser.name == "transformer" and shrinks <= 16 else shrinks
    side = _side(read_config(path, denoiser), shrinks, parameters, multiple)
    true_guidance = getattr(parameters.get("true_cfg_scale"), "default", None)
    guidance = getattr(parameters.get("guidance_scale"), "default", None)
    steps = parameters["num_inference_steps"].default
    offer = Generation(
        width=side,
        height=side,
        smallest=multiple,
        largest=LARGEST_SIDE,
        steps=steps if type(steps) is int else 50,
        guidance=float(true_guidance or 1.0) if guidance is None else float(guidance),
        tokens=_tokens(path, folder, parameters),
        negative="negative_prompt" in parameters and (true_guidance is None or true_guidance > 1),
        strength=_strength(kind),
        batch=UNMEASURED_BATCH,
    )
    stored = _stored(path, folder)
    return ModelInfo(
        name=path.resolve().name,
        task=TASK,
        scale=1,
        multiple=multiple,
        halo=0,
        untiled=LARGEST_SIDE**2,
        dtypes=tuple(dict.fromkeys(("float32", "bfloat16", stored))),
        fast=stored,
        batches=folder.pipeline in BATCHES,
        licence=licence_of(path),
        generation=asdict(offer),
    )


def _upscaler_info(path: Path, folder: PipelineFolder) -> ModelInfo:
    """Return the info of a pipeline that enlarges: its tiles have the size that its network was trained on."""
    denoiser, autoencoder = folder.component(*DENOISERS), folder.component("vae", "vqvae")
    config = read_config(path, denoiser)
    levels, side = config.get("block_out_channels"), config.get("sample_size")
    scale = _shrinks(read_config(path, autoencoder))
    # The network halves its input, which is as large as the picture, once less than it has levels; and pipelines cut
    # pictures to multiples of what the autoencoder shrinks by.
    multiple = max(2 ** (len(levels) - 1) if isinstance(levels, list) and levels else 8, scale)
    side = side if type(side) is int and side > 0 else 64
    stored = _stored(path, folder)
    return ModelInfo(
        name=path.resolve().name,
        task="super-resolution",
        scale=scale,
        multiple=multiple,
        halo=-(-side // (SHARE_BLENDED * multiple)) * multiple,
        largest=side,
        dtypes=tuple(dict.fromkeys(("float32", "bfloat16", stored))),
        fast=stored,
        blended=True,
        licence=licence_of(path),
    )


def _shrinks(config: dict[str, Any]) -> int:
    """Return how many pixels a side an autoencoder makes one; 1 without one."""
    for name in ("block_out_channels", "encoder_block_out_channels", "dim_mult"):
        if isinstance(config.get(name), list):
            return 2 ** max(0, len(config[name]) - 1)
    return 8 if config else 1


def _side(config: dict[str, Any], shrinks: int, parameters: Any, multiple: int) -> int:
    """Return the side of an image that a pipeline makes unasked, in pixels."""
    side = parameters["height"].default
    sample = config.get("sample_size")
    if type(side) is not int:
        side = sample * shrinks if type(sample) is int else DEFAULT_SIDE
    return min(LARGEST_SIDE, max(multiple, side // multiple * multiple))


def _strength(kind: type) -> float:
    """Return how much of a start picture a pipeline replaces unasked, 0 where it takes none."""
    other: Any = image_to_image_class(kind)
    default = other and inspect.signature(other.__call__).parameters["strength"].default
    return float(default) if isinstance(default, int | float) and 0 < default <= 1 else 0.6 if other else 0.0


def _tokens(path: Path, folder: PipelineFolder, parameters: Any) -> int:
    """Return the longest prompt: of the text encoder that reads most of it."""
    longest = getattr(parameters.get("max_sequence_length"), "default", None)
    if type(longest) is int:
        return longest
    limits = []
    for component in folder.components:
        if component.name.startswith("tokenizer"):
            config = path / component.name / "tokenizer_config.json"
            try:
                limits.append(json.loads(config.read_text(encoding="utf-8")).get("model_max_length"))
            except (OSError, ValueError, AttributeError) as error:
                raise ModelError(f"{config} cannot be read ({error}): copy the whole folder again") from error
    # Where there is no limit the libraries write 10**30.
    return max((int(n) for n in limits if isinstance(n, int | float) and 0 < n < 10**6), default=77)


def _stored(path: Path, folder: PipelineFolder) -> str:
    """Return the precision that most of the denoiser's numbers are stored in; float32 for any other."""
    denoiser = folder.component(*DENOISERS)
    counts: dict[str, int] = {}
    for _, shape, kind in read_tensors(path, denoiser) if denoiser else ():
        counts[kind] = counts.get(kind, 0) + _size(shape)
    return PRECISION_OF.get(max(counts, key=lambda kind: counts[kind], default="F32"), "float32")


def _record(path: Path, folder: PipelineFolder) -> dict[str, Any]:
    """Return what `imgtx models show` prints beside the info; every weight file's header is read."""
    components: dict[str, dict[str, Any]] = {}
    for component in folder.components:
        facts: dict[str, Any] = {"class": component.kind}
        if component.weights:
            tensors = list(read_tensors(path, component))
            facts["parameters"] = sum(_size(shape) for _, shape, _ in tensors)
            facts["megabytes"] = round(
                sum((path / name).stat().st_size for name in component.weights) / 1e6, 1
            )
            facts["stored"] = sorted({PRECISION_OF.get(kind, kind) for _, _, kind in tensors})
        components[component.name] = facts
    return {
        "architecture": f"{folder.pipeline} of diffusers",
        "parameters": sum(facts.get("parameters", 0) for facts in components.values()),
        "megabytes": round(sum(facts.get("megabytes", 0) for facts in components.values()), 1),
        "components": components,
        "variant": folder.variant,
    }


def _size(shape: tuple[int, ...]) -> int:
    number = 1
    for side in shape:
        number *= side
    return number
