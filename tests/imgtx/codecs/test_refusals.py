"""What imgtx says of files that it or its decoders refuse."""

import pytest

from imgtx.codecs import decode
from imgtx.codecs.refusals import decoder_errors
from imgtx.errors import ImageError
from tests.support import zoo
from tests.support.pictures import MAX_PIXELS


@pytest.mark.parametrize(
    ("said", "reason", "message"),
    [
        ("unable to call VipsForeignLoadPngBuffer\n", "corrupt", "cannot be decoded: fetch"),
        ("unable to write to memory\n  vipspng: libpng read error", "corrupt", "cannot be decoded: fetch"),
        (
            "tiff2vips: Using code not yet in table\n" * 2,
            "corrupt",
            "decoded (Using code not yet in table): fetch",
        ),
        (
            "the decoder went on after an error\nVipsJpeg: Corrupt JPEG data: premature end of data segment",
            "truncated",
            "ends before its pixels do (Corrupt JPEG data: premature end of data segment): fetch",
        ),
        (
            "unable to write to memory\nsource: bad seek to 3164\nheif: Invalid input: Corrupt frame detected (2.0)",
            "corrupt",
            "decoded (Invalid input: Corrupt frame detected (2.0)): fetch",
        ),
        (
            "cannot identify image file <_io.BytesIO object at 0x7f2a10>",
            "corrupt",
            "cannot be decoded: fetch",
        ),
        ("broken stream <_io.BytesIO object at 0x7f2a10>", "corrupt", "decoded (broken stream): fetch"),
    ],
)
def test_a_decoder_says_what_is_wrong_and_not_which_function_noticed(said, reason, message):
    with pytest.raises(ImageError) as caught, decoder_errors("png"):
        raise RuntimeError(said)
    assert caught.value.reason == reason
    assert message in str(caught.value)


def test_damaged_pixels_are_not_told_by_functions():
    data = zoo.saved(zoo.photo(64, 64), "TIFF", compression="tiff_lzw")
    with pytest.raises(ImageError) as caught:
        decode(data[:3000] + b"\xff" * 100 + data[3100:], max_pixels=MAX_PIXELS)
    assert "(Using code not yet in table)" in str(caught.value)


@pytest.mark.parametrize("data", [b"  GRIB and a Text", b"Hello World", b"\r\n%PDF-1.7 AB"])
def test_the_first_bytes_are_shown_as_they_are(data):
    with pytest.raises(ImageError) as caught:
        decode(data, max_pixels=MAX_PIXELS)
    assert f"(they begin {data[:12]!r})" in str(caught.value)


def test_a_jpeg_of_12_bits_is_named():
    data = zoo.saved(zoo.photo(), "JPEG")
    precision = data.index(b"\xff\xc0") + 4
    with pytest.raises(ImageError, match="a JPEG of 12 bits; imgtx reads those of 8: convert it") as caught:
        decode(data[:precision] + b"\x0c" + data[precision + 1 :], max_pixels=MAX_PIXELS)
    assert caught.value.reason == "unsupported"
