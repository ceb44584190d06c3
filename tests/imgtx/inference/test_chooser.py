"""The library's choice of weights, and what a predictor takes beside arrays."""

import numpy as np
import pytest
from PIL import Image

import imgtx
from imgtx.errors import ImageError, UsageError
from imgtx.imageops.resize import imresize
from tests.support.zoo import photo, saved


@pytest.fixture
def files(tmp_path):
    (tmp_path / "clean.png").write_bytes(saved(photo(20, 28)))
    (tmp_path / "web.jpg").write_bytes(saved(photo(20, 28), "JPEG", quality=60))
    return tmp_path


def test_each_picture_gets_the_weights_for_its_kind(files):
    enlarge = imgtx.upscaler(device="cpu")
    assert enlarge.models == {}
    web = np.asarray(Image.open(files / "web.jpg"))
    clean, soft = imgtx.load("sr-x2", device="cpu"), imgtx.load("sr-x2-archive", device="cpu")
    assert np.array_equal(enlarge(files / "clean.png"), clean(photo(20, 28)))
    assert [*enlarge.models] == ["sr-x2"]
    for given in (files / "web.jpg", str(files / "web.jpg"), Image.open(files / "web.jpg")):
        assert np.array_equal(enlarge(given), soft(web))
    # An array has no header.
    assert np.array_equal(enlarge(web), clean(web))
    assert np.array_equal(enlarge(web, kind="photo"), soft(web))
    with pytest.raises(UsageError, match="kind 'photos': must be one of clean, photo"):
        enlarge(web, kind="photos")
    with pytest.raises(UsageError, match="scale 5 of the packaged models: must be more than 1 and at most 4"):
        imgtx.upscaler(5)


def test_any_factor_is_the_next_larger_model_reduced(files):
    made = imgtx.upscaler(2.5, device="cpu")(photo(20, 28))
    assert np.array_equal(made, imresize(imgtx.load("sr-x3", device="cpu")(photo(20, 28)), size=(50, 70)))


def test_a_predictor_takes_paths_and_pil_images(files):
    model = imgtx.load("sr-x2", device="cpu")
    wanted = model(photo(20, 28))
    for given in (files / "clean.png", str(files / "clean.png"), Image.open(files / "clean.png")):
        assert np.array_equal(model(given), wanted)
    palette = Image.open(files / "clean.png").quantize(16)
    assert np.array_equal(model(palette), model(np.asarray(palette.convert("RGB"))))
    assert model(Image.open(files / "clean.png").convert("1")).shape == (40, 56, 3)
    assert model(Image.fromarray(photo(20, 28, 4))).shape == (40, 56, 4)
    turned = Image.open(files / "clean.png")
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(files / "turned.jpg", exif=exif)
    assert model(files / "turned.jpg").shape == (56, 40, 3)
    with pytest.raises(UsageError, match=r"none\.png cannot be read"):
        model(files / "none.png")
    with pytest.raises(UsageError, match="image of type int: expected a numpy array"):
        model(5)
    for given in (5, None, ["sr-x2"]):
        with pytest.raises(
            UsageError, match=r"a model given as .*: expected a packaged name such as 'sr-x2'"
        ):
            imgtx.load(given, device="cpu")
    (files / "page.png").write_bytes(b"<html>")
    with pytest.raises(ImageError):
        model(files / "page.png")
