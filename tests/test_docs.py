"""The documentation: links resolve, commands exist, specs are valid, and generated pages are current."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import MISSING, fields
from functools import cache

import click
import pytest

from docs import generate
from imgtx.codecs import NOTES
from jobs.cli import main
from pipeline.spec import RunSpec
from pipeline.tables.schemas import REASONS
from pipeline.tasks import options_of
from tests.support.manifests import misread
from tests.support.source_tree import ROOT, files

PAGES = [path for path in files() if path.endswith(".md")]
# These quote earlier commands.
HISTORY = ("CHANGELOG.md", "LOG.md")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


@cache
def text_of(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def prose_of(path: str) -> str:
    """Return a page without its code blocks."""
    return FENCE.sub("", text_of(path))


def anchors(path: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose_of(path), re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("path", PAGES)
def test_relative_links_resolve(path: str):
    for link in LINK.findall(prose_of(path)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / path).parent.joinpath(name).resolve() if name else ROOT / path
        assert target.exists(), f"{path} links to {link}"
        assert target.is_relative_to(ROOT), f"{path} links out of the repository: {link}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target.relative_to(ROOT).as_posix()), f"{path} links to {link}"


def commands_in_blocks(path: str) -> Iterator[str]:
    for language, block in FENCE.findall(text_of(path)):
        # A diagram, or the general form of a command.
        if language == "text":
            continue
        yield from re.findall(
            r"^(?:\$ |\.venv/bin/)?(imgtx (?=\S)(?:[^|#&<>\n]|(?<=')#)*)", block, re.MULTILINE
        )


@pytest.mark.parametrize("path", [p for p in PAGES if p not in HISTORY])
def test_commands_in_code_blocks_are_valid(path: str):
    for line in commands_in_blocks(path):
        assert misread(shlex.split(line)) == "", line


@pytest.mark.parametrize("path", [p for p in PAGES if p not in HISTORY])
def test_commands_in_the_text_exist(path: str):
    for span in re.findall(r"`imgtx ([^`\n]+)`", prose_of(path)):
        command: click.Command = main
        words = span.split()
        while isinstance(command, click.Group) and words and re.fullmatch(r"[a-z]+", words[0]):
            name = words.pop(0)
            assert name in command.commands, f"{path}: imgtx {span}"
            command = command.commands[name]
        # The rest is another command.
        if "--" in words:
            words = words[: words.index("--")]
        known = {option for parameter in command.params for option in parameter.opts} | {
            "--help",
            "--version",
        }
        given = {word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)}
        assert given <= known, f"{path}: imgtx {span}"


@pytest.mark.parametrize("path", [p for p in PAGES if p not in HISTORY])
def test_files_named_in_the_text_exist(path: str):
    for name in re.findall(r"`((?:imgtx|pipeline|jobs|tests|bench|infra|docs)/[\w./-]+)`", prose_of(path)):
        # The placeholder of pages that describe adding a file.
        if "yours" not in name:
            assert (ROOT / name).exists(), f"{path} names {name}"


def test_generated_pages_are_current():
    assert generate.outdated() == [], "run `make docs`"


def test_the_page_of_odd_files_has_its_generated_tables():
    text = text_of("docs/files.md")
    assert [match[1] for match in generate.TABLE.findall(text)] == ["read", "written", "reasons", "notes"]
    assert {f"`{name}`" for name in ("multi_page", "truncated", "not_an_image")} <= {
        line.split(" ")[1] for line in generate.file_reasons().splitlines()
    }
    with pytest.raises(KeyError, match="unknown"):
        generate.files_page("<!-- generated: unknown -->\n<!-- end -->")


def test_odd_files_name_notes_and_reasons_that_exist():
    named, notes = set[str](), False
    for line in (ROOT / "docs/files.md").read_text().splitlines():
        last = line.split(" | ")[-1]
        if line.startswith("|---"):
            continue
        # A table's first line says whether its last column names notes or reasons.
        notes = line.startswith("|") and (notes or last in ("note |", "reason |", "note or reason |"))
        named |= set(re.findall(r"`([a-z0-9_>-]+)`", last)) if notes else set()
    # Every conversion and every loss has a row that says of which files.
    assert NOTES.keys() <= named <= NOTES.keys() | REASONS.keys()
    assert named >= {"multi_page", "which_picture", "animated", "truncated", "corrupt", "unsafe_key"}


def test_every_generated_row_has_a_description():
    for name, text in generate.pages().items():
        empty = [
            line
            for line in text.splitlines()
            if re.match(r"\| `[^|]*\|.*\|  \|$", line) and "---" not in line
        ]
        # The last column of the ledger's reasons is often empty.
        if name != "ledger.md":
            assert empty == [], name


def test_the_run_spec_in_jobs_has_every_setting_with_its_default():
    text = (ROOT / "jobs/specs/upscale.toml").read_text(encoding="utf-8")
    given = tomllib.loads(text)
    own = {option.name for option in options_of("upscale")}
    unset = set(re.findall(r"^# (\w+) = ", text, re.MULTILINE))
    defaults = {f.name: f.default for f in fields(RunSpec) if f.default is not MISSING}
    # What the command sets.
    del defaults["task"], defaults["source_glob"]
    assert {name: value for name, value in defaults.items() if value is not None} == given
    assert {name for name, value in defaults.items() if value is None} == unset - own
