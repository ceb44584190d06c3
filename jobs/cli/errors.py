"""How a command ends: the one place where an exception becomes a line on stderr and an exit code."""

import json
import tempfile
import traceback
from functools import partial
from typing import Any, NoReturn

import click

from imgtx.errors import (
    BUG,
    EXIT_CODES,
    FAILURES,
    INTERRUPTED,
    UNREACHABLE,
    USAGE,
    ClusterError,
    ImgtxError,
    LeaseHeldError,
    ModelError,
    RunInterruptedError,
    StorageError,
    UsageError,
)
from imgtx.printable import printable
from jobs.cli.help import OrderedGroup

EPILOG = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + "."

# Where a context notes whether `--json` was given.
JSON = "imgtx.json"
# Storage errors that the user can correct; after any other the same command may succeed later.
CORRECTABLE = ("not_found", "forbidden", "credentials")


class Commands(OrderedGroup):
    """A group whose commands end every known error in one line and an exit code, and report any other as a bug.

    Where `--json` was given, standard output gets the error too, as a document.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # An error in a command's arguments comes before any option of it has a value.
        ctx.meta[JSON] = "--json" in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        as_json = ctx.meta[JSON]
        stop = partial(end, as_json=as_json)
        try:
            return super().invoke(ctx)
        except (UsageError, ModelError, LeaseHeldError) as error:
            stop(str(error), USAGE)
        except ClusterError as error:
            stop(str(error), UNREACHABLE)
        except StorageError as error:
            again = "; nothing is lost, run the same command again" if error.transient else ""
            stop(f"{error}{again}", USAGE if error.reason in CORRECTABLE else FAILURES)
        except KeyboardInterrupt:
            stop("interrupted; the same command continues where it stopped", INTERRUPTED)
        except RunInterruptedError as error:
            stop(str(error), INTERRUPTED)
        except ImgtxError as error:
            stop(str(error), FAILURES)
        except click.ClickException as error:
            if as_json:
                click.echo(json.dumps({"error": error.format_message(), "exit_code": error.exit_code}))
            raise
        except (click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            with tempfile.NamedTemporaryFile("w", prefix="imgtx-bug-", suffix=".txt", delete=False) as file:
                file.write(traceback.format_exc())
            stop(f"a bug in imgtx: {type(error).__name__}: {error}; its traceback is in {file.name}", BUG)


def end(message: str, code: int, *, as_json: bool) -> NoReturn:
    """End the command with a line on stderr and an exit code; as_json: with a document on stdout too."""
    click.echo(f"imgtx: {printable(message)}", err=True)
    if as_json:
        click.echo(json.dumps({"error": message, "exit_code": code}))
    raise click.exceptions.Exit(code)
