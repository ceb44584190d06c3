"""A model that looks at the whole image: what it sees of it, and that every tile gets the same."""

from typing import Any

import numpy as np
import pytest
import torch

from imgtx.errors import UsageError
from imgtx.inference.predictor import Predictor
from imgtx.inference.self_ensemble import SelfEnsemble
from imgtx.inference.tiling import split
from imgtx.inference.whole_image import MOST, PIECE, pieces_of, read_from
from imgtx.models.contract import WHOLE_IMAGE
from imgtx.models.info import ModelInfo
from tests.support.zoo import photo


class MeanColour(torch.nn.Module):
    """Paints every tile in the mean colour of the whole image, moved by a condition."""

    info = ModelInfo(name="mean", task="restoration", scale=1, multiple=8, halo=8)

    def prepare(self, conditions: dict[str, Any]) -> None:
        self.looked = 0

    def look_at(self, pieces: torch.Tensor, state: None, row: dict[str, Any]) -> torch.Tensor:
        self.looked += 1
        return pieces.mean((0, 2, 3)) + row.get("more", 0)

    def forward(self, batch: torch.Tensor, state: None, rows: Any = ()) -> torch.Tensor:
        colours = torch.stack([row[WHOLE_IMAGE] for row in rows])
        return colours[:, :, None, None].expand(batch.shape).clamp(0, 1)


@pytest.mark.parametrize(
    ("height", "width", "count"), [(40, 52, 1), (256, 257, 2), (700, 700, 9), (100, 3000, MOST)]
)
def test_pieces_of_an_image(height, width, count):
    pieces = pieces_of(height, width, 32, read_from(photo(height, width)))
    assert len(pieces) == count
    assert max(pieces.shape[1:3]) <= PIECE


def test_pieces_are_spread_over_the_image():
    image = np.broadcast_to(np.arange(3000)[None, :, None] // 12, (64, 3000, 3)).astype(np.uint8)
    means = pieces_of(64, 3000, 32, read_from(image)).mean((1, 2, 3))
    assert (np.diff(means) > 50).all()
    assert abs(means.mean() - image.mean()) < 12


@pytest.mark.parametrize("tile", [32, 64, 512])
def test_every_tile_is_told_the_same_of_its_image_and_only_once(tile):
    model, image = MeanColour(), photo(90, 130)
    predictor = Predictor(model, tile=tile)
    output = predictor(image)
    assert model.looked == 1
    # What is mirrored to fill the last window counts a little, too.
    assert np.ptp(output.reshape(-1, 3), axis=0).max() == 0
    assert np.abs(output[0, 0] - image.mean((0, 1))).max() < 12


def test_images_of_one_batch_keep_their_own_and_their_conditions():
    model, images = MeanColour(), [photo(40, 48), 255 - photo(40, 48)]
    predictor = Predictor(model, tile=32)
    cut = predictor.plan_for(40, 48)
    one, other = predictor.run(
        [(cut, split(image, cut)) for image in images], [{"more": 0.0}, {"more": 0.25}]
    )
    alone, also = predictor(images[0]), predictor(images[1], conditions={"more": 0.25})
    np.testing.assert_array_equal(one, alone)
    np.testing.assert_array_equal(other, also)


def test_it_is_no_part_of_an_ensemble():
    with pytest.raises(UsageError, match="leave the self-ensemble out"):
        SelfEnsemble(MeanColour())


class Ramp(MeanColour):
    """Paints every pixel by its row and column in the image, for which it must know where the tile is."""

    def forward(self, batch: torch.Tensor, state: None, rows: Any = ()) -> torch.Tensor:
        painted = []
        for tile, row in zip(batch, rows, strict=True):
            down, right = torch.arange(tile.shape[1]), torch.arange(tile.shape[2])
            light = (row["top"] + down)[:, None] + 2 * (row["left"] + right)
            painted.append((light / 255).expand(tile.shape))
        return torch.stack(painted)


def test_a_tile_knows_where_it_is():
    image, predictor = photo(40, 72), Predictor(Ramp(), tile=32)
    wanted = np.arange(40)[:, None] + 2 * np.arange(72)
    np.testing.assert_array_equal(predictor(image)[..., 0], wanted)
    for place, pixels in predictor.tiles(predictor.plan_for(40, 72), read_from(image)):
        np.testing.assert_array_equal(
            pixels[..., 0], wanted[place.top : place.bottom, place.left : place.right]
        )


def test_an_image_too_large_for_memory_is_seen_the_same():
    model, image = MeanColour(), photo(300, 600)
    predictor = Predictor(model, tile=128)
    cut = predictor.plan_for(300, 600)
    made = np.empty_like(image)
    for place, pixels in predictor.tiles(cut, read_from(image)):
        made[place.top : place.bottom, place.left : place.right] = pixels
    np.testing.assert_array_equal(made, predictor(image))
