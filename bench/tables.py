"""Write the tables of docs/ that are measured by `make bench`, from the JSON under bench/results/.

    python -m bench.tables [--check]

Each stands between two comments that name it and is replaced as a whole. --check: exit code 1 where a page differs.
"""

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench.quality_tables import (
    archive_table,
    fitted_styles_table,
    inpainting_table,
    restoration_table,
    style_table,
    super_resolution_table,
)
from bench.report import FOLDER, Line, read, stamp

RESULTS = FOLDER / "results"
DOCS = FOLDER.parent / "docs"
PAGE = DOCS / "benchmarks.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    before = {page: page.read_text() for page in TABLES}
    for page, text in pages_with_tables(write=not options.check).items():
        if text != before[page]:
            if options.check:
                raise SystemExit(f"{page.name} is not what bench/results/ says: run python -m bench.tables")
            print(f"wrote {page.relative_to(FOLDER.parent)}")


def pages_with_tables(*, write: bool = False) -> dict[Path, str]:
    """Return each page with its tables as the results are now, and write them if asked to.

    A table is replaced once what it shows was measured; until then it is as it was written by hand.
    """
    pages = {}
    for page, tables in TABLES.items():
        text = page.read_text()
        for name, make in tables.items():
            place = re.search(rf"<!-- {name}: [^>]* -->\n.*?<!-- end of {name} -->", text, re.DOTALL)
            if place is None:
                raise SystemExit(
                    f"{page.name} has no place for a table: <!-- {name}: ... --> <!-- end of {name} -->"
                )
            lines = make(RESULTS)
            if len(lines) > 1:
                made = f"<!-- {name}: written by make bench -->\n\n{markdown(lines)}\n<!-- end of {name} -->"
                text = f"{text[: place.start()]}{made}{text[place.end() :]}"
        if write:
            page.write_text(text)
        pages[page] = text
    return pages


def markdown(lines: Sequence[Line]) -> str:
    head, *rows = lines
    return "".join("| " + " | ".join(line) + " |\n" for line in (head, ("---",) * len(head), *rows))


def text_of(lines: Sequence[Line]) -> str:
    """Return the table for a terminal."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def efficiency_table(folder: Path) -> list[Line]:
    lines: list[Line] = [
        ("work", "engine", "bare loop, CPU s", "imgtx", "share", "without start-up", "target", "commit")
    ]
    for found in read(folder, ("efficiency_1mp", "efficiency_10mp", "efficiency_60mp", "demo")):
        work = f"{found['megapixels']:.1f} MP, {found['images']} images, {found['model']}"
        target = f"{found['target']:g}" if "target" in found else ""
        lines += [
            (
                work,
                row["engine"],
                f"{found['bare']:.1f}",
                f"{row['cpu']:.1f}",
                f"**{row['share']:.2f}**",
                f"{row['after_start_up']:.2f}",
                target,
                stamp(found),
            )
            for row in found["rows"]
        ]
    return lines


# Names of what is measured in `bench.small_files`.
PEERS = {
    "bare pool": "process pool, as durable",
    "local": "imgtx, local engine",
    "ray": "imgtx on Ray",
    "naive": "the script of Ray's documentation",
    "vips": "libvips, pixels doubled",
    "img2dataset": "img2dataset's resizer",
}


def small_files_table(folder: Path) -> list[Line]:
    lines: list[Line] = [
        ("model", "by", "ms a file", "start-up, s", "all, s", "pool / this, a file", "target", "commit")
    ]
    for found in read(folder, ("small_files_free", "small_files_smallest", "small_files_sr-x2")):
        lines += [
            (
                f"{found['model']}, {found['files']} files",
                PEERS[row["by"]],
                f"{row['ms_a_file']:.1f}",
                f"{row['start_up']:.1f}",
                f"{row['cpu']:.1f}",
                f"{row['ratio']:.2f}",
                f"{row['target']:g}" if "target" in row else "",
                stamp(found),
            )
            for row in found["rows"]
        ]
    return lines


def memory_table(folder: Path) -> list[Line]:
    lines: list[Line] = [
        ("image", "model", "engine", "largest process", "limit", "all processes together", "commit")
    ]
    for found in read(folder, ("memory_local", "memory_ray")):
        width, height = found["image"]
        largest = max(peak["rss"] for peak in found["peak_mb"].values())
        tiles = found["computed_tiles"]
        lines.append(
            (
                f"{width:,} x {height:,}",
                found["model"] + ("" if tiles == "all" else f", {tiles} tiles"),
                found["engine"],
                f"**{largest / 1000:.2f} GB**",
                f"{found['limit_mb'] / 1000:g} GB",
                f"{found['sum_pss_mb'] / 1000:.2f} GB",
                stamp(found),
            )
        )
    return lines


def speed_table(folder: Path) -> list[Line]:
    lines: list[Line] = [("what", "measured", "target", "command", "commit")]
    for name, rows in SPEED.items():
        for found in read(folder, (name,)):
            command = found.get("command") or f"python -m bench.{name}"
            lines += [(*row, f"`{command}`", stamp(found)) for row in rows(found)]
    return lines


def _startup(found: dict) -> Iterator[Line]:
    for command, seconds in found["cpu_seconds"].items():
        limit = found.get("targets", {}).get(command)
        target = f"under {limit:g}" if limit else ""
        yield f"CPU seconds of all processes: {command}", f"{seconds:.2f}", target


def _model_speed(found: dict) -> Iterator[Line]:
    for row in found["seconds_per_megapixel"]:
        own = f"sr-x{row['scale']}"
        times = f"{row['ratio']:.1f} times; " if "ratio" in row else ""
        what = f"SwinIR-light / {own}, an input megapixel, {row['precision']}" if times else own
        yield what, f"{times}{own} {row[own]:.1f} CPU s", "8 times" if row["scale"] == 2 else ""


def _restore_speed(found: dict) -> Iterator[Line]:
    for row in found["rows"]:
        if row["network"] != "sr-x2":
            own = row["network"] in ("restore", "inpaint")
            target = f"at most {found['limit']:g}" if own else ""
            what = f"{row['network']} / sr-x2, an input megapixel, {row['precision']}"
            yield what, f"{row['times_sr_x2']:.2f}", target


def _adapter_overhead(found: dict) -> Iterator[Line]:
    for row in found["rows"]:
        yield (
            f"adapter over the network itself: {row['network']}",
            f"{row['adapter_percent']:+.1f} %",
            "under 3 %",
        )


def _codecs(found: dict) -> Iterator[Line]:
    beside = {"encode": "Pillow level 6", "decode": "Pillow"}
    for direction, other in beside.items():
        rows = {
            row["by"]: row["ms"]
            for row in found["rows"]
            if row["codec"] == "PNG" and row["direction"] == direction and row["side"] == 2048
        }
        yield (
            f"{direction} PNG, 2048 x 2048, CPU ms: imgtx; {other}",
            f"{rows['imgtx']:.0f}; {rows[other]:.0f}",
            "",
        )


def _plan_million(found: dict) -> Iterator[Line]:
    for row in found["rows"]:
        if row["step"] != "start-up alone":
            target = "60 s, 2 GB" if row["step"].startswith("plan") and found["keys"] == 1_000_000 else ""
            what = f"{found['keys']:,} keys: {row['step']}"
            yield what, f"{row['cpu_seconds']:.0f} CPU s, {row['megabytes'] / 1000:.2f} GB", target


def _list_s3(found: dict) -> Iterator[Line]:
    for row in found["rows"]:
        what = (
            f"list {found['keys']:,} keys of S3 at {found['latency'] * 1000:.0f} ms a page, {row['listing']}"
        )
        yield what, f"{row['seconds']:.1f} s", ""


def _slow_down(found: dict) -> Iterator[Line]:
    for row in found["rows"]:
        shape = f"{row['processes']} process{'es' * (row['processes'] > 1)} x {row['at_once']} at once, {row['pacing']}"
        yield f"SlowDown at {found['rate']:g} requests a second: {shape}", f"{row['refused']} refusals", ""


def _style_speed(found: dict) -> Iterator[Line]:
    for row in found["rows"]:
        if row["network"] != "sr-x2":
            target = f"at most {found['limit']:g}" if row["network"].startswith("style") else ""
            what = f"{row['network']} / sr-x2, an input megapixel, {row['precision']}"
            yield what, f"{row['times_sr_x2']:.2f}", target


def _adapter_compile(found: dict) -> Iterator[Line]:
    for row in found["rows"]:
        times = (row[f"{how}seconds_per_megapixel"] for how in ("eager_", ""))
        what = f"{row['network']}, CPU s an input megapixel: as it is; compiled; compiling pays from"
        yield what, f"{'; '.join(f'{s:.1f}' for s in times)}; {row['pays_from_megapixels']:.1f} MP", ""


def _generate_speed(found: dict) -> Iterator[Line]:
    bare, run = (found[f"{name}_cpu_seconds_per_image"] for name in ("bare", "run"))
    what = f"{found['model']}, images of 64 x 64, batches of {found['batch']}"
    yield f"{what}, per CPU second: bare sampler; run", f"{1 / bare:.1f}; {1 / run:.1f}", ""
    yield f"{what}: bare sampler / run, CPU time", f"{found['share_by_cpu_seconds']:.2f}", "0.9"


def _training_feed(found: dict) -> Iterator[Line]:
    for key, epoch in (("first_epoch_ratio", "first epoch"), ("later_ratio", "later")):
        yield f"training fed from memory / by the stream, CPU time, {epoch}", f"{found[key]:.2f}", "0.9"


def sampler_steps_table(folder: Path) -> list[Line]:
    """How far the pictures of few steps are from those of many, what is right in them, and what they cost."""
    shown = ("levels of 255 from 50 Heun steps", "attributes right", "all right", "CPU s an image")
    lines: list[Line] = [("sampler", "evaluations", *shown)]
    for found in read(folder, ("sampler_steps",)):
        for row in found["rows"]:
            values = (
                str(row["evaluations"]),
                f"{row['levels_from_reference']:.1f}",
                f"{row['attributes']:.1f} %",
                f"{row['everything']:.1f} %",
                f"{row['cpu_seconds_per_image']:.2f}",
            )
            default = row["sampler"] != "Heun" and row["evaluations"] == found["default_steps"]
            lines.append((row["sampler"], *(f"**{value}**" if default else value for value in values)))
    return lines


SPEED: dict[str, Callable[[dict], Iterator[Line]]] = {
    "startup": _startup,
    "model_speed": _model_speed,
    "restore_speed": _restore_speed,
    "adapter_overhead": _adapter_overhead,
    "codecs": _codecs,
    "adapter_compile": _adapter_compile,
    "style_speed": _style_speed,
    "plan_million": _plan_million,
    "plan_four_million": _plan_million,
    "list_s3": _list_s3,
    "slow_down": _slow_down,
    "training_feed": _training_feed,
    "generate_speed": _generate_speed,
}
# By page and by the name of the table there.
TABLES: dict[Path, dict[str, Callable[[Path], list[Line]]]] = {
    PAGE: {
        "super-resolution": super_resolution_table,
        "archive damage": archive_table,
        "restoration": restoration_table,
        "inpainting": inpainting_table,
        "style transfer": style_table,
        "fitted styles": fitted_styles_table,
        "efficiency": efficiency_table,
        "small files": small_files_table,
        "memory": memory_table,
        "speed": speed_table,
    },
    DOCS / "guides" / "generate.md": {"sampler steps": sampler_steps_table},
}


if __name__ == "__main__":
    main()
