"""Tests of holes: masks of each kind, the fill of an image and of its windows, the model that fills them."""

import numpy as np
import pytest
import torch

from imgtx.degradations.holes import KINDS, MAX_SHARE, Holes, random_mask, with_random_hole
from imgtx.errors import UsageError
from imgtx.imageops import geometry
from imgtx.imageops.geometry import Tile
from imgtx.imageops.holes import Fill, hole_of_colour, hole_of_mask, with_mask
from imgtx.inference.predictor import Predictor
from imgtx.models.config import ModelConfig
from imgtx.models.transformer import EncoderDecoder
from imgtx.models.weights import load_model
from tests.support.archive import save_tiny_model
from tests.support.small_models import noise
from tests.support.zoo import photo


def hole(height: int, width: int, kind: str = "medium", seed: int = 0) -> np.ndarray:
    return random_mask(np.random.default_rng(seed), height, width, kind)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory) -> Predictor:
    path = tmp_path_factory.mktemp("holes") / "tiny.safetensors"
    return Predictor(load_model(save_tiny_model(path, scale=1, holes=True)))


class TestMasks:
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_seed_determines_a_mask_of_at_most_half_the_image(self, kind):
        shares = [hole(256, 256, kind, seed).mean() for seed in range(8)]
        assert len({*shares}) == 8
        assert 0 < min(shares) <= max(shares) <= MAX_SHARE
        np.testing.assert_array_equal(hole(256, 256, kind), hole(256, 256, kind))

    def test_density_does_not_depend_on_the_size(self):
        small = np.mean([hole(128, 128, "thin", n).mean() for n in range(30)])
        large = np.mean([hole(384, 384, "thin", n).mean() for n in range(10)])
        assert abs(small - large) < 0.1

    def test_thick_is_wider_than_medium_than_thin(self):
        # Area divided by boundary.
        def width(kind: str) -> float:
            masks = [hole(256, 256, kind, n) for n in range(10)]
            return sum(m.sum() for m in masks) / sum(np.diff(m, axis=0).sum() for m in masks)

        assert width("thin") * 2 < width("medium") < width("thick")

    def test_training_draws_only_the_given_kinds(self):
        crop = photo(64, 64)
        rng = [np.random.default_rng(5) for _ in range(2)]
        rng[1].choice(3, p=[0, 1, 0])
        made = with_random_hole(crop, rng[0], Holes(thin=0, medium=2, thick=0))
        np.testing.assert_array_equal(made[..., 3] > 0, random_mask(rng[1], 64, 64, "medium"))
        for shares, message in (({"thin": -1}, "thin = -1"), ({"thin": 0, "medium": 0, "thick": 0}, "all 0")):
            with pytest.raises(UsageError, match=message):
                Holes(**shares)
        with pytest.raises(UsageError, match="expected one of thin, medium, thick"):
            random_mask(rng[0], 8, 8, "huge")


class TestFill:
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_a_gradient_is_filled_exactly_and_the_rest_is_unchanged(self, dtype):
        depth = np.iinfo(dtype).bits
        # Two slopes and an edge.
        image = np.ascontiguousarray(photo(60, 90, 3, depth)[..., :2])
        image[..., :] = np.linspace(0, np.iinfo(dtype).max, 90).astype(dtype)[None, :, None]
        mask = np.zeros((60, 90), bool)
        mask[20:40, 30:60] = True
        made = with_mask(image, mask)
        assert made.dtype == dtype
        np.testing.assert_array_equal(made[..., 2], np.where(mask, np.iinfo(dtype).max, 0))
        np.testing.assert_array_equal(made[~mask][:, :2], image[~mask])
        step = np.iinfo(dtype).max / 90
        assert np.abs(made[mask][:, :2].astype(float) - image[mask]).max() < 4 * step

    @pytest.mark.parametrize("size", [(1, 1), (1, 7), (33, 50)])
    def test_a_full_hole_becomes_grey_and_an_empty_one_changes_nothing(self, size):
        image = noise(*size, 3)
        assert (with_mask(image, np.ones(size, bool))[..., :3] == 127).all()
        np.testing.assert_array_equal(with_mask(image, np.zeros(size, bool))[..., :3], image)

    @pytest.mark.parametrize("window", [(0, 0, 40, 40), (100, 130, 61, 77), (250, 301, 51, 62)])
    def test_filling_a_window_equals_filling_the_whole_image(self, window, monkeypatch):
        """Even a hole that is larger than the window and its context gives equal pixels."""
        image = np.cumsum(np.random.default_rng(1).normal(0, 8, (301, 363, 3)), 1).clip(-120, 120) + 127
        image = image.astype(np.uint8)
        mask = hole(301, 363, "thin")
        mask[40:260, 50:340] = True
        whole = with_mask(image, mask)[..., :3]

        def read(tile: Tile) -> tuple[np.ndarray, np.ndarray]:
            place = slice(tile.top, tile.bottom), slice(tile.left, tile.right)
            return image[place], mask[place]

        filler, tile = Fill(301, 363, read), Tile(*window)
        np.testing.assert_array_equal(filler(tile), whole[tile.top : tile.bottom, tile.left : tile.right])
        assert filler.share == mask.mean()
        monkeypatch.setattr(geometry, "SQUARE", 64)
        np.testing.assert_array_equal(with_mask(image, mask)[..., :3], whole)


class TestWhichPixels:
    def test_a_mask_is_set_from_half_white_in_opaque_pixels(self):
        grey = np.array([[0, 127, 128, 255]], np.uint8)[..., None]
        assert hole_of_mask(grey, None).tolist() == [[False, False, True, True]]
        assert hole_of_mask(grey.astype(np.uint16) * 257, None).tolist() == [[False, False, True, True]]
        assert hole_of_mask(grey, np.array([[255, 255, 0, 255]], np.uint8)).tolist() == [[False] * 3 + [True]]

    @pytest.mark.parametrize("depth", [8, 16])
    def test_a_colour_key_matches_within_a_tolerance_per_channel(self, depth):
        pixels = np.array([[[255, 0, 255], [247, 8, 250], [246, 0, 255], [255, 0, 0]]])
        pixels = (pixels * (257 if depth == 16 else 1)).astype(f"uint{depth}")
        assert hole_of_colour(pixels, (255, 0, 255), 8).tolist() == [[True, True, False, False]]
        assert hole_of_colour(pixels[..., :1], (255, 255, 255), 8).tolist() == [[True, True, False, True]]


class TestModel:
    CONFIG = ModelConfig(
        scale=1, in_channels=4, holes=True, dim=16, heads=1, patch=4, window=4, detail_channels=8
    )

    def test_an_untrained_model_returns_the_fill_and_keeps_known_pixels(self):
        batch = torch.rand(2, 4, 32, 48, generator=torch.Generator().manual_seed(0))
        batch[:, 3] = (batch[:, 3] > 0.6).float()
        network = EncoderDecoder(self.CONFIG).eval()
        assert torch.equal(network(batch), batch[:, :3])
        torch.nn.init.normal_(network.head.weight)
        changed = (network(batch) != batch[:, :3]).any(1)
        assert torch.equal(changed & (batch[:, 3] == 0), torch.zeros_like(changed))
        assert changed[batch[:, 3] == 1].float().mean() > 0.99

    def test_the_queries_of_hole_tokens_are_the_mask_token(self):
        network = EncoderDecoder(self.CONFIG)
        torch.nn.init.normal_(network.mask_token)
        mask = torch.zeros(1, 1, 16, 16)
        # One token fully masked, one exactly half: not most of it.
        mask[..., :4, :4] = 1
        mask[..., 4:8, :2] = 1
        mask[..., 8:12, :3] = 1
        tokens = torch.rand(1, 4, 4, 16)
        queries = network.with_mask_tokens(tokens, mask)
        replaced = (queries == network.mask_token).all(-1)
        assert replaced.nonzero().tolist() == [[0, 0, 0], [0, 2, 0]]
        assert torch.equal(queries[~replaced], tokens[~replaced])

    @pytest.mark.parametrize(
        "fields", [{"scale": 2}, {"in_channels": 3}, {"out_channels": 4}], ids=lambda f: next(iter(f))
    )
    def test_a_mask_adds_one_input_channel_of_the_same_size(self, fields):
        with pytest.raises(ValueError, match="one channel more"):
            ModelConfig(**{"scale": 1, "in_channels": 4, "holes": True} | fields)


class TestPredictor:
    @pytest.mark.parametrize("shape", [(37, 50, 3), (37, 50), (20, 31, 4), (40, 33, 2)])
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_only_the_hole_changes_in_every_precision(self, predictor, shape, dtype):
        image, mask = noise(*shape, dtype=dtype), hole(*shape[:2])
        for precision in ("float32", "bfloat16"):
            output = Predictor(predictor.model, precision=precision)(image, mask)
            assert (output.dtype, output.shape) == (dtype, image.shape)
            np.testing.assert_array_equal(output[~mask], image[~mask])
            colours = slice(None) if image.ndim == 2 else slice(0, 3 if shape[2] > 2 else 1)
            assert (output[mask][..., colours] != image[mask][..., colours]).mean() > 0.9
            if image.ndim == 3 and shape[2] in (2, 4):
                np.testing.assert_array_equal(output[..., -1], image[..., -1])

    def test_pixels_in_the_hole_do_not_matter(self, predictor):
        image, mask = photo(40, 50), hole(40, 50)
        other = image.copy()
        other[mask] = 255 - other[mask]
        np.testing.assert_array_equal(predictor(image, mask), predictor(other, mask))
        np.testing.assert_array_equal(predictor(image, mask), predictor(image, mask.astype(np.uint8) * 200))

    def test_tiles_equal_the_whole_and_tiles_without_holes_are_skipped(self, predictor):
        image, mask = photo(150, 180), np.zeros((150, 180), bool)
        # The hole is taller than a tile.
        mask[30:150, 20:70] = True
        whole = predictor(image, mask)
        cut = Predictor(predictor.model, tile=64)
        calls = []
        handle = predictor.model.register_forward_pre_hook(lambda module, given: calls.append(given[0].shape))
        tiled = cut(image, mask)
        handle.remove()
        assert np.abs(tiled.astype(int) - whole).max() <= 1
        assert len(calls) < cut.plan_for(150, 180).count

    @pytest.mark.parametrize(
        ("mask", "message"),
        [
            (None, "fills holes: give it a mask too"),
            (np.zeros((4, 4), np.float32), "expected an array"),
            (np.zeros((4, 4, 1), bool), "expected an array"),
            (np.zeros((5, 4), bool), "expected the same size"),
        ],
    )
    def test_an_invalid_mask_is_refused(self, predictor, mask, message):
        with pytest.raises(UsageError, match=message):
            predictor(noise(4, 4, 3), mask)

    def test_other_models_refuse_a_mask(self, tmp_path):
        model = load_model(save_tiny_model(tmp_path / "plain.safetensors"))
        with pytest.raises(UsageError, match="which takes none"):
            Predictor(model)(noise(4, 4, 3), np.zeros((4, 4), bool))
