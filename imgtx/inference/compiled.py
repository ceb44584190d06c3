"""Models through torch.compile, in tiles of one size, for runs that ask for it where it was measured to pay.

    why_not    what cannot be compiled, in a sentence
    Compiled   the model as a run's actors have it: an `ImageModel` like the one inside

Every other size of tile goes through the model as it is: compiling again for each image would cost more than it ever
gains. Compiled programs are kept in the user's cache folder, one folder per model: of the actors of a machine the first
one compiles, and the others wait and load it, as does the next run. `imgtx.probing.compile_trial` measures.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from imgtx.errors import ImgtxError, ModelError, UsageError
from imgtx.files import user_cache
from imgtx.inference.memory import is_out_of_memory
from imgtx.inference.predictor import Predictor, default_device
from imgtx.inference.processor import check_precision
from imgtx.models.contract import Conditions, ImageModel, call_model
from imgtx.models.info import ModelInfo, refusal_to_compile
from imgtx.models.weight_file import STYLE_TASK


def check_compiler(device: str | None) -> None:
    """Raise UsageError where torch.compile would find no C++ compiler for a CPU; `device` None is the default."""
    if torch.device(device or default_device()).type != "cpu":
        return
    wanted = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(wanted) is None:
        raise UsageError(
            f"--compile needs a C++ compiler on every machine, and {wanted} is not found here: install it (g++ on "
            "Linux), or name another in CXX, or leave --compile out"
        )


def why_not(model: ImageModel) -> str:
    """Return why this model cannot be compiled; "" where it may be tried."""
    if not isinstance(model, nn.Module):
        return "it is not a torch module"
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        return "it is a TorchScript program, which torch.compile does not take"
    if model.info.masks:
        return "models that fill holes are not compiled: they are called for the tiles with holes alone"
    if model.info.task == STYLE_TASK:
        return "it looks at a style picture, and each job has another"
    if model.info.untiled:
        return "it gets every image whole, and so in another size each time"
    return ""


class Compiled(nn.Module):
    """`model`, compiled for single tiles of `info.compiled_tile` pixels a side at the first of them."""

    def __init__(self, model: Any):
        super().__init__()
        self.model, self.info, self.digest = model, model.info, model.digest
        self._call: Callable[[Tensor, Any], Tensor] | None = None

    def prepare(self, conditions: dict[str, Any]) -> Any:
        return self.model.prepare(conditions)

    def forward(self, batch: Tensor, state: Any, rows: Sequence[Conditions] = ()) -> Tensor:
        """Run tiles of the compiled size one by one, and everything else through the model as it is.

        So does every call with conditions per image: each of their values would be compiled again.
        """
        if rows or batch.shape[-2:] != (self.info.compiled_tile,) * 2:
            return call_model(self.model, batch, state, rows)
        return torch.cat([self._run(tile, state) for tile in batch.split(1)])

    def _run(self, tile: Tensor, state: Any) -> Tensor:
        if self._call is None:
            return self._compile(tile, state)
        # If anything else changes (another autocast, say), nothing is compiled a second time.
        with torch.compiler.set_stance("eager_on_recompile"):
            return _without_grad(self._call, tile, state)

    def _compile(self, tile: Tensor, state: Any) -> Tensor:
        folder = cache_folder(self.digest)
        try:
            with alone(folder):
                os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
                call = torch.compile(self.model, dynamic=False)
                output = _without_grad(call, tile, state)
        except Exception as error:
            # The compiler raises exceptions of many kinds of its own.
            if is_out_of_memory(error) or isinstance(error, ImgtxError):
                raise
            raise ModelError(
                f"--compile: torch.compile failed for {self.info.name!r} here ({in_one_line(error)}): leave "
                "--compile out, or repair the compiler"
            ) from error
        self._call = call
        return output


def _without_grad(call: Callable[[Tensor, Any], Tensor], tile: Tensor, state: Any) -> Tensor:
    """Call outside inference mode, in which the compiler cannot take views of a model's buffers."""
    with torch.inference_mode(False), torch.no_grad():
        return call(tile.clone(), state)


def load_compiled(
    reference: str | Path, info: ModelInfo | None, *, device: str, precision: str | None
) -> Predictor:
    """Load a model as `imgtx.load` and compile it now, by default in the precision that was measured.

    Raises UsageError where it was not measured to be exact enough and worth it.
    """
    from imgtx.models.references import load_model, read_info

    info = info or read_info(reference)[0]
    precision = precision or info.fast
    check_precision(precision, device)
    if refusal := refusal_to_compile(info, str(reference), precision):
        raise UsageError(refusal)
    check_compiler(device)
    predictor = Predictor(Compiled(load_model(reference, info)), device=device, precision=precision)
    predictor(np.zeros((info.compiled_tile, info.compiled_tile), np.uint8))
    return predictor


def cache_folder(digest: str) -> Path:
    """Return the folder of a model's compiled programs on this machine; without it they are compiled again."""
    return user_cache() / "compiled" / digest[:16]


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Let one process at a time compile into `folder`: those that wait find the work done."""
    # POSIX only, as Ray's workers are.
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = folder.with_suffix(".lock").open("w")
    except OSError as error:
        raise ModelError(
            f"--compile: {folder} cannot be written ({error.strerror}): make room or give XDG_CACHE_HOME another "
            "place, or leave --compile out"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def in_one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"[:300]
