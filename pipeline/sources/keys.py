"""Which keys no output can have: they would escape the destination, or cannot be a file's name."""

import pyarrow as pa
import pyarrow.compute as pc

# S3's limit.
_KEY_BYTES = 1024
# The limit of ext4, XFS, APFS, NTFS.
_NAME_BYTES = 255

# What no key may be, at any destination.
_ESCAPES = (
    (r"^/", "starts with a slash"),
    (r"(^|/)\.\.?(/|$)", 'has "." or ".." between slashes'),
    (r"\x{00}", "holds a zero byte"),
)
# What stands for bytes of a name on a local disk that are not UTF-8 (`pipeline.storage.objects.as_text`).
_CODE = r"\x{1a}(1a|[89a-f][0-9a-f])"


# What some programs leave behind a suffix; names of outputs lack it.
_BEHIND = " ."


def without_tail(key: pa.Array) -> pa.Array:
    """Return keys without the spaces and dots at their end."""
    return pc.utf8_rtrim(key, _BEHIND)


def complaint_about(key: pa.Array, *, local_destination: bool, remedy: str = "rename the object") -> pa.Array:
    """Return the message for each key that no output can have; "" for a safe one.

    local_destination: whether outputs are local files, whose names must follow a file system's rules.
    """
    rules = [(pc.match_substring_regex(key, pattern), words) for pattern, words in _ESCAPES]
    too_long = pc.greater(pc.binary_length(key), _KEY_BYTES)
    rules.append((too_long, f"is longer than {_KEY_BYTES} bytes"))
    if local_destination:
        rules.append(
            (pc.match_substring(_without_codes(key), "\x1a"), "holds U+001A, which marks bytes here")
        )
        rules.append((pc.match_substring(key, "//"), "has nothing between two slashes"))
        rules.append((_has_long_name(key), f"has a part longer than {_NAME_BYTES} bytes"))
    else:
        what = "holds a byte that is not UTF-8, or U+001A, which only a local disk can keep"
        rules.append((pc.match_substring(key, "\x1a"), what))
    conditions, words = zip(*rules, strict=True)
    texts = [f"the key {text}; expected file names joined by single slashes: {remedy}" for text in words]
    return pc.case_when(pc.make_struct(*conditions), *texts, "")


def _without_codes(key: pa.Array) -> pa.Array:
    return pc.replace_substring_regex(key, _CODE, "")


def _has_long_name(key: pa.Array) -> pa.Array:
    # As bytes, because the limit is in bytes. RE2 repeats at most 1,000 times, so `_KEY_BYTES` is not checked this way.
    return pc.match_substring_regex(key.cast(pa.binary()), rf"[^/]{{{_NAME_BYTES + 1}}}")
