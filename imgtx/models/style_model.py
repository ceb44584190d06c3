"""The style transfer network under the contract of `imgtx.models.contract`: each style picture is looked at once."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgtx.errors import UsageError
from imgtx.imageops.luma import LUMA
from imgtx.models.contract import WHOLE_IMAGE, Conditions
from imgtx.models.info import ModelInfo
from imgtx.models.noise import noise_at
from imgtx.models.style_config import MERGED_PATCH, OWN_STYLE, SMALLEST_STYLE, STYLE_SIZE
from imgtx.models.style_transfer import STYLE_ENCODER, Statistics, StyleState, StyleTransfer

# Tokens of the style memory at most, so that the cost of an image does not grow with the style picture.
MAX_MEMORY = 1024
# Styles whose memories are kept: 1 to 4 MB each.
KEPT_STYLES = 64
# What the only style of a job is called where it has no name.
ONLY = ""


class Look(NamedTuple):
    """How one image is to look: what its conditions may say, or those of its job.

    style: the name of a style picture. style_size: the shorter side in pixels at which that is looked at. strength: 0
    the image as it is, 1 the full style. preserve_color: the image's own colours under the style's lights and strokes.
    """

    style: str = ONLY
    style_size: int = STYLE_SIZE
    strength: float = 1.0
    preserve_color: bool = False

    def changed(self, conditions: Conditions) -> "Look":
        """Return the look with what the conditions name."""
        return self._replace(**{name: conditions[name] for name in self._fields if name in conditions})


class Styles:
    """The style pictures of a job by name, the look of an image that asks for nothing, and the memories so far."""

    def __init__(self, pictures: Mapping[str, np.ndarray], look: Look):
        self.pictures, self.look = pictures, look
        self.memories: dict[tuple[str, int], StyleState] = {}


class StyleModel(nn.Module):
    """A style transfer network with its facts. `digest` is the SHA-256 of the weight file in hex.

    own: what the network knows of the one style that it was fitted to, if it was; it has no style encoder then.
    """

    def __init__(self, network: StyleTransfer, info: ModelInfo, digest: str, own: StyleState | None = None):
        super().__init__()
        self.network, self.info, self.digest, self.own = network, info, digest, own

    def prepare(self, conditions: dict[str, Any] | None = None) -> Styles:
        """Return what every call needs; a style's memory is computed when the first image asks for it, and kept.

        conditions: `style`, an (H, W, 3) uint8 picture, or `styles`, a mapping of them by name; and `style_size`,
        `strength`, `preserve_color` as in `Look`. The same names in an image's own conditions go before, `style` there
        being a name.
        """
        given = dict(conditions or {})
        pictures = {ONLY: given.pop("style")} if "style" in given else given.get("styles", {})
        return Styles(pictures, Look().changed(given))

    @torch.no_grad()
    def look_at(self, pieces: Tensor, state: Styles, row: Conditions) -> list[tuple[Tensor, Tensor]]:
        """Return the statistics of a whole image in its style, from pieces of it, (N, 3, H, W) in [0, 1].

        They are the same for each of its tiles, so that no tile is brighter or harder than its neighbour.
        """
        look = state.look.changed(row)
        if look.strength == 0:
            return []
        statistics = Statistics(together=True)
        places = [(0, number * pieces.shape[3]) for number in range(len(pieces))]
        self.network(pieces, self._memory(state, look), statistics, self._noise(pieces, places))
        return statistics.measured

    def forward(self, batch: Tensor, state: Styles, rows: Sequence[Conditions] = ()) -> Tensor:
        """Run (B, 3, H, W) in [0, 1], H and W multiples of info.multiple, to the same shape in [0, 1].

        Images whose rows do not hold what `look_at` found are whole ones: it is measured on each. Rows say where in its
        image a tile is, as `top` and `left` in pixels.
        Raises UsageError without a style picture, for one below 64 pixels a side, and for any where the network was
        fitted to one.
        """
        looks = [state.look.changed(row) for row in rows] or [state.look] * len(batch)
        output = batch.clone()
        for look in dict.fromkeys(looks):
            if look.strength == 0:
                continue
            # Memories of pictures of different shapes do not fit into one tensor.
            chosen = [index for index, other in enumerate(looks) if other == look]
            content = batch[chosen]
            own = [rows[index] if rows else {} for index in chosen]
            known = [row[WHOLE_IMAGE] for row in own if WHOLE_IMAGE in row]
            statistics = Statistics(of_batch(known)) if known else None
            places = [(row.get("top", 0), row.get("left", 0)) for row in own]
            noise = self._noise(content, places)
            styled = self.network(content, self._memory(state, look), statistics, noise).float()
            output[chosen] = blended(content, styled, look)
        return output

    def _noise(self, tiles: Tensor, places: Sequence[tuple[int, int]]) -> Tensor:
        config = self.network.config
        shape = config.noise_shape(*tiles.shape[2:])
        noise = [noise_at("style", shape, top // config.patch, left // config.patch) for top, left in places]
        return torch.stack(noise).to(tiles)

    @torch.no_grad()
    def _memory(self, state: Styles, look: Look) -> StyleState:
        """Return the style's memory, computed unless it is among those kept; the one used last is kept longest."""
        place = look.style, look.style_size
        memory = state.memories.pop(place, None) or self._look_at(state.pictures, look)
        state.memories[place] = memory
        if len(state.memories) > KEPT_STYLES:
            del state.memories[next(iter(state.memories))]
        return memory

    def _look_at(self, pictures: Mapping[str, np.ndarray], look: Look) -> StyleState:
        picture = pictures.get(look.style)
        if self.own is not None:
            if picture is not None:
                raise UsageError(
                    f"{self.info.name} was fitted to one style, {self.info.style}, and paints no other: "
                    f"leave the style out, or take a model for any style"
                )
            return self.own.like(self.network.embed.weight)
        if picture is None:
            raise UsageError(f"{self.info.name} needs a style picture: give one as `style`")
        return look_at_style(self.network, picture, look.style_size)


@torch.no_grad()
def look_at_style(network: StyleTransfer, picture: np.ndarray, size: int = STYLE_SIZE) -> StyleState:
    """Return what a network needs of a style picture, (H, W, 3) uint8, seen at `size` pixels of its shorter side."""
    weight = network.embed.weight
    fitted = fit_style(picture, size, network.config.style_multiple)
    return network.encode_style(fitted.to(weight.device, weight.dtype))


def shortened(state: StyleState, most: int) -> StyleState:
    """Return a style's state with `most` tokens of memory at most: means of neighbours."""

    def short(memory: Tensor) -> Tensor:  # G, h, M, d
        tokens = min(memory.shape[2], most)
        return F.adaptive_avg_pool2d(memory, (tokens, memory.shape[3]))

    return state._replace(keys=tuple(map(short, state.keys)), values=tuple(map(short, state.values)))


def without_style_encoder(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a network by name, without those that look at the style."""
    return {name: tensor for name, tensor in state.items() if name.partition(".")[0] not in STYLE_ENCODER}


def named(own: StyleState) -> dict[str, Tensor]:
    """Return the tensors of a style's state under the names that they have in a weight file."""
    parts = {"keys": own.keys, "values": own.values}
    found = {f"{OWN_STYLE}{kind}.{number}": t for kind, ts in parts.items() for number, t in enumerate(ts)}
    return found | {f"{OWN_STYLE}code": own.code}


def taken_own_style(tensors: dict[str, Tensor]) -> StyleState | None:
    """Take a style's state out of the tensors of a weight file, where it has one."""
    found = {name: tensors.pop(name).float() for name in sorted(tensors) if name.startswith(OWN_STYLE)}
    if f"{OWN_STYLE}code" not in found:
        return None
    keys, values = (
        tuple(tensor for name, tensor in found.items() if name.startswith(f"{OWN_STYLE}{kind}."))
        for kind in ("keys", "values")
    )
    return StyleState(found[f"{OWN_STYLE}code"], keys, values)


def of_batch(images: Sequence[Sequence[tuple[Tensor, Tensor]]]) -> list[tuple[Tensor, Tensor]]:
    """Return the statistics of B images, each of 1, as those of a batch: by layer, (B, C, 1, 1) twice."""
    return [
        (torch.cat([mean for mean, _ in layer]), torch.cat([deviation for _, deviation in layer]))
        for layer in zip(*images, strict=True)
    ]


def blended(content: Tensor, styled: Tensor, look: Look) -> Tensor:
    """Return (B, 3, H, W) between the content, at strength 0, and its stylised version, at 1."""
    styled = styled.clamp(0, 1)
    if look.preserve_color:
        styled = with_chroma(styled, content)
    return torch.lerp(content, styled, look.strength).clamp(0, 1)


def with_chroma(light: Tensor, colour: Tensor) -> Tensor:
    """Return (B, 3, H, W) in [0, 1] of the luma of one image and the chroma of another.

    Where both together are no colour, the chroma is reduced and not the hue changed: what is grey stays grey.
    """
    weights = light.new_tensor(LUMA)[:, None, None]
    luma = (light * weights).sum(1, keepdim=True).clamp(0, 1)
    chroma = colour - (colour * weights).sum(1, keepdim=True)
    room = torch.where(chroma > 0, 1 - luma, luma) / chroma.abs().clamp_min(1e-6)
    return luma + chroma * room.amin(1, keepdim=True).clamp(max=1)


def fit_style(pixels: np.ndarray, size: int, multiple: int) -> Tensor:
    """Resize and cut a style picture for the style encoder: (H, W, 3) uint8 -> (1, 3, h, w) in [0, 1].

    h and w are multiples of `multiple`, the shorter about `size`, in proportion; what does not fit is cut off at both
    ends, so that strokes keep their shape. Never more than MAX_MEMORY tokens. UsageError for a picture below 64 pixels.
    """
    height, width = pixels.shape[:2]
    if min(height, width) < SMALLEST_STYLE:
        raise UsageError(
            f"the style picture is {width} x {height}: expected {SMALLEST_STYLE} pixels a side or more; "
            f"give a larger picture"
        )
    short, long = style_sides(min(height, width), max(height, width), size, multiple)
    high, wide = (short, long) if height <= width else (long, short)
    scale = max(high / height, wide / width)
    image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 255
    covering = (max(high, round(height * scale)), max(wide, round(width * scale)))
    image = F.interpolate(image, covering, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    top, left = (covering[0] - high) // 2, (covering[1] - wide) // 2
    return image[:, :, top : top + high, left : left + wide]


def style_sides(short: int, long: int, size: int, multiple: int) -> tuple[int, int]:
    """Return the sides at which the style encoder sees a picture of these sides, the shorter about `size`."""
    largest = MAX_MEMORY * MERGED_PATCH**2
    first = min(max(multiple, round(size / multiple) * multiple), int(largest**0.5) // multiple * multiple)
    second = max(first, round(first * long / short / multiple) * multiple)
    return first, min(second, largest // first // multiple * multiple)
