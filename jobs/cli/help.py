"""How a group of commands lists them in its help."""

from typing import Any

import click


class OrderedGroup(click.Group):
    """A group that lists its commands in the order in which they were added, in sections, with uncut summaries."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.sections: dict[str, list[str]] = {}

    def add_section(self, title: str, *commands: click.Command) -> None:
        """Add commands under a heading of their own."""
        for command in commands:
            self.add_command(command)
            self.sections.setdefault(title, []).append(str(command.name))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in (self.sections or {"Commands": self.list_commands(ctx)}).items():
            with formatter.section(title):
                formatter.write_dl([(name, _summary(self.commands[name])) for name in names])


def _summary(command: click.Command) -> str:
    return command.get_short_help_str(limit=1000)
