"""The model card of style transfer weights, and the halo that goes into them: the largest over several styles."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from torch import Tensor, nn

from imgtx.errors import ModelError
from imgtx.models.contract import Conditions
from imgtx.models.info import ModelInfo
from imgtx.models.style_model import StyleModel, Styles
from imgtx.probing.halo import HaloReport, measure_halo
from jobs.evaluation.protocol import Quality

HALO_STYLES = 3


@dataclass(frozen=True)
class StyleHalo:
    """The halo that all styles are content with, and what was measured for the style that needs most."""

    halo: int
    report: HaloReport


class InOneStyle(nn.Module):
    """A style model that is given nothing but images. style: None for weights that were fitted to one."""

    def __init__(self, model: StyleModel, style: np.ndarray | None):
        super().__init__()
        self.model, self.info, self.style = model, model.info, style

    def prepare(self, conditions: dict[str, Any] | None = None) -> Styles:
        return self.model.prepare({} if self.style is None else {"style": self.style})

    def look_at(self, pieces: Tensor, state: Styles, row: Conditions) -> Any:
        return self.model.look_at(pieces, state, row)

    def forward(self, batch: Tensor, state: Styles, rows: Sequence[Conditions] = ()) -> Tensor:
        return self.model(batch, state, rows)


def measure_style_halo(
    model: StyleModel,
    photos: Sequence[np.ndarray],
    styles: Sequence[np.ndarray | None],
    candidates: Sequence[int],
) -> StyleHalo:
    """Measure the halo in each style, None for the model's own.

    Raises ModelError where none makes tiled equal untiled.
    """
    found = []
    with Console(stderr=True).status("") as line:
        for number, style in enumerate(styles, 1):

            def say(words: str, which: str = f"style {number} of {len(styles)}") -> None:
                line.update(f"{which}: {words}")

            found.append(measure_halo(InOneStyle(model, style), photos, candidates=candidates, report=say))
            if found[-1].halo is None:
                raise ModelError(
                    f"{model.info.name}: no measured halo makes tiled output equal untiled: {found[-1].differences}"
                )
    worst = max(found, key=lambda report: report.halo or 0)
    assert worst.halo is not None
    return StyleHalo(worst.halo, worst)


def style_card_text(info: ModelInfo, quality: Quality, halo: HaloReport, digest: str) -> str:
    """Return the model card in Markdown."""
    training = info.training
    spec: dict[str, Any] = training.get("spec", {})
    differences = "; ".join(
        f"halo {d.halo}: {d.as_float * 255:.3f} of 255, {d.as_uint8} levels after rounding"
        for d in halo.differences
    )
    curve = ", ".join(f"{h['valid_loss']:.2f} at {h['step']}" for h in training.get("history", []))
    lines = [
        f"# {info.name}",
        "",
        f"Style transfer: photos in the look of {info.style or 'any painting'}. {quality.summary}",
        "",
        f"- weights: `{info.name}.safetensors`, SHA-256 `{digest}`",
        f"- licence: {info.licence}",
        f"- data: {training.get('data') or 'the spec does not say'}",
        f"- recipe: {training['steps']} steps, {training['minutes']} minutes of computing on one core, torch "
        f"{training['torch']}, commit {training['commit']}",
        f"- spec: `{json.dumps(spec)}`",
        f"- again: `{training['command']}`",
    ]
    lines += [f"- {note}" for note in training.get("notes", [])]
    lines += [f"- validation loss by step: {curve}"] if curve else []
    lines += [
        f"- halo {info.halo} px, multiple {info.multiple} px: the largest difference of tiled and untiled output in "
        f"{'its style' if info.style else f'the style that needs most of {HALO_STYLES}'} ({differences})",
        f"- halo, quality and this card again: `imgtx models package {info.name}.safetensors CONTENTS STYLES "
        "--photos PHOTOS`",
    ]
    return "\n".join(lines) + f"\n\n{quality.text}"
