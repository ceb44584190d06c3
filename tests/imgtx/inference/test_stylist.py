"""Style transfer as a library: what may be a style picture, strength, colours, alpha, depth, tiles."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import imgtx
from imgtx.errors import UsageError
from imgtx.inference import stylist
from imgtx.inference.style_picture import as_style, open_style
from imgtx.inference.stylist import Stylist
from tests.support.small_style import painting, save_tiny_style
from tests.support.zoo import photo, saved


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return save_tiny_style(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture(scope="module")
def stylise(model) -> Stylist:
    loaded = imgtx.load(model)
    assert isinstance(loaded, Stylist)
    return loaded


IMAGE = photo(40, 52)


class TestStylePictures:
    @pytest.mark.parametrize("form", ["path", "text", "array", "pil", "palette"])
    def test_a_style_is_a_path_an_array_or_a_pil_image(self, stylise, tmp_path: Path, form):
        pixels = painting(1)
        path = tmp_path / "style.png"
        path.write_bytes(saved(pixels))
        given = {
            "path": path,
            "text": str(path),
            "array": pixels,
            "pil": Image.fromarray(pixels),
            "palette": Image.fromarray(pixels).quantize(2),
        }[form]
        np.testing.assert_array_equal(stylise(IMAGE, style=given), stylise(IMAGE, style=pixels))

    def test_styles_differ_and_are_not_mixed_up(self, stylise):
        one, other = (stylise(IMAGE, style=painting(seed)) for seed in (1, 2))
        assert np.abs(one.astype(int) - other).mean() > 2
        np.testing.assert_array_equal(stylise(IMAGE, style=painting(1)), one)

    def test_many_styles_in_turn_are_not_all_kept(self, stylise, monkeypatch):
        monkeypatch.setattr(stylist, "KEPT", 3)
        first = stylise(IMAGE, style=painting(0))
        for seed in range(1, 6):
            stylise(IMAGE, style=painting(seed))
        assert len(stylise._pictures) == 3
        np.testing.assert_array_equal(stylise(IMAGE, style=painting(0)), first)

    def test_grey_16_bit_and_alpha_are_seen_as_8_bit_colours_on_white(self):
        pixels = painting(1)
        np.testing.assert_array_equal(as_style(pixels.astype(np.uint16) * 257), pixels)
        np.testing.assert_array_equal(open_style(pixels[..., 0]), np.repeat(pixels[..., :1], 3, 2))
        half = open_style(np.dstack([pixels, np.full(pixels.shape[:2], 51, np.uint8)]))
        np.testing.assert_allclose(half, pixels * 0.2 + 255 * 0.8, atol=0.51)

    def test_a_huge_picture_is_reduced(self):
        huge = painting(1).repeat(31, 0).repeat(31, 1)
        reduced = as_style(huge)
        assert reduced.shape == (1085, 1395, 3)
        assert abs(reduced.mean() - huge.mean()) < 1

    @pytest.mark.parametrize(
        ("style", "complaint"),
        [
            ("none.png", "the style picture none.png cannot be read .No such file"),
            (__file__, "cannot be used .not_an_image"),
            (painting(1, 63, 200), "is 200 x 63: a style picture has 64 pixels a side or more"),
            (np.full((80, 80, 3), 77, np.uint8), "is of one colour"),
            (np.dstack([painting(1), np.zeros((70, 90), np.uint8)]), "is of one colour"),
            (painting(1) / 255, "is an array float64 of shape"),
            (7, "is an array int64 of shape"),
        ],
    )
    def test_what_cannot_be_a_style_is_refused_in_one_line(self, stylise, style, complaint):
        with pytest.raises(UsageError, match=complaint) as refusal:
            stylise(IMAGE, style=style)
        assert "\n" not in str(refusal.value)

    def test_without_a_style(self, stylise):
        with pytest.raises(UsageError, match="tiny needs a style picture: give one as `style`"):
            stylise(IMAGE)
        # Nothing is lost with it.
        stylise(IMAGE, style=painting(1))

    def test_one_style_for_all_calls(self, stylise, model):
        usual = imgtx.load(model, conditions={"style": painting(1), "strength": 0.5, "preserve_color": True})
        expected = stylise(IMAGE, style=painting(1), strength=0.5, preserve_color=True)
        np.testing.assert_array_equal(usual(IMAGE), expected)
        np.testing.assert_array_equal(
            usual(IMAGE, style=painting(2), strength=1.0, preserve_color=False),
            stylise(IMAGE, style=painting(2)),
        )
        assert usual(IMAGE[..., 0]).shape == (40, 52)


class TestImages:
    @pytest.mark.parametrize("depth", [8, 16])
    @pytest.mark.parametrize("channels", [1, 2, 3, 4])
    @pytest.mark.parametrize("size", [(40, 52), (1, 1), (7, 200)])
    def test_no_strength_gives_exactly_the_image(self, stylise, channels, depth, size):
        image = photo(*size, channels, depth)
        if channels in (2, 4):
            # Colours that alpha hides do not come back (`imgtx.imageops.hidden`).
            image[..., -1] |= 1 << (depth - 2)
        made = stylise(image, style=painting(1), strength=0)
        coloured = np.dstack([image[..., :1]] * 3 + [image[..., 1:]]) if channels == 2 else image
        coloured = np.dstack([image] * 3) if channels == 1 else coloured
        np.testing.assert_array_equal(made, coloured)
        np.testing.assert_array_equal(
            stylise(image, style=painting(1), strength=0, preserve_color=True), image
        )

    def test_alpha_is_kept_and_16_bits_are_used(self, stylise):
        image = photo(40, 52, 4, 16)
        made = stylise(image, style=painting(1), strength=0.5)
        assert made.dtype == np.uint16
        np.testing.assert_array_equal(made[..., 3], image[..., 3])
        assert (made[..., :3] % 257 != 0).mean() > 0.5

    def test_grey_comes_out_in_colour_unless_colours_are_preserved(self, stylise):
        grey = photo(40, 52, 1)
        made = stylise(grey, style=painting(1))
        assert made.shape == (40, 52, 3)
        assert np.ptp(made.astype(int), axis=2).mean() > 2
        assert stylise(grey, style=painting(1), preserve_color=True).shape == (40, 52)
        assert (
            np.ptp(stylise(np.dstack([grey] * 3), style=painting(1), preserve_color=True), axis=2).max() <= 1
        )

    def test_strength_lies_between(self, stylise):
        full = stylise(IMAGE, style=painting(1)).astype(int)
        half = stylise(IMAGE, style=painting(1), strength=0.5).astype(int)
        np.testing.assert_allclose(half, (full + IMAGE) / 2, atol=1.01)

    def test_tiles_equal_the_whole(self, stylise, model):
        image = photo(260, 300)
        cut = imgtx.load(model, conditions={"style": painting(1)})
        cut.tile = 128
        assert cut.plan_for(260, 300).count > 4
        np.testing.assert_allclose(cut(image).astype(int), stylise(image, style=painting(1)), atol=1)

    @pytest.mark.parametrize(
        ("settings", "complaint"),
        [
            ({"strength": 1.5}, "strength 1.5: must be 0, the image as it is, to 1"),
            ({"strength": float("nan")}, "strength nan"),
            ({"strength": "full"}, "strength 'full'"),
            ({"style_size": 300}, "style_size 300: must be one of 128, 256, 384, 512"),
        ],
    )
    def test_settings_that_cannot_be(self, stylise, settings, complaint):
        with pytest.raises(UsageError, match=complaint):
            stylise(IMAGE, style=painting(1), **settings)
