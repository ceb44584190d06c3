"""The column dictionary: every column of work rows, between stages, and of the ledger, defined once.

Rows travel as Arrow tables; one row is one output from listing to ledger. Pixels travel as raw bytes
(`large_binary`) beside their shape and dtype: Ray's tensor columns pickle mixed shapes and cast mixed dtypes
silently; Arrow bytes do neither and are read without a copy.
"""

import pyarrow as pa

WRITTEN, CURRENT, SKIPPED, FAILED, PENDING = "written", "current", "skipped", "failed", "pending"
# Statuses of an image in the ledger and in a run's counts; `current` is never stored.
STATUSES = {
    WRITTEN: "its output is at the destination",
    CURRENT: "an earlier run's output is still valid; only in a run's counts, never in the ledger",
    SKIPPED: "it is not an image by its name, has no mask where one is needed, is larger than --skip-larger-than, or "
    "repeats another row of a table",
    FAILED: "it has no output; `stage`, `reason` and `message` say why",
    PENDING: "a run is about to process it, or was interrupted before it did; the next run processes it",
}
TOO_LARGE, TRUNCATED, UNRECOVERABLE = "too_large", "truncated", "unrecoverable"
LARGE_ENOUGH = "large_enough"
# In the column `model`: the picture needs none, and its own pixels are the output.
UNTOUCHED = "none"
# In the column `dtype` between stages: `tiles` is the file itself, which is copied.
FILE = "file"
NO_MASK, BAD_MASK = "no_mask", "bad_mask"
BAD_PROMPT, BAD_VALUE, DUPLICATE = "bad_prompt", "bad_value", "duplicate"
FORBIDDEN, CREDENTIALS, NO_SPACE = "forbidden", "credentials", "no_space"
NOT_FOUND, SUFFIX, UNSAFE_KEY = "not_found", "suffix", "unsafe_key"
# Of listed files and folders that a run's selection leaves out: only counted, never in the ledger.
HIDDEN, EXCLUDED = "hidden", "excluded"

# Why an image was not written.
REASONS = {
    "empty": "the object has no bytes",
    "not_an_image": "the bytes are not in an image format that imgtx reads",
    TRUNCATED: "the file ends before the last pixel (`--on-damage accept` takes what is there)",
    UNRECOVERABLE: "the file ends early, and nothing of it can be decoded; only with `--on-damage accept`",
    "corrupt": "the decoder rejected the bytes",
    TOO_LARGE: "more pixels than the spec or the model allows; refused from the header, before decoding",
    LARGE_ENOUGH: "a side is longer than --skip-larger-than; no more than its header was read",
    "animated": "more than one frame",
    "multi_page": "a TIFF of more than one page",
    "which_picture": "a TIFF of several pictures that does not say which is the full-size one",
    "unsupported": "a valid image in a form that imgtx cannot carry faithfully",
    "no_space_in_format": "the result exceeds a limit of the output format",
    SUFFIX: "the name has no image suffix; never downloaded",
    NO_MASK: "it has no mask among those given; never downloaded",
    BAD_MASK: "its mask has another size or cannot be decoded",
    BAD_PROMPT: "the table's row has no prompt, or one that is not text in UTF-8",
    BAD_VALUE: "a cell of the table's row cannot be used, or the model cannot make what it asks for",
    DUPLICATE: "another row of the table asks for the same picture",
    UNSAFE_KEY: "the key would escape the destination or cannot be a file name",
    NOT_FOUND: "listed, but gone when it was downloaded, or named by --keys and not in the source",
    FORBIDDEN: "the storage refused access to the object",
    CREDENTIALS: "the storage rejected the credentials; this stops a run and leaves the image pending",
    NO_SPACE: "the destination is full or has become read-only; this stops a run and leaves the image pending",
    "storage": "the storage failed in some other way",
    "changed": "the object changed between listing and download",
    "out_of_memory": "did not fit into memory even with the smallest batch and tile",
    "worker_crash": "ended its worker process twice while it ran alone",
    "bug": "an unexpected exception in imgtx; the message names it",
}
# A plain second run tries these again, because the cause may pass; the others wait for a changed source, a new
# recipe or `imgtx retry`.
RETRIED_BY_A_PLAIN_RUN = frozenset(
    {NOT_FOUND, FORBIDDEN, CREDENTIALS, NO_SPACE, "storage", "changed", "worker_crash"}
)

STAGES = ("list", "fetch", "decode", "transform", "encode", "publish")

# One listed object. `version` identifies its content: the storage's etag, or mtime and size where there is none.
INVENTORY = pa.schema([("key", pa.string()), ("size", pa.int64()), ("version", pa.string())])

# What an output was made from beside the source item: a mask, a style picture, a row of a table.
INPUTS = pa.list_(
    pa.field("element", pa.struct([("role", pa.string()), ("key", pa.string()), ("version", pa.string())]))
)

# What identifies one output. `key` is the output's own; `item` is the key of the source item that it is made from, ""
# where that is `key` itself. With inputs, `version` is that of the item and of all of them.
IDENTITY = pa.schema([*INVENTORY, ("item", pa.string()), ("inputs", INPUTS)])

# A listed row. `conditions` is what the model is given for this row alone, as JSON, or "". `status` is "" for a row to
# process; otherwise `reason` is one of REASONS, HIDDEN or EXCLUDED, at stage "list".
LISTED = pa.schema(
    [
        *IDENTITY,
        ("conditions", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("message", pa.string()),
    ]
)

# One output that this run must make; `output` is its name under `images/`.
WORK = pa.schema([*IDENTITY, ("conditions", pa.string()), ("output", pa.string())])

# What every stage passes on about an image (see COLUMNS); a row with a `status` is finished and stays unchanged.
OUTCOME = pa.schema(
    [
        *IDENTITY,
        ("output", pa.string()),
        ("status", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("message", pa.string()),
        ("notes", pa.list_(pa.string())),
        ("model", pa.string()),
        ("quality", pa.int32()),
        ("in_height", pa.int32()),
        ("in_width", pa.int32()),
        ("out_height", pa.int32()),
        ("out_width", pa.int32()),
        ("out_bytes", pa.int64()),
        ("out_sha256", pa.string()),
        ("measures", pa.map_(pa.string(), pa.float64())),
        ("seconds_decode", pa.float32()),
        ("seconds_transform", pa.float32()),
        ("seconds_encode", pa.float32()),
    ]
)

# A ledger row: an outcome, its recipe, its run and when. `sequence` (nanoseconds since the epoch, strictly increasing
# within a destination) decides which row of a key is the newest.
LEDGER = pa.schema(
    [
        *OUTCOME,
        ("recipe", pa.string()),
        ("run", pa.string()),
        ("sequence", pa.int64()),
    ]
)

# What the columns of the ledger mean, for readers of its files (docs/reference/ledger.md).
COLUMNS = {
    "key": "identifies the output: the path of the source relative to its root, exactly as stored",
    "size": "bytes of the source, or of the prompt",
    "version": "identifies the source's content: its etag, or time and size; with inputs, theirs too",
    "item": "key of the source item, where one item has several outputs; empty where that is `key`",
    "inputs": "what the output was made from beside the source, each with role (`mask`, `style`), key and version",
    "output": "path of the output under `images/`",
    "status": "the outcome: see statuses",
    "stage": "stage at which it failed, else empty",
    "reason": "why it was not written: see reasons; else empty",
    "message": "the error in full, or which words of a prompt the model does not know; else empty",
    "notes": "what was converted or dropped: see notes",
    "model": "the model that made the output; `none` where the picture was large enough and is copied; empty where it "
    "failed before one was chosen",
    "quality": "of the source's JPEG, 1 to 100 as libjpeg counts, or of its WebP in that measure; 100 of a lossless "
    "file, 0 where only the loss is known or the source is no image, -1 in rows of an older imgtx",
    "in_height": "pixels, after EXIF orientation",
    "in_width": "pixels, after EXIF orientation",
    "out_height": "pixels",
    "out_width": "pixels",
    "out_bytes": "bytes of the output",
    "out_sha256": "SHA-256 of the output",
    "measures": "numbers by name, see measures: what the task measured",
    "seconds_decode": "download and decoding",
    "seconds_transform": "the model",
    "seconds_encode": "encoding and upload",
    "recipe": "digest of everything that decided the pixels",
    "run": "id of the run; its settings are in `runs/<id>/spec.json`",
    "sequence": "nanoseconds since 1970, strictly increasing: the highest of a key is its current row",
}

# Seconds since its previous row that the actor had no work or could not hand over its output. Added by the transform
# for the driver; never kept in the ledger.
WAITED = pa.field("seconds_waited", pa.float32())

# decode -> transform: the tiles of an image. `tiles` holds uint8 or uint16 in C order; `shape` is (tiles, height,
# width, channels). `alpha` is (in_height, in_width) of the same dtype, or empty. `carry` is what the output must keep
# (ICC profile, EXIF, source format), packed by `imgtx.codecs.pack_carry`.
# transform -> encode: the same columns, now one whole image: shape (1, out_height, out_width, channels), alpha
# (out_height, out_width). A row with a `status` has no pixels. `large`: too big for memory, so the row has no pixels
# either, and the transform takes it from the source to the destination through local disk.
PIXELS = pa.schema(
    [
        *OUTCOME,
        ("conditions", pa.string()),
        WAITED,
        ("dtype", pa.string()),
        ("shape", pa.list_(pa.int32(), 4)),
        ("tiles", pa.large_binary()),
        ("alpha", pa.large_binary()),
        ("carry", pa.binary()),
        ("large", pa.bool_()),
    ]
)

# encode -> publish: the output file's bytes.
ENCODED = pa.schema([*OUTCOME, WAITED, ("encoded", pa.large_binary())])

# publish -> driver.
FINISHED = pa.schema([*OUTCOME, WAITED])

# The folders of a destination.
IMAGES, LEDGER_PARTS, LEASES, RUNS, COPIES = "images/", "ledger/", "lease/", "runs/", "inputs/"
# What a table of prompts says of each key.
PROMPT_RECORDS = "ledger/prompts/"
