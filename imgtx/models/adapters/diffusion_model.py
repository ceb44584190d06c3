"""A pipeline of diffusers behind imgtx's contract: rows of prompts and seeds in, images out.

The same row gives the same picture, alone or in a batch: each image's noise comes from a generator of its own on the
CPU, prompts are passed as new lists (some pipelines write their templates into the list they are given), and a
pipeline that draws from torch's shared generator is found out and run one image at a time.
"""

import importlib
import inspect
import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imgtx.errors import ImageError, ModelError, UsageError, first_line
from imgtx.models.adapters.pipeline_folder import Extras, PipelineFolder
from imgtx.models.info import ModelInfo
from imgtx.models.weight_file import opened

# What both libraries say, and no other way, of weights that a folder lacks: they then invent them.
INVENTED = "newly initialized"
# With it some pipelines make the nearest size that they were trained on, and resize that.
BINS = "use_resolution_binning"
_LIBRARIES = ("diffusers", "transformers")
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "DIFFUSERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")


NO_EXTRAS = Extras()


class LoadedPipeline:
    """A pipeline of diffusers, whose weights are read by `prepare` in the precision asked for."""

    def __init__(
        self,
        path: Path,
        folder: PipelineFolder,
        kind: type,
        info: ModelInfo,
        digest: str,
        record: dict[str, Any],
        extras: Extras = NO_EXTRAS,
    ):
        self.path, self.folder, self.kind, self.extras = path, folder, kind, extras
        self.info, self.digest, self.record = info, digest, record
        self.device, self.precision = torch.device("cpu"), "float32"
        call: Any = kind.__call__
        self._parameters = inspect.signature(call).parameters
        self.pipeline: Any = None

    def place(self, device: torch.device, precision: str) -> None:
        """Say where the pipeline runs and in which precision, before `prepare`."""
        self.device, self.precision, self.pipeline = device, precision, None

    def prepare(self, conditions: dict[str, Any] | None = None) -> None:
        """Read the weights, once; a job has no state beside them.

        Raises ModelError for weights that do not fit the pipeline.
        """
        if self.pipeline is None:
            # Weights read in inference mode could not be changed afterwards.
            with torch.inference_mode(False):
                self.pipeline = self._placed(self._load())

    def _placed(self, pipeline: Any) -> Any:
        """Return the pipeline with its extras, on its device."""
        extras = self.extras
        for file, weight in extras.loras:
            self._add_lora(pipeline, file, weight)
        if extras.vae_tiles:
            if not hasattr(getattr(pipeline, "vae", None), "enable_tiling"):
                raise UsageError(
                    f"{self.path} has no autoencoder that decodes in tiles: leave --vae-tiles out"
                )
            pipeline.vae.enable_tiling()
        if not extras.offload:
            return pipeline.to(self.device)
        if self.device.type == "cpu":
            raise UsageError(
                "--offload moves components between CPU and GPU, and this is a CPU: leave it out"
            )
        pipeline.enable_model_cpu_offload(device=self.device)
        return pipeline

    def _add_lora(self, pipeline: Any, file: Path, weight: float) -> None:
        """Add a LoRA to the weights themselves; ModelError where nothing in it belongs to this pipeline."""
        if not hasattr(pipeline, "load_lora_weights"):
            raise UsageError(f"{self.folder.pipeline} of diffusers takes no LoRA: leave --lora out")
        with opened(file, framework="pt"), quiet():
            try:
                pipeline.load_lora_weights(str(file.parent), weight_name=file.name, local_files_only=True)
                found = pipeline.get_active_adapters()
                if found:
                    pipeline.set_adapters(found, [weight] * len(found))
                    pipeline.fuse_lora()
                    pipeline.unload_lora_weights()
            except Exception as error:
                # Both libraries raise exceptions of many kinds.
                raise ModelError(
                    f"the LoRA {file} does not fit {self.folder.pipeline} ({first_line(error)}): give one that was "
                    "trained for it"
                ) from error
        if not found:
            raise ModelError(
                f"the LoRA {file} changes nothing in {self.folder.pipeline}: give one for this model"
            )

    def _load(self) -> Any:
        """Return the pipeline on the CPU, read from exactly the files that its digest is of."""
        diffusers, _ = offline_libraries()
        with tempfile.TemporaryDirectory(prefix="imgtx-pipeline-") as name, quiet() as said:
            for file in self.folder.files:
                link = Path(name, file)
                link.parent.mkdir(exist_ok=True)
                link.symlink_to(os.path.abspath(self.path / file))
            try:
                pipeline = diffusers.DiffusionPipeline.from_pretrained(
                    name,
                    variant=self.folder.variant,
                    dtype=getattr(torch, self.precision),
                    use_safetensors=True,
                    local_files_only=True,
                    trust_remote_code=False,
                )
            except MemoryError:
                raise
            except Exception as error:
                # The libraries raise exceptions of many kinds.
                complaint = first_line(error).replace(name, str(self.path))
                raise ModelError(
                    f"{self.path} cannot be loaded as a {self.folder.pipeline} ({complaint}): copy the whole folder "
                    "again, or give another"
                ) from error
        if invented := [line for line in said if INVENTED in line]:
            component = re.search(rf"{re.escape(name)}/(\w+)", invented[0])
            tensor = re.search(r"([\w.]+) +\| MISSING|\['([^']+)'", invented[0])
            raise ModelError(
                f"{self.path} lacks weights of {component[1] if component else self.folder.pipeline} "
                f"({(tensor[1] or tensor[2]) if tensor else 'some'}): copy the whole folder again"
            )
        pipeline.set_progress_bar_config(disable=True)
        if hasattr(getattr(pipeline, "vae", None), "enable_slicing"):
            # One picture at a time: as fast, and a batch then needs no more memory to decode than one image.
            pipeline.vae.enable_slicing()
        return pipeline


class DiffusionModel(LoadedPipeline):
    """A model of `imgtx.models.generation`."""

    def __init__(
        self,
        path: Path,
        folder: PipelineFolder,
        kind: type,
        info: ModelInfo,
        digest: str,
        record: dict[str, Any],
        extras: Extras = NO_EXTRAS,
        from_image: type | None = None,
    ):
        super().__init__(path, folder, kind, info, digest, record, extras)
        # The pipeline of the same components for rows with a start picture, made when one comes.
        self._from_image = from_image
        self._begun: Any = None
        self._defaults: dict[str, Any] = {"clean_caption": False, "output_type": "np"}
        # Whether noise was seen to come from torch's shared generator.
        self._alone = False

    def place(self, device: torch.device, precision: str) -> None:
        """As `LoadedPipeline.place`."""
        super().place(device, precision)
        self._begun = None

    def tokens_lost(self, row: Mapping[str, Any]) -> int:
        """Return how many tokens of a row's prompt no text encoder sees."""
        self.prepare()
        lost = []
        for name, tokenizer in self.pipeline.components.items():
            if name.startswith("tokenizer") and tokenizer is not None:
                with quiet():
                    count = len(tokenizer(row["prompt"]).input_ids)
                lost.append(max(0, count - self._limit(tokenizer)))
        return min(lost, default=0)

    def _limit(self, tokenizer: Any) -> int:
        """Return how many tokens a pipeline takes of a tokenizer: those of CLIP have a limit of their own."""
        longest = getattr(self._parameters.get("max_sequence_length"), "default", None)
        own = tokenizer.model_max_length
        return own if type(longest) is not int or type(tokenizer).__name__.startswith("CLIP") else longest

    def __call__(self, batch: Tensor, state: None, rows: Sequence[Mapping[str, Any]] = ()) -> Tensor:
        """Make an image of each row: (B, 3, H, W) in [0, 1] of the batch's shape, float32 on its device.

        Raises ModelError for a pipeline that makes images of another size.
        """
        self.prepare()
        height, width = batch.shape[2:]
        starts = batch.float().cpu() if rows and rows[0]["strength"] else None
        made: list[np.ndarray | None] = [None] * len(rows)
        # Without negative prompts a pipeline takes a path of its own, so rows with and without them do not mix.
        for has_negative in (False, True):
            which = [i for i, row in enumerate(rows) if bool(row["negative"]) is has_negative]
            start = None if starts is None else starts[which]
            done = self._make([rows[i] for i in which], height, width, start)
            for index, image in zip(which, done, strict=True):
                made[index] = image
        pixels = torch.from_numpy(np.stack([image for image in made if image is not None]))
        if tuple(pixels.shape) != (len(rows), height, width, 3):
            raise ModelError(
                f"{self.path} made images of {pixels.shape[2]} x {pixels.shape[1]} where {width} x {height} was asked: "
                "ask for a size that it makes"
            )
        return pixels.permute(0, 3, 1, 2).to(batch.device, torch.float32)

    def _make(
        self, rows: Sequence[Mapping[str, Any]], height: int, width: int, starts: Tensor | None
    ) -> list[np.ndarray]:
        """Return (H, W, 3) float32 for each row, made together where that changes no picture.

        starts: (B, 3, H, W) in [0, 1], the pictures that the rows begin with.
        """
        if len(rows) > 1 and not self._alone:
            made, drew = self._run(rows, height, width, starts)
            if not drew:
                return made
            self._alone = True
        each = [(row, None if starts is None else starts[i : i + 1]) for i, row in enumerate(rows)]
        return [image for row, start in each for image in self._run([row], height, width, start)[0]]

    def _run(
        self, rows: Sequence[Mapping[str, Any]], height: int, width: int, starts: Tensor | None
    ) -> tuple[list[np.ndarray], bool]:
        """Run the pipeline once; also return whether it drew from torch's shared generators."""
        if not rows:
            return [], False
        devices = [self.device] if self.device.type == "cuda" else []
        # Outside inference mode: some schedulers change in place what they were given before.
        exact = torch.autocast(self.device.type, enabled=False)
        with torch.random.fork_rng(devices), torch.inference_mode(False), torch.no_grad(), exact, quiet():
            torch.manual_seed(rows[0]["seed"] % 2**63)
            before = _shared_state(self.device)
            pipeline = self.pipeline if starts is None else self._with_start(rows[0])
            arguments = self._arguments(rows, height, width)
            if starts is not None:
                known = inspect.signature(type(pipeline).__call__).parameters
                arguments = {name: value for name, value in arguments.items() if name in known}
                arguments |= {"image": starts, "strength": rows[0]["strength"]}
            made = self._images(pipeline, arguments)
            drew = not all(map(torch.equal, before, _shared_state(self.device)))
        return [np.asarray(image, np.float32) for image in made], drew

    def _with_start(self, row: Mapping[str, Any]) -> Any:
        """Return the pipeline that begins with a picture: the same networks. ImageError for a row without a step."""
        if int(row["steps"] * row["strength"]) < 1:
            raise ImageError(
                "bad_value",
                f"of {row['steps']} steps none are left for the strength {row['strength']:g}: ask for more steps",
            )
        if self._begun is None:
            assert self._from_image is not None
            parts = inspect.signature(self._from_image).parameters
            chosen = {name: part for name, part in self.pipeline.components.items() if name in parts}
            self._begun = self._from_image(**chosen)
            self._begun.set_progress_bar_config(disable=True)
        return self._begun

    def _images(self, pipeline: Any, arguments: dict[str, Any]) -> Any:
        """Call the pipeline; one that has no bins of sizes for its own size is asked to leave them out.

        Raises ImageError for what it does not make: each pipeline has rules of its own.
        """
        try:
            return pipeline(**arguments).images
        except ValueError as error:
            binned = BINS in self._parameters and BINS not in self._defaults
            if not binned or "Invalid sample size" not in str(error):
                raise ImageError(
                    "bad_value",
                    f"{self.folder.pipeline} does not make it ({first_line(error)}): ask for another",
                ) from error
            self._defaults[BINS] = False
            return self._images(pipeline, arguments | {BINS: False})

    def _arguments(self, rows: Sequence[Mapping[str, Any]], height: int, width: int) -> dict[str, Any]:
        first = rows[0]
        values: dict[str, Any] = {name: v for name, v in self._defaults.items() if name in self._parameters}
        values |= {
            "prompt": [row["prompt"] for row in rows],
            "height": height,
            "width": width,
            "num_inference_steps": first["steps"],
            "generator": [torch.Generator("cpu").manual_seed(row["seed"]) for row in rows],
            self._guidance: first["guidance"],
        }
        if first["negative"]:
            values["negative_prompt"] = [row["negative"] for row in rows]
        elif self._guidance == "true_cfg_scale":
            # Without one these pipelines leave guidance out; their makers write a space.
            values["negative_prompt"] = [" " for _ in rows]
        return values

    @property
    def _guidance(self) -> str:
        """Return the parameter for guidance: some pipelines keep its usual name for distilled models."""
        usual = self._parameters.get("guidance_scale")
        return "true_cfg_scale" if usual is None or usual.default is None else "guidance_scale"


def offline_libraries() -> tuple[Any, Any]:
    """Import diffusers and transformers, with their hub switched off."""
    # They read these when they are imported; the third is read anew at each request.
    os.environ.update(dict.fromkeys(OFFLINE, "1"))
    hub: Any = importlib.import_module("huggingface_hub.constants")
    # Where it was imported before.
    hub.HF_HUB_OFFLINE = True
    # The loggers are made by these imports, and only then can be kept quiet.
    for name in _LIBRARIES:
        importlib.import_module(f"{name}.utils.logging").get_logger()
    with quiet():
        importlib.import_module("accelerate")
        diffusers = importlib.import_module("diffusers")
        # Its names are imported when they are asked for, with what that says: this one now.
        importlib.import_module("diffusers.pipelines.pipeline_utils")
        return diffusers, importlib.import_module("transformers")


@contextmanager
def quiet() -> Iterator[list[str]]:
    """Keep what the two libraries say from the terminal: progress, advice and warnings. Gives their warnings."""
    said: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    kept = []
    for name in _LIBRARIES:
        logger = logging.getLogger(name)
        kept.append((logger, logger.handlers, logger.propagate, logger.level))
        logger.handlers, logger.propagate = [Keep()], False
        logger.setLevel(logging.WARNING)
    bars = [
        b
        for name in _LIBRARIES
        if (b := sys.modules.get(f"{name}.utils.logging")) and b.is_progress_bar_enabled()
    ]
    for bar in bars:
        bar.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield said
    finally:
        for logger, handlers, propagate, level in kept:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
        for bar in bars:
            bar.enable_progress_bar()


def _shared_state(device: torch.device) -> list[Tensor]:
    """Return the state of the generators from which noise without a generator of its own is drawn."""
    states = [torch.random.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states
