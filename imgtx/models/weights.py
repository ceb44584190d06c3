"""Load models from weight files, strictly, and save networks into them (format: `imgtx.models.weight_file`)."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import save_file
from torch import Tensor, nn

from imgtx.errors import ModelError
from imgtx.files import write_atomically
from imgtx.models.info import ModelInfo
from imgtx.models.style_config import StyleConfig
from imgtx.models.style_model import StyleModel, named, taken_own_style, without_style_encoder
from imgtx.models.style_transfer import StyleState, StyleTransfer
from imgtx.models.text_to_image import TextToImage
from imgtx.models.text_to_image_config import TextToImageConfig
from imgtx.models.text_to_image_model import TextToImageModel
from imgtx.models.transformer import EncoderDecoder
from imgtx.models.weight_file import Config, file_digest, find_weights, opened, read_facts

Network = EncoderDecoder | StyleTransfer | TextToImage


class Model(nn.Module):
    """A network with its facts: what `imgtx.inference.predictor` and the pipeline run.

    `digest` is the SHA-256 of the weight file in hex; it is part of every output's recipe.
    """

    def __init__(self, network: nn.Module, info: ModelInfo, digest: str):
        super().__init__()
        self.network, self.info, self.digest = network, info, digest

    def prepare(self, conditions: dict[str, Any] | None = None) -> None:
        """Return the state that is computed once per job: these tasks need none."""

    def forward(self, batch: Tensor, state: None = None) -> Tensor:
        """Run (B, C, H, W) in [0, 1], H and W multiples of info.multiple, to (B, C, s H, s W) in [0, 1]."""
        return self.network(batch).clamp(0.0, 1.0)


def save_weights(
    path: Path, network: Network, info: ModelInfo, *, half: bool = False, own: StyleState | None = None
) -> None:
    """Write one self-describing weight file, whole or not at all; the same weights and info give the same bytes.

    With `half` numbers are rounded to float16, half the size; they are float32 again once loaded.
    own: what a network that was fitted to one style knows of it, `info.style` names it; the style encoder, half of the
    file, is left out.
    """
    facts = json.dumps({"config": asdict(network.config), "info": info.to_dict()}, sort_keys=True)
    dtype = torch.float16 if half else torch.float32
    state = network.state_dict()
    if own is not None:
        state = without_style_encoder(state) | named(own)
    tensors = {name: t.detach().to("cpu", dtype).contiguous().numpy() for name, t in state.items()}
    write_atomically(path, lambda part: save_file(tensors, part, {"imgtx": facts}), durable=True)


def load_model(name_or_path: str | Path) -> Model | StyleModel | TextToImageModel:
    """Load a packaged model by name (`sr-x2`), or any imgtx weight file by path.

    Raises UsageError where there is no such model, ModelError where the file is truncated, foreign or does
    not fit its own config.
    """
    path = find_weights(name_or_path)
    with opened(path, framework="pt") as file:
        config, info = read_facts(file, path)
        tensors = {name: torch.as_tensor(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 - not a dict
    own = taken_own_style(tensors) if isinstance(config, StyleConfig) else None
    network = network_of(config)
    if own is not None and isinstance(network, StyleTransfer):
        network.forget_style_encoder()
    try:
        network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        complaint = " ".join(str(error).split()).partition(": ")[2]
        raise ModelError(f"{path} does not fit its own config: {complaint[:300]}") from error
    if isinstance(network, StyleTransfer):
        return StyleModel(network, info, file_digest(path), own).eval()
    if isinstance(network, TextToImage):
        return TextToImageModel(network, info, file_digest(path)).eval()
    return Model(network, info, file_digest(path)).eval()


def network_of(config: Config) -> Network:
    """Return a new network of this shape, with random weights."""
    if isinstance(config, StyleConfig):
        return StyleTransfer(config)
    return TextToImage(config) if isinstance(config, TextToImageConfig) else EncoderDecoder(config)
