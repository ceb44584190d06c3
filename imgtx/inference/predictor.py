"""Run a model on images: pad, tile, batch, run, merge.

The library, the pipeline and validation during training all go through `Predictor`. Pixels are integers
(uint8 or uint16, channels last) on the host and floats in [0, 1] on the device, one batch at a time: a whole
image is never held as floats. When memory runs out the batch is halved, then the tile, and the smaller
setting is kept.

Shape legend: N tiles, B tiles in one call, C channels, th and tw height and width of a tile, s scale.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from imgtx.errors import ImageError, ModelError, UsageError
from imgtx.imageops.geometry import Tile
from imgtx.imageops.grey import as_rgb, is_grey
from imgtx.imageops.hidden import weights_of, without_hidden_colours
from imgtx.imageops.holes import with_mask
from imgtx.imageops.resize import imresize
from imgtx.inference.blending import Blender, blend
from imgtx.inference.channels import fits, from_model, to_model
from imgtx.inference.inputs import check_image, check_mask, pixels_of
from imgtx.inference.memory import (
    MAX_CALL_PIXELS,
    affordable_pixels,
    is_out_of_memory,
    lowered_settings,
    ran_out,
)
from imgtx.inference.tiling import (
    Plan,
    core_of,
    largest_tile,
    merge,
    paste,
    placed,
    plan,
    plan_for_model,
    smallest_tile,
    split,
    tile_of,
)
from imgtx.inference.whole_image import pieces_of, read_from
from imgtx.models.contract import WHOLE_IMAGE, Conditions, ImageModel, call_model
from imgtx.models.generation import Generation, shared
from imgtx.models.info import PRECISIONS, ModelInfo

logger = logging.getLogger(__name__)


class Predictor:
    """Runs one model on images of any size; calling it with an image is all most users need.

    Args:
        model: an `ImageModel`. If it is a module it is moved to `device` and put in eval mode, in place; if it has a
            method `place(device, precision)`, that says where its weights go and in which precision.
        device: where the model runs, as torch names it.
        precision: "float32", or "bfloat16" or "float16" where the model's info lists it.
        tile: longest side of a tile in input pixels; by default `imgtx.inference.tiling.largest_tile`, unless a GPU is
            too small for it.
        batch: tiles in one call at most; by default 1 on a CPU (more gains nothing there), what fits
            elsewhere, 1 for a model whose batches differ from its single images, and what a model that makes images
            from text says of itself.
        conditions: of the whole job, for `model.prepare`.

    The attributes `tile`, `batch` and `call_pixels` (most input pixels in one call) show the settings in
    force; memory pressure lowers `call_pixels` and `tile` for good. `on_share` is called after each tile of `run` and
    `tiles` with the share of all tiles that is done, up to 1.0.

    Raises UsageError for a precision, device, tile or batch that cannot be.
    """

    def __init__(
        self,
        model: ImageModel,
        *,
        device: str | torch.device = "cpu",
        precision: str = "float32",
        tile: int | None = None,
        batch: int | None = None,
        conditions: dict[str, Any] | None = None,
    ):
        self.model, self.info, self.precision = model, model.info, precision
        self.device = _check_device(device)
        _check_precision(precision, self.info)
        if batch is not None and batch < 1:
            raise UsageError(f"batch {batch}: expected 1 or more; leave it out to let imgtx choose")
        self._layout = torch.channels_last if self.info.channels_last else torch.contiguous_format
        if isinstance(model, nn.Module):
            model.to(self.device).eval()
            if self.info.channels_last:
                model.to(memory_format=self._layout)  # type: ignore[call-overload]  # torch's hints lack it
        elif place := getattr(model, "place", None):
            place(self.device, precision)
        # Models that draw noise must know where in the image each tile is.
        self._places = self.info.blended or hasattr(model, "look_at")
        self.call_pixels = affordable_pixels(self.device)
        self.batch = batch or self._default_batch()
        self.tile = self._check_tile(tile) if tile is not None else self._default_tile()
        self.on_share: Callable[[float], None] = lambda share: None
        with torch.inference_mode(), self._autocast():
            self._state = model.prepare(conditions or {})

    @property
    def digest(self) -> str | None:
        """Return the model's digest, if it has one."""
        return getattr(self.model, "digest", None)

    def __call__(
        self, image: Any, mask: np.ndarray | None = None, conditions: Conditions | None = None
    ) -> np.ndarray:
        """Run one image through the model; it comes back as an array in the layout and dtype it came in.

        image: (H, W) or (H, W, C), uint8 or uint16; C is 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha. Also a path
        or a PIL image (`imgtx.inference.inputs.pixels_of`).
        mask: (H, W) bool, or uint8 of which 128 and more is white: what a model that fills holes makes up. Every other
        pixel comes back as it was, and alpha whole. Exactly the models with `info.masks` need one.
        conditions: of this image alone (a prompt, a seed), for models that take them.
        Returns (s H, s W) or (s H, s W, C).
        Grey and RGB go through models of other channels as `imgtx.inference.channels` says; alpha is enlarged by
        bicubic interpolation (`imgtx.imageops.resize.imresize`), and the colours that it hides come out as those
        around them (`imgtx.imageops.hidden`). Values are rounded to the nearest integer, halves up.
        Raises UsageError for any other array, ImageError("out_of_memory") when not even the smallest tile
        fits, ImageError("bug") when the model's output is not finite.
        """
        image, _ = pixels_of(image)
        check_image(image)
        pixels = image[:, :, None] if image.ndim == 2 else image
        alpha = None
        if pixels.shape[2] in (2, 4):
            pixels, alpha = pixels[:, :, :-1], pixels[:, :, -1]
        hole = check_mask(mask, pixels, self.info)
        weights = weights_of(alpha, hole)
        shown = pixels if alpha is None else without_hidden_colours(pixels, weights)
        grey = pixels.shape[2] == 3 and self.info.keeps_grey and is_grey(pixels, weights)
        shown = shown[:, :, :1] if grey else shown
        if hole is not None:
            shown = with_mask(shown, hole)
        cut = self.plan_for(*pixels.shape[:2])
        (output,) = self.run([(cut, split(shown, cut))], None if conditions is None else [conditions])
        output = as_rgb(output) if grey else output
        if hole is not None and alpha is not None:
            # Hidden colours outside the hole come back too.
            output = np.where(hole[:, :, None], output, pixels)
        if alpha is not None:
            scaled = alpha if self.info.scale == 1 else imresize(alpha, self.info.scale)
            output = np.concatenate([output, scaled[:, :, None]], axis=2)
        return output[:, :, 0] if image.ndim == 2 else output

    def plan_for(self, height: int, width: int) -> Plan:
        """Return how this predictor cuts an image, whether it is in memory or not."""
        halo, multiple = self.info.halo, self.info.multiple
        if self.info.untiled or self.tile == largest_tile(self.info):
            return plan_for_model(self.info, height, width)
        return plan(height, width, tile=self.tile, halo=halo, multiple=multiple)

    def run(
        self, stacks: Sequence[tuple[Plan, np.ndarray]], rows: Sequence[Conditions] | None = None
    ) -> list[np.ndarray]:
        """Run several images, each as its plan and its tiles (N, th, tw, C), to (s H, s W, C) of the same dtype.

        `rows` are the conditions of each image, for models that take them: every tile goes with its image's.
        For a model with `info.masks` the tiles are of `imgtx.imageops.holes.with_mask`: a channel more than comes back.
        Tiles of equal shape and dtype share batches, whichever image they belong to, if their rows agree in what a
        call of a model has in common (`imgtx.models.generation.SHARED`). Tiles larger than
        `self.tile` are cut again, at the price of more halo.
        Raises as `__call__`, and ValueError for rows that are not one per image; an ImageError does not say which of
        the images it was: run them one by one then.
        """
        if rows is not None and len(rows) != len(stacks):
            raise ValueError(f"{len(rows)} rows of conditions for {len(stacks)} images: give one per image")
        if hasattr(self.model, "look_at"):
            given = rows or [{}] * len(stacks)
            rows = [
                self._seen_whole(row, cut, read_from(merge(tiles, cut, 1)))
                for row, (cut, tiles) in zip(given, stacks, strict=True)
            ]
        scale = self.info.scale
        outputs = [
            np.empty((cut.height * scale, cut.width * scale, self._out_channels(tiles)), tiles.dtype)
            for cut, tiles in stacks
        ]
        blenders = [Blender(cut, scale) for cut, _ in stacks] if self.info.blended else []
        groups: dict[tuple, list[tuple[int, int]]] = {}
        made, count = 0, sum(len(tiles) for _, tiles in stacks)
        for which, (_, tiles) in enumerate(stacks):
            agreed = shared(rows[which]) if rows is not None else ()
            waiting = groups.setdefault((tiles.shape[1:], tiles.dtype, agreed), [])
            waiting.extend((which, index) for index in range(len(tiles)))
        for (shape, *_), waiting in groups.items():
            done = 0
            while done < len(waiting):
                places = waiting[done : done + self._tiles_per_call(*shape[:2])]
                batch = np.stack([stacks[which][1][index] for which, index in places])
                own = () if rows is None else tuple(rows[which] for which, _ in places)
                if self._places:
                    own = tuple(
                        placed(rows[which] if rows else {}, stacks[which][0], index)
                        for which, index in places
                    )
                for (which, index), tile in zip(places, self._infer(batch, own), strict=True):
                    made += 1
                    self.on_share(made / count)
                    if not blenders:
                        paste(outputs[which], tile, stacks[which][0], index, scale)
                        continue
                    for place, pixels in blenders[which].add(tile):
                        outputs[which][place.top : place.bottom, place.left : place.right] = pixels
                done += len(places)
        return outputs

    def tiles(
        self,
        cut: Plan,
        read_window: Callable[[Tile], np.ndarray],
        conditions: Conditions | None = None,
    ) -> Iterator[tuple[Tile, np.ndarray]]:
        """Run an image too large for memory: the output piece by piece, in the order of the plan's tiles.

        read_window: from a rectangle of the image to its pixels, (height, width, C) uint8 or uint16.
        conditions: of this image, for models that take them.
        Yields each piece's place in the output, in output pixels, and its pixels, (height, width, C); for a model whose
        tiles are blended (`info.blended`) these are bands of the whole width.
        Together they are what `run` returns for the same plan; memory holds the tiles of one call.
        Raises as `__call__`.
        """
        blender = Blender(cut, self.info.scale) if self.info.blended else None
        if hasattr(self.model, "look_at"):
            conditions = self._seen_whole(conditions or {}, cut, read_window)
        done = 0
        while done < cut.count:
            step = self._tiles_per_call(cut.tile_height, cut.tile_width)
            indices = range(done, min(done + step, cut.count))
            batch = np.stack([tile_of(read_window(cut.window(index)), cut, index) for index in indices])
            # This refuses what the model does not accept.
            self._out_channels(batch)
            rows = () if conditions is None else (conditions,) * len(indices)
            if self._places:
                rows = tuple(placed(conditions or {}, cut, index) for index in indices)
            for index, tile in zip(indices, self._infer(batch, rows), strict=True):
                self.on_share((index + 1) / cut.count)
                if blender:
                    yield from blender.add(tile)
                else:
                    yield core_of(tile, cut, index, self.info.scale)
            done = indices.stop

    @torch.inference_mode()
    def _seen_whole(
        self, row: Conditions, cut: Plan, read_window: Callable[[Tile], np.ndarray]
    ) -> Conditions:
        """Return an image's conditions with what the model's `look_at` says of all of it."""
        pieces = pieces_of(cut.height, cut.width, self.info.multiple, read_window)
        # This refuses what the model does not accept.
        self._out_channels(pieces)
        with self._autocast():
            found = self.model.look_at(  # type: ignore[attr-defined]  # only some models have it
                self._as_batch(pieces), self._state, row
            )
        return {**row, WHOLE_IMAGE: found}

    def _infer(self, tiles: np.ndarray, rows: Sequence[Conditions]) -> Iterator[np.ndarray]:
        """Run (N, th, tw, C) to N times (s th, s tw, C) in order, integers both, in one or more calls.

        Here and below `rows` holds the conditions of each tile, or nothing at all.
        """
        height, width = tiles.shape[1:3]
        done = 0
        while done < len(tiles):
            if max(height, width) > self.tile:
                yield self._infer_in_parts(tiles[done], rows[done : done + 1])
                done += 1
                continue
            step = min(self._tiles_per_call(height, width), len(tiles) - done)
            outputs = self._try_call(tiles[done : done + step], rows[done : done + step])
            if outputs is None:
                self._lower_settings(step, height, width)
            else:
                yield from outputs
                done += step

    def _infer_in_parts(self, tile: np.ndarray, row: Sequence[Conditions]) -> np.ndarray:
        """Run one tile too large for memory, (th, tw, C) to (s th, s tw, C), cut as if it were an image."""
        cut = plan(*tile.shape[:2], tile=self.tile, halo=self.info.halo, multiple=self.info.multiple)
        rows = [*row] * cut.count
        if self._places:
            rows = [placed(row[0], cut, index) for index in range(cut.count)]
        parts = np.stack(list(self._infer(split(tile, cut), rows)))
        return (blend if self.info.blended else merge)(parts, cut, self.info.scale)

    def _try_call(self, tiles: np.ndarray, rows: Sequence[Conditions]) -> np.ndarray | None:
        """Return `_call`, or None when memory ran out."""
        try:
            return self._call(tiles, rows)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # Only here, outside the handler, are the failed call's tensors free: the traceback held them.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _call(self, tiles: np.ndarray, rows: Sequence[Conditions]) -> np.ndarray:
        """Run (B, th, tw, C) uint8 or uint16 to (B, s th, s tw, C) of the same dtype.

        For a model with `info.masks` (B, th, tw, C + 1) to (B, th, tw, C): tiles without a hole are done, and outside
        the hole pixels are the image's own, no matter what the model made of them and in which precision.
        """
        if not self.info.masks:
            return self._call_model(tiles, rows)
        made = tiles[..., :-1].copy()
        hole = tiles[..., -1:] > 0
        wanted = hole.any((1, 2, 3))
        if wanted.any():
            rows = [rows[index] for index in np.flatnonzero(wanted).tolist()] if rows else ()
            made[wanted] = np.where(hole[wanted], self._call_model(tiles[wanted], rows), made[wanted])
        return made

    @torch.inference_mode()
    def _call_model(self, tiles: np.ndarray, rows: Sequence[Conditions]) -> np.ndarray:
        """Call the model once: (B, th, tw, C) uint8 or uint16 to (B, s th, s tw, C) of the same dtype."""
        highest = np.iinfo(tiles.dtype).max
        batch = self._as_batch(tiles)
        # a grey model sees each channel of an RGB tile as an image of its own (`imgtx.inference.channels`)
        rows = [row for row in rows for _ in range(len(batch) // len(tiles))]
        with self._autocast():
            output = call_model(self.model, batch, self._state, rows)
        self._check_output(output, batch)
        output = from_model(output.to(torch.float32), tiles.shape[3] - self.info.masks)
        integers = (
            output.clamp(0, 1).mul_(highest).add_(0.5).to(torch.int32 if highest > 255 else torch.uint8)
        )
        return integers.permute(0, 2, 3, 1).contiguous().cpu().numpy().astype(tiles.dtype, copy=False)

    def _as_batch(self, tiles: np.ndarray) -> Tensor:
        """(B, th, tw, C) uint8 or uint16 -> (B, in_channels, th, tw) in [0, 1] on the device."""
        # torch knows uint16 only as a storage type: 16 bit crosses to the device as float32, 8 bit as it is.
        source = torch.from_numpy(tiles.astype(np.float32) if tiles.dtype == np.uint16 else tiles)
        batch = source.to(self.device).permute(0, 3, 1, 2).to(torch.float32).contiguous()
        return self._as_model_sees(batch / np.iinfo(tiles.dtype).max).contiguous(memory_format=self._layout)

    def _as_model_sees(self, batch: Tensor) -> Tensor:
        """Convert (B, C, H, W) in [0, 1] to the model's channels; a mask stays the last of them."""
        if not self.info.masks:
            return to_model(batch, self.info.in_channels)
        colours = to_model(batch[:, :-1], self.info.in_channels - 1)
        return torch.cat([colours, batch[:, -1:]], 1)

    def _autocast(self) -> torch.autocast:
        """Reduce precision by autocast, not by converting the weights.

        Measured with the dense x2 architecture and random weights on one Zen 5 core (256 px, one thread,
        median of 3): float32 8.9 s/MP, autocast to bfloat16 5.3, converted weights 5.9; off float32 by at
        most 2.2/255 (0.34 on average) with autocast, 3.3 (0.46) with converted weights. And autocast leaves
        the module, which training may own, as it is. Channels-last input gained nothing (float32 9.7 s/MP,
        autocast 5.0).
        """
        reduced = getattr(torch, self.precision)
        enabled = self.precision != "float32"
        return torch.autocast(self.device.type, dtype=reduced if enabled else None, enabled=enabled)

    def _check_output(self, output: Tensor, batch: Tensor) -> None:
        info, (count, _, height, width) = self.info, batch.shape
        expected = (count, info.out_channels, height * info.scale, width * info.scale)
        if tuple(output.shape) != expected:
            raise ModelError(
                f"model {info.name!r} returned shape {tuple(output.shape)} for {tuple(batch.shape)}; "
                f"its info promises {expected}: correct the info's scale and channels, or the model"
            )
        if not torch.isfinite(output).all():
            raise ImageError(
                "bug",
                f"model {info.name!r} returned values that are not finite in {self.precision}: "
                "use precision float32, or other weights if it happens there too",
            )

    def _tiles_per_call(self, height: int, width: int) -> int:
        return max(1, min(self.batch, self.call_pixels // (height * width)))

    def _lower_settings(self, count: int, height: int, width: int) -> None:
        """Use less memory in this and all later calls, after `count` tiles did not fit."""
        failed, device = (count, height, width), str(self.device)
        self.tile, self.call_pixels = lowered_settings(self.info, self.tile, failed, device)
        logger.warning(
            "%s: from now on tiles of at most %d px, %d px a call",
            ran_out(failed, device),
            self.tile,
            self.call_pixels,
        )

    def _default_batch(self) -> int:
        if not self.info.batches:
            return 1
        if self.info.generation:
            return Generation.of(self.info).batch or MAX_CALL_PIXELS
        return 1 if self.device.type == "cpu" else MAX_CALL_PIXELS

    def _default_tile(self) -> int:
        if self.info.untiled:
            # Longer than any allowed side.
            return MAX_CALL_PIXELS
        return max(min(largest_tile(self.info), math.isqrt(self.call_pixels)), smallest_tile(self.info))

    def _check_tile(self, tile: int) -> int:
        try:
            plan(1, 1, tile=tile, halo=self.info.halo, multiple=self.info.multiple)
        except ValueError as error:
            raise UsageError(f"{error} (model {self.info.name!r})") from error
        return tile

    def _out_channels(self, tiles: np.ndarray) -> int:
        """Return the channels that come out for these tiles; UsageError where the model cannot take them."""
        if tiles.dtype not in (np.uint8, np.uint16):
            raise UsageError(
                f"tiles of dtype {tiles.dtype}: expected uint8 or uint16; scale and convert first"
            )
        given, wanted = tiles.shape[3] - self.info.masks, self.info.in_channels - self.info.masks
        if fits(given, wanted):
            return given
        raise UsageError(
            f"an image of {given} channels for model {self.info.name!r}, which takes {wanted}: "
            "expected an image of 1 or 3; convert it or choose another model"
        )


def _check_precision(precision: str, info: ModelInfo) -> None:
    known = [name for name in PRECISIONS if name in info.dtypes]
    if precision not in known:
        raise UsageError(
            f"precision {precision!r} for model {info.name!r}: expected one of {', '.join(known)}"
        )


def default_device() -> str:
    """Return the GPU if torch finds one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _check_device(device: str | torch.device) -> torch.device:
    try:
        checked = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"unknown device {device!r}: expected cpu, cuda, cuda:0 and so on") from error
    if checked.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device {device!r}, but torch finds no CUDA device here: use device='cpu'")
    return checked
