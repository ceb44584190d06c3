"""Tell the quality that a lossy WebP was saved with from the head of its VP8 frame (RFC 6386, sections 7 and 9).

libwebp counts quality from 0 to 100 and derives a quantiser for each of up to four segments from it
(`QualityToCompression` in quant_enc.c). This goes back from their mean: up to 5 too high from quality 70 on, up to 13
below.
"""

# Of a WebP from which on weights for clean pictures win, and of a JPEG (`bench/which_model.py`).
_EQUAL_WEBP, _EQUAL_JPEG = 77, 90
# Bytes of a frame that hold what is read here.
HEAD_BYTES = 64


def quality_of(frame: bytes) -> int:
    """Return the quality, 1 to 100, of a VP8 key frame, counted so that it means for a model what a JPEG's does.

    frame: at least its first HEAD_BYTES. 0 where these are not those of a key frame.
    """
    if len(frame) < 12 or frame[0] & 1 or frame[3:6] != b"\x9d\x01\x2a":
        return 0
    quantiser = _mean_quantiser(frame[10:])
    linear = (1 - quantiser / 127) ** 3
    own = 100 * (1.5 * linear if linear <= 0.5 else (linear + 1) / 2)
    if own < _EQUAL_WEBP:
        return max(1, round(own * (_EQUAL_JPEG - 1) / (_EQUAL_WEBP - 1)))
    return round(_EQUAL_JPEG + (own - _EQUAL_WEBP) * (100 - _EQUAL_JPEG) / (100 - _EQUAL_WEBP))


def _mean_quantiser(partition: bytes) -> float:
    """Return the mean of the segments' quantisers, 0 to 127, from the first partition of a frame."""
    bits = _Bits(partition)
    # Colour space and clamping.
    bits.literal(2)
    own: list[int] = []
    absolute = False
    if bits.literal(1):
        has_map, has_features = bits.literal(1), bits.literal(1)
        if has_features:
            absolute = bool(bits.literal(1))
            own = [bits.signed(7) for _ in range(4)]
            for _ in range(4):
                bits.signed(6)
        if has_map:
            for _ in range(3):
                if bits.literal(1):
                    bits.literal(8)
    # The loop filter's type, level and sharpness.
    bits.literal(10)
    if bits.literal(1) and bits.literal(1):
        for _ in range(8):
            bits.signed(6)
    # The number of partitions.
    bits.literal(2)
    base = bits.literal(7)
    values = [value if absolute else base + value for value in own] or [base]
    return sum(min(max(value, 0), 127) for value in values) / len(values)


class _Bits:
    """The boolean decoder of RFC 6386, section 7.3, for bits that are equally likely; zeros follow the data."""

    def __init__(self, data: bytes):
        self._data, self._next = data, 2
        self._value = int.from_bytes(data[:2].ljust(2, b"\0"), "big")
        self._range, self._shifted = 255, 0

    def literal(self, count: int) -> int:
        """Return an unsigned number of `count` bits."""
        value = 0
        for _ in range(count):
            value = value << 1 | self._bit()
        return value

    def signed(self, count: int) -> int:
        """Return a number that may be absent, of `count` bits and a sign: 0 where it is."""
        if not self._bit():
            return 0
        value = self.literal(count)
        return -value if self._bit() else value

    def _bit(self) -> int:
        split = 1 + ((self._range - 1) * 128 >> 8)
        bit = int(self._value >= split << 8)
        if bit:
            self._range -= split
            self._value -= split << 8
        else:
            self._range = split
        while self._range < 128:
            self._value, self._range, self._shifted = self._value << 1, self._range << 1, self._shifted + 1
            if self._shifted == 8:
                self._value |= self._data[self._next] if self._next < len(self._data) else 0
                self._next, self._shifted = self._next + 1, 0
        return bit
