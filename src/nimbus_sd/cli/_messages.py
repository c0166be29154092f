"""What a user reads: one line for each message, and how long each step took."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from nimbus_sd._text import plain


@contextmanager
def plain_messages() -> Iterator[None]:
    """Show warnings, log lines and errors a user can act on as one line each.

    Exit with 2 after an error, with 130 after Ctrl-C.
    """
    logger = logging.getLogger("nimbus_sd")
    handler = _Once()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    # The reader of zarr stores logs harmless lines about labels without a parent image.
    logging.getLogger("ome_zarr").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", category=UserWarning, module=r"nimbus_sd\b")
        warnings.showwarning = lambda message, *_, **__: _say(f"Warning: {message}", "yellow")
        try:
            yield
        except (ValueError, KeyError, TypeError, OSError, MemoryError) as error:
            text = error.args[0] if isinstance(error, KeyError) and error.args else error
            _say(" ".join([f"Error: {text}", *getattr(error, "__notes__", [])]), "red")
            raise typer.Exit(2) from error
        except KeyboardInterrupt as stop:
            _say(str(stop) or "Stopped.", "yellow")
            raise typer.Exit(130) from stop
        finally:
            logger.removeHandler(handler)


class _Once(logging.Handler):
    """Says each message once: a benchmark loads its model for every data set."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if (text := record.getMessage()) not in self._said:
            self._said.add(text)
            _say(text)


def _say(text: str, colour: str | None = None) -> None:
    typer.secho(plain(" ".join(text.split())), fg=colour, err=True)


def say(text: str) -> None:
    """Print what a command has done."""
    typer.echo(plain(text))


class Steps:
    """Says how long each step took."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def done(self, what: str) -> None:
        now = time.perf_counter()
        say(f"{what}  [{now - self._start:.1f} s]")
        self._start = now
