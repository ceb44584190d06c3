"""imgtx: image Transformers over whole archives.

As a library, without Ray and without storage:

    import imgtx
    enlarged = imgtx.load("sr-x2")(image)      # HWC uint8 or uint16 -> the same, twice the size
    enlarged = imgtx.upscaler(4)("photo.jpg")  # by the weights for clean pictures or for photos
    stylised = imgtx.load("style")(image, style="painting.jpg", strength=0.8)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from imgtx.inference.chooser import Chooser
    from imgtx.inference.predictor import Predictor
    from imgtx.models.info import ModelInfo

__version__ = "0.1.0"
__all__ = ["__version__", "load", "upscaler"]


def upscaler(scale: float = 2, *, device: str | None = None, precision: str = "float32") -> "Chooser":
    """Return what enlarges each picture by a packaged model for its kind, up to 4 times, as `imgtx upscale` does.

    The result takes a path, a PIL image or an array (`imgtx.inference.chooser.Chooser`). `device` and `precision` are
    as for `load`. Raises UsageError for another scale, and for a precision that does not run here.
    """
    from imgtx.inference.chooser import Chooser
    from imgtx.inference.predictor import default_device
    from imgtx.inference.processor import check_precision

    chosen = device or default_device()
    check_precision(precision, chosen)
    return Chooser(scale, device=chosen, precision=precision)


def load(
    name_or_path: "str | Path",
    *,
    device: str | None = None,
    precision: str | None = None,
    info: "ModelInfo | None" = None,
    compiled: bool = False,
    self_ensemble: bool = False,
    conditions: dict[str, Any] | None = None,
) -> "Predictor":
    """Load a model, ready to run: a packaged name (`sr-x2`, `sr-x4`), an imgtx weight file, or another model.

    `upscaler` loads those that suit each picture.

    `imgtx.models.references` lists what can be named. `device` is a torch device, by default the GPU if there is one.
    `precision` is one of the model's `info.dtypes`, by default float32; one that the processor emulates is refused.
    `info` replaces what was measured of another model, where that is not beside it. `compiled` takes minutes at first:
    tiles of the size that `imgtx models probe MODEL --compile` measured go through torch.compile. With `self_ensemble`
    it is the mean over eight turned and mirrored views, at eight times the time (`imgtx.inference.self_ensemble`). The
    result maps an (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) array of uint8 or uint16 to one of the same kind, `scale`
    times as large. A model for text-to-image takes a prompt instead (`imgtx.inference.generator.Generator`).
    `conditions` is what the model needs once for all images, such as a style picture (`ImageModel.prepare`).
    A model for style transfer takes a style with each image, too (`imgtx.inference.stylist.Stylist`).
    Raises UsageError for an unknown model, for a precision that does not run here and for a model that was not measured
    to be worth compiling, ModelError for a file that is not one.
    """
    # torch comes with these: here and not above, so that `import imgtx` costs milliseconds
    from imgtx.inference.kinds import predictor_for
    from imgtx.inference.predictor import default_device
    from imgtx.inference.processor import check_precision
    from imgtx.models.references import load_model

    chosen = device or default_device()
    check_precision(precision or "float32", chosen)
    model: Any
    if compiled:
        from imgtx.inference.compiled import load_compiled

        predictor = load_compiled(name_or_path, info, device=chosen, precision=precision)
        if not self_ensemble:
            return predictor
        model, precision = predictor.model, predictor.precision
    else:
        model = load_model(name_or_path, info)
    if self_ensemble:
        from imgtx.inference.self_ensemble import SelfEnsemble

        model = SelfEnsemble(model)
    return predictor_for(model, device=chosen, precision=precision or "float32", conditions=conditions)
