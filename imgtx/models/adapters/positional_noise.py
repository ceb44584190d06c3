"""Noise that belongs to a place of a picture: tiles that overlap get the same noise where they do."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from imgtx.errors import ModelError
from imgtx.models.noise import noise_at


class PositionalNoise(TorchFunctionMode):
    """While it is entered, `torch.randn` gives each tile of a batch the noise of its place in its picture.

    places: top and left of each tile, in pixels of the picture. size: height and width of all tiles. Noise may be
    coarser or finer than pixels, by a factor that the tiles' places are multiples of. Pass `generators` to what draws:
    one for each tile. What draws without a generator gets the noise of all tiles, one after another.
    """

    def __init__(self, seed: int, places: Sequence[tuple[int, int]], size: tuple[int, int]):
        super().__init__()
        self._seed, self._places, self._size = seed, places, size
        self.generators = [torch.Generator() for _ in places]
        self._tile_of = {id(generator): number for number, generator in enumerate(self.generators)}
        # Draws so far, by tile.
        self._draws = [0] * len(places)

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.randn:
            shape = tuple(args[0] if len(args) == 1 and not isinstance(args[0], int) else args)
            like = torch.empty(0, dtype=kwargs.get("dtype") or torch.get_default_dtype())
            device = torch.device(kwargs.get("device") or "cpu")
        elif func is torch.randn_like:
            shape, like, device = tuple(args[0].shape), args[0], args[0].device
        else:
            return func(*args, **kwargs)
        number = self._tile_of.get(id(kwargs.get("generator")))
        tiles = range(len(self._places)) if number is None else [number]
        if len(shape) != 4 or shape[0] != len(tiles):
            raise ModelError(
                f"the model draws noise of the shape {shape}, which has no place in {len(tiles)} tiles: choose another"
            )
        return torch.cat([self._noise(tile, *shape[1:]) for tile in tiles]).to(device, like.dtype)

    def _noise(self, tile: int, channels: int, height: int, width: int) -> Tensor:
        """Return the next noise of a tile, (1, channels, height, width) float32 on the CPU."""
        top, left = (
            place * side // whole
            for place, side, whole in zip(self._places[tile], (height, width), self._size, strict=True)
        )
        draw = self._draws[tile]
        self._draws[tile] += 1
        return noise_at(f"{self._seed} {draw}", (channels, height, width), top, left)[None]
