"""What the commands of every group share."""

import click
from rich.console import Console

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Machine-readable output, one JSON document a line."
)

endpoint_option = click.option("--endpoint-url", metavar="URL", help="An S3 server other than AWS.")


def console() -> Console:
    """A terminal as wide as it is; what is no terminal gets tables that are not squeezed."""
    console = Console()
    return console if console.is_terminal else Console(width=160)
