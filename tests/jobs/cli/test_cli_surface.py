"""The command line is a promise: its surface is frozen in cli_surface.txt, has help and stands in the README.

After a change on purpose: `python -m tests.unit.test_cli_surface`, and look at the difference.
"""

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from jobs.cli import main
from tests.unit.source_tree import ROOT

FROZEN = Path(__file__).with_name("cli_surface.txt")


def commands(group: click.Group, name: str = "imgtx") -> Iterator[tuple[str, click.Command]]:
    """Every command below `group` with its full name, in alphabetical order."""
    for word, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


def surface() -> str:
    """Commands, arguments, options and their types; not the wording of the help."""
    lines = []
    for name, command in commands(main):
        arguments = [p for p in command.params if isinstance(p, click.Argument)]
        lines.append(
            " ".join([name, *(argument.make_metavar(click.Context(command)) for argument in arguments)])
        )
        options = [p for p in command.params if isinstance(p, click.Option)]
        lines += sorted(f"    {_option(option)}" for option in options)
    return "\n".join(lines) + "\n"


def _option(option: click.Option) -> str:
    names = ", ".join([*option.opts, *option.secondary_opts])
    kind = "" if option.is_flag else f" {option.type.name}"
    return names + kind + (" (required)" if option.required else "") + (" ..." if option.multiple else "")


COMMANDS = dict(commands(main))


def test_the_surface_is_frozen():
    assert surface() == FROZEN.read_text(encoding="utf-8"), (
        "the command line changed; if on purpose: python -m tests.unit.test_cli_surface, and a CHANGELOG line"
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help(name):
    command = COMMANDS[name]
    assert command.help, f"{name} has no help"
    assert not command.hidden
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"{name} {option.opts[0]} has no help"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_stands_in_the_readme(name):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert name in readme, f"README.md does not show {name}"


@pytest.mark.parametrize("name", COMMANDS)
def test_one_option_means_one_thing_everywhere(name):
    for option in COMMANDS[name].params:
        for other in COMMANDS.values():
            for twin in other.params:
                if isinstance(option, click.Option) and option.opts == twin.opts:
                    assert option.type.name == twin.type.name, (
                        f"{option.opts[0]} of {name} and of {other.name}"
                    )


if __name__ == "__main__":
    FROZEN.write_text(surface(), encoding="utf-8")
