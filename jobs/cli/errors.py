"""How a command ends: the one place where an exception becomes a line on stderr and an exit code."""

import tempfile
import traceback
from typing import Any, NoReturn

import click

from imgtx.errors import (
    BUG,
    EXIT_CODES,
    FAILURES,
    INTERRUPTED,
    USAGE,
    ImgtxError,
    LeaseHeldError,
    ModelError,
    RunInterruptedError,
    StorageError,
    UsageError,
)
from jobs.cli.help import OrderedGroup

EPILOG = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + "."

# Storage errors that the user can correct; after any other the same command may succeed later.
CORRECTABLE = ("not_found", "forbidden", "credentials")


class Commands(OrderedGroup):
    """A group whose commands end every known error in one line and an exit code, and report any other as a bug."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (UsageError, ModelError, LeaseHeldError) as error:
            stop(str(error), USAGE)
        except StorageError as error:
            again = "; nothing is lost, run the same command again" if error.transient else ""
            stop(f"{error}{again}", USAGE if error.reason in CORRECTABLE else FAILURES)
        except KeyboardInterrupt:
            stop("interrupted; the same command continues where it stopped", INTERRUPTED)
        except RunInterruptedError as error:
            stop(str(error), INTERRUPTED)
        except ImgtxError as error:
            stop(str(error), FAILURES)
        except (click.exceptions.Exit, click.ClickException, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            with tempfile.NamedTemporaryFile("w", prefix="imgtx-bug-", suffix=".txt", delete=False) as file:
                file.write(traceback.format_exc())
            stop(f"a bug in imgtx: {type(error).__name__}: {error}; its traceback is in {file.name}", BUG)


def stop(message: str, code: int) -> NoReturn:
    """End the command with a line on stderr and an exit code."""
    click.echo(f"imgtx: {message}", err=True)
    raise click.exceptions.Exit(code)
