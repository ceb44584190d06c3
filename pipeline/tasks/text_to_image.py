"""Text-to-image: an image for each sample of each row of a table of prompts.

The source is the table (`pipeline/sources/prompts.py`). A listed row's conditions are what its row of the table asks
for; options and the model's own settings complete them when the row is loaded.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from imgtx.errors import ImageError, UsageError
from pipeline.tasks.base import Inline, Option, Settings, Task
from pipeline.tasks.images import MAX_BYTES, canvas_row

# The command line reads this file for every `--help`, so that what costs time to import is imported in functions.
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    import pyarrow as pa

    from imgtx.models.generation import Request
    from imgtx.models.info import ModelInfo
    from pipeline.contact_sheet import Cell
    from pipeline.ledger.ledger import Ledger
    from pipeline.sources.prompt_rows import Reading
    from pipeline.sources.start_pictures import StartPictures
    from pipeline.spec import Job, RunSpec
    from pipeline.storage.store import Store
    from pipeline.tables.rows import Row
    from pipeline.tasks.base import Opened

SEED = Option(
    "seed", type=int, default=0, metavar="N", help="Seed of rows that give none, 0 or more.  [default: 0]"
)
SAMPLES = Option(
    "samples", type=int, default=1, metavar="N", help="Images of each row that gives no number.  [default: 1]"
)
NEGATIVE = Option("negative", metavar="TEXT", help="What images must not show, in rows that do not say.")
STEPS = Option("steps", type=int, metavar="N", help="Steps of the sampler.  [default: the model's]")
GUIDANCE = Option(
    "guidance",
    type=float,
    metavar="X",
    help="How closely prompts are followed; 1 is without guidance.  [default: the model's]",
)
SIZE = Option("size", metavar="WxH", help="Size in pixels, such as 64x64.  [default: the model's]")
STYLE = Option("style", metavar="NAME", help="A drawing style of the model (imgtx models show).")
STRENGTH = Option(
    "strength",
    type=float,
    metavar="X",
    help="How much of a start picture is replaced, above 0 to 1.  [default: the model's]",
)
START_PICTURES = Option(
    "images",
    metavar="URI",
    place=True,
    help="Folder or bucket of the start pictures: the column image then names keys in it.  [default: it names URIs, or "
    "paths relative to the table]",
)
TABLE_FOLDER = Option(
    "table_folder",
    place=True,
    rare=True,
    help="Where relative paths of the column image begin.  [default: where the table is]",
)
KEY = Option(
    "key",
    metavar="COLUMN",
    help="Name outputs by this column.  [default: by the prompt and a hash of all that the row asks for]",
)
PROMPT_COLUMN = Option(
    "prompt_column",
    default="prompt",
    metavar="COLUMN",
    help="Where the table has the prompts.  [default: prompt]",
)
NO_METADATA = Option(
    "no_metadata", type=bool, default=False, help="Do not write prompt, seed and settings into PNG files."
)
LORA = Option(
    "lora",
    type=list,
    metavar="FILE[:WEIGHT]",
    of_model=True,
    help="A LoRA for a pipeline of diffusers, .safetensors here or in storage; may be repeated.  [default weight: 1]",
)
OFFLOAD = Option(
    "offload",
    type=bool,
    default=False,
    of_model=True,
    help="Keep on the GPU only the component of a pipeline whose turn it is.",
)
VAE_TILES = Option(
    "vae_tiles",
    type=bool,
    default=False,
    of_model=True,
    help="Let the autoencoder of a pipeline decode in tiles, with blended seams.",
)
SHEET = Option(
    "sheet", metavar="FILE", place=True, help="Draw a contact sheet with captions: .png, .jpg or .webp."
)
# Images on a sheet.
MAX_ON_SHEET = 200
# What a row may give itself, by the name of its column.
_OF_ROWS = (NEGATIVE, STEPS, GUIDANCE, STYLE, STRENGTH)


def default_model(settings: Settings) -> str:
    """Return the packaged model."""
    return "text-to-image"


def refer(model: str, settings: Settings) -> str:
    """Return the reference of a pipeline of diffusers with LoRAs, tiles and offloading; UsageError for other models."""
    import os

    from imgtx.models.adapters.diffusers import MARK, PREFIX
    from imgtx.models.references import declaring

    loras = settings.get(LORA.name, ())
    more = {LORA.name: "\n".join(map(str, loras)), OFFLOAD.name: "", VAE_TILES.name: ""}
    more |= {option.name: "1" for option in (OFFLOAD, VAE_TILES) if settings.get(option.name)}
    more = {name: value for name, value in more.items() if value}
    if not more:
        return model
    if not model.startswith(f"{PREFIX}:"):
        flag = next(option.flag.strip() for option in (LORA, OFFLOAD, VAE_TILES) if option.name in more)
        where = model.partition("?")[0]
        in_storage = "://" in where and where.endswith("/")
        if not in_storage and not os.path.isfile(os.path.join(where, MARK)):
            raise UsageError(
                f"{flag} with --model {model}: only pipelines of diffusers take it; leave it out, or give --model "
                "diffusers:FOLDER"
            )
        model = f"{PREFIX}:{model}"
    return declaring(model, more)


def reading_of(spec: RunSpec) -> Reading:
    """Return how the spec reads its table."""
    from pipeline.sources.prompt_rows import Reading

    return Reading(KEY.of(spec) or "", PROMPT_COLUMN.of(spec), SEED.of(spec), SAMPLES.of(spec))


def settings_of(spec: RunSpec) -> dict[str, Any]:
    """Return what holds for rows that do not say, by the names of their columns."""
    given: dict[str, Any] = {option.name: option.of(spec) for option in _OF_ROWS}
    if size := SIZE.of(spec):
        given["width"], given["height"] = size_of(size)
    return {name: value for name, value in given.items() if value is not None}


def size_of(text: str) -> tuple[int, int]:
    """Return width and height of "64x48"; "64" is a square. UsageError for anything else."""
    match = re.fullmatch(r"(\d{1,6})(?:\s*x\s*(\d{1,6}))?", text.strip(), re.IGNORECASE)
    if match is None:
        raise UsageError(f"--size {text}: must be a width and a height in pixels, such as 64x64")
    return int(match[1]), int(match[2] or match[1])


def check(spec: RunSpec, info: ModelInfo) -> None:
    """Raise UsageError for settings that the model cannot follow in any row, or that mean nothing here."""
    from imgtx.models.generation import LARGEST_SEED, request
    from pipeline.contact_sheet import sheet_format
    from pipeline.sources.prompt_rows import MAX_SAMPLES

    for option, least, most in ((SEED, 0, LARGEST_SEED - MAX_SAMPLES), (SAMPLES, 1, MAX_SAMPLES)):
        if not least <= option.of(spec) <= most:
            raise UsageError(f"{option.flag}{option.of(spec)}: must be {least} to {most}")
    if SHEET.of(spec):
        sheet_format(SHEET.of(spec))
    if spec.self_ensemble:
        raise UsageError(
            "--self-ensemble turns and mirrors images, and a prompt has no other side: leave it out"
        )
    given = settings_of(spec)
    strength = given.pop("strength", None)
    try:
        request({"prompt": "a check"} | given, info)
        if strength is not None:
            request({"prompt": "a check", "strength": strength}, info, start_picture=True)
    except UsageError as error:
        raise UsageError(
            f"--{'size: ' if str(error).startswith(('width', 'height')) else ''}{error}"
        ) from error


def recipe(spec: RunSpec) -> dict[str, Any]:
    """Return the settings that decide outputs of rows that do not say; seed and samples are in the rows themselves."""
    # As text: a setting of 0 is set, too.
    given = {name: str(value) for name, value in settings_of(spec).items()}
    return given | {NO_METADATA.name: NO_METADATA.of(spec)}


def open_images(spec: RunSpec) -> StartPictures:
    """Open what holds the start pictures that rows may name."""
    from pipeline.sources.start_pictures import PicturesAnywhere, PicturesIn
    from pipeline.storage.store import open_store

    if uri := START_PICTURES.of(spec):
        return PicturesIn(open_store(uri, endpoint_url=spec.endpoint_url), START_PICTURES.flag.strip())
    return PicturesAnywhere(TABLE_FOLDER.of(spec) or _folder_of(spec.source), spec.endpoint_url)


def before_copying(spec: RunSpec) -> dict[str, Any]:
    """Return the folder of a table that is about to be copied: paths in it are relative to that."""
    return {TABLE_FOLDER.name: TABLE_FOLDER.of(spec) or _folder_of(spec.source)}


def _folder_of(uri: str) -> str:
    return uri.rpartition("/")[0] or ("/" if uri.startswith("/") else ".")


def check_inputs(images: StartPictures, spec: RunSpec) -> None:
    """Raise UsageError where the start pictures cannot be read, or a local table lacks its columns."""
    from pipeline.sources.prompts import open_prompts

    images.check()
    table = open_prompts(spec.source, spec.endpoint_url)
    # One in storage is fetched once, when it is listed.
    if table.store.is_local:
        table.check_columns(reading_of(spec))


def list_prompts(opened: Opened, spec: RunSpec, *, local_destination: bool) -> Iterator[pa.RecordBatch]:
    """Return batches of LISTED: a row for each sample of each row of the table."""
    from pipeline.sources.prompts import PromptTable

    assert isinstance(opened.source, PromptTable)
    reading = reading_of(spec)
    return opened.source.list_as(reading, local_destination=local_destination, images=opened.inputs)


def keep(opened: Opened, spec: RunSpec, destination: Store) -> None:
    """Keep the table's other columns by key, beside the ledger."""
    from pipeline.ledger.prompts import keep_prompts
    from pipeline.sources.prompts import PromptTable

    assert isinstance(opened.source, PromptTable)
    keep_prompts(opened.source, reading_of(spec), opened.inputs, destination)


def arrange(work: pa.Table) -> pa.Table:
    """Return rows of equal size and settings as neighbours, so that they fill calls of the model together."""
    names = ("height", "width", "steps", "guidance", "strength")
    asked = [json.loads(conditions) for conditions in work["conditions"].to_pylist()]
    alike = [tuple(row.get(name) or 0 for name in names) for row in asked]
    return work.take(sorted(range(len(alike)), key=alike.__getitem__))


def finish(opened: Opened, spec: RunSpec, destination: Store, ledger: Ledger) -> None:
    """Draw the contact sheet, if one is asked for: the first images of the table that are written."""
    if not SHEET.of(spec):
        return
    from pipeline.contact_sheet import draw_sheet, sheet_format
    from pipeline.storage.store import open_store

    folder, _, name = SHEET.of(spec).rstrip("/").rpartition("/")
    listed = list_prompts(opened, spec, local_destination=destination.is_local)
    asked, count = _first_listed(listed)
    outputs = _written(ledger, list(asked))
    cells = _cells(asked, outputs, destination)
    shown = f"the first {len(outputs)} of {count:,}" if count > len(asked) else f"{len(outputs)}"
    title = f"{shown} images of {opened.source.uri.rpartition('/')[2]}"
    data = draw_sheet(cells, title, sheet_format(name))
    open_store(folder or "/", endpoint_url=spec.endpoint_url).write(name, data)


def _first_listed(batches: Iterator[pa.RecordBatch]) -> tuple[dict[str, dict[str, Any]], int]:
    """Return what the first rows ask for, by key, at most MAX_ON_SHEET; and how many rows there are."""
    import pyarrow.compute as pc

    asked: dict[str, dict[str, Any]] = {}
    count = 0
    for batch in batches:
        usable = batch.filter(pc.equal(batch.column("status"), ""))
        count += usable.num_rows
        few = usable.slice(0, MAX_ON_SHEET - len(asked)).select(["key", "conditions"]).to_pylist()
        asked |= {row["key"]: json.loads(row["conditions"]) for row in few}
    return asked, count


def _written(ledger: Ledger, keys: list[str]) -> dict[str, str]:
    """Return the outputs of those keys that have one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from pipeline.tables.schemas import WRITTEN

    found: dict[str, str] = {}
    for rows in ledger.current_in_pieces(["key", "status", "output"]):
        wanted = pc.and_(
            pc.is_in(rows["key"], pa.array(keys, pa.string())), pc.equal(rows["status"], WRITTEN)
        )
        few = rows.filter(wanted)
        found |= dict(zip(few["key"].to_pylist(), few["output"].to_pylist(), strict=True))
    return found


def _cells(asked: dict[str, dict[str, Any]], outputs: dict[str, str], destination: Store) -> Iterator[Cell]:
    from pipeline.contact_sheet import Cell
    from pipeline.tables.schemas import IMAGES

    for key, row in asked.items():
        if key in outputs:
            detail = f"seed {row['seed']}" + (f", {row['style']}" if row.get("style") else "")
            yield Cell(destination.read(IMAGES + outputs[key]), row["prompt"], detail)


def fetch(row: Row, opened: Opened) -> Row:
    """Add the bytes of the row's start picture as `data`, if it has one."""
    for image in row["inputs"]:
        data = opened.inputs.read(image["key"], image["version"])
        if len(data) > MAX_BYTES:
            raise _bad_value(
                f"the start picture {image['key']} has {len(data)} bytes: at most {MAX_BYTES}; reduce it"
            )
        row |= {"data": data}
    return row


def load(row: Row, job: Job) -> Row:
    """Complete what the row asks for, and add what the model begins with as `tiles`."""
    from imgtx.imageops.canvas import start_canvas
    from imgtx.models.generation import request

    data = row.pop("data", None)
    asked = settings_of(job.spec) | json.loads(row["conditions"])
    try:
        wanted = request(asked, job.info, start_picture=data is not None)
    except UsageError as error:
        raise _bad_value(str(error)) from error
    start = None if data is None else start_picture(data, job.spec)
    canvas = start_canvas(start, wanted.height, wanted.width)
    texts = () if NO_METADATA.of(job.spec) else texts_of(wanted, job)
    row |= {"conditions": json.dumps(wanted.conditions, ensure_ascii=False), "notes": list(wanted.notes)}
    return canvas_row(row, job, canvas, texts=texts)


def start_picture(data: bytes, spec: RunSpec) -> np.ndarray:
    """Decode a start picture: (H, W, 3) uint8, transparency over white. Raises ImageError."""
    import numpy as np

    from imgtx.codecs import decode

    picture = decode(data, max_pixels=int(spec.max_megapixels * 1e6))
    highest = np.iinfo(picture.pixels.dtype).max
    pixels = picture.pixels.astype(np.float32) / highest
    if picture.alpha is not None:
        alpha = picture.alpha[:, :, None].astype(np.float32) / highest
        pixels = pixels * alpha + 1 - alpha
    levels = (pixels * 255 + 0.5).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(levels, (*levels.shape[:2], 3)))


def texts_of(wanted: Request, job: Job) -> tuple[tuple[str, str], ...]:
    """Return what a PNG says of how it was made: keywords and texts, without those that were not asked for."""
    said = {
        **wanted.conditions,
        "strength": wanted.conditions["strength"] or "",
        "size": f"{wanted.width}x{wanted.height}",
        "model": job.info.name,
        "model_digest": job.recipe.model_digest,
    }
    return tuple((name, _as_text(value)) for name, value in said.items() if value != "")


def write_prompts(prompts: Sequence[str]) -> bytes:
    """Return prompts of the command line as a table."""
    return "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts).encode()


def _as_text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _bad_value(message: str) -> ImageError:
    from pipeline.tables.schemas import BAD_VALUE

    return ImageError(BAD_VALUE, f"{message}: correct the table")


TEXT_TO_IMAGE = Task(
    name="text-to-image",
    command="generate",
    summary="Make an image from each prompt of a table.",
    description=(
        "Make an image from each prompt of TABLE, or of -p, into DESTINATION. TABLE is Parquet, CSV, JSON lines, or a "
        "text file with a prompt a line. Its columns: prompt, and where rows differ seed, samples, negative, steps, "
        "guidance, width, height, style, image and strength; others are kept beside the ledger. The same row gives the "
        "same image, whatever runs beside it. The default model is small and makes shapes, colours and emoji of 64 x "
        "64 pixels; the run says which words of the prompts it does not know. Rerun the same command after editing the "
        "table: only rows that are new or changed run."
    ),
    examples=(
        "imgtx generate prompts.csv out/ --samples 4",
        'imgtx generate out/ -p "a red circle above a blue square" -p "a green star" --sheet sheet.png',
        "imgtx generate s3://bucket/prompts.parquet s3://bucket/out/ --key id",
    ),
    digital_source_type="trainedAlgorithmicMedia",
    default_model=default_model,
    options=(
        SEED,
        SAMPLES,
        STEPS,
        GUIDANCE,
        NEGATIVE,
        SIZE,
        STYLE,
        START_PICTURES,
        TABLE_FOLDER,
        STRENGTH,
        KEY,
        PROMPT_COLUMN,
        LORA,
        OFFLOAD,
        VAE_TILES,
        NO_METADATA,
        SHEET,
    ),
    sources=("prompts",),
    source_name="TABLE",
    source_help=(
        "TABLE is a local file or in storage (s3:// or any other URI that fsspec opens), DESTINATION a folder or such "
        "a URI. Images that are up to date are not made again."
    ),
    inline=Inline(
        "prompt",
        "-p",
        "A prompt instead of TABLE; may be repeated.",
        "prompts.jsonl",
        write_prompts,
    ),
    keeps_format=False,
    default_format="png",
    fetch=fetch,
    load=load,
    check=check,
    recipe=recipe,
    refer=refer,
    before_copying=before_copying,
    open_inputs=open_images,
    check_inputs=check_inputs,
    list=list_prompts,
    keep=keep,
    arrange=arrange,
    finish=finish,
    measures={
        "tokens_lost": "tokens of the prompt that the model did not see",
        "words_unknown": "words of the prompt and the negative prompt that the model does not know",
    },
)
