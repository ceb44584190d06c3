"""Interrupt the main thread from another one, as Ctrl-C does."""

import _thread
import signal


def interrupt_main() -> None:
    """Raise KeyboardInterrupt in the main thread, also where Ctrl-C is ignored, as in background jobs of a shell."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # A signal without a handler of Python is not noticed.
        if callable(signal.getsignal(number)):
            _thread.interrupt_main(number)
            return
