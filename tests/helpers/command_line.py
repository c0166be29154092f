"""Running commands in this process."""

from __future__ import annotations

from collections.abc import Callable

from typer.testing import CliRunner

from nimbus_sd.cli import app


def call(*arguments: object) -> tuple[int, str, str]:
    """Run a command; its exit code, output and messages."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def done(*arguments: object) -> tuple[str, str]:
    """Run a command that must succeed; its output and messages."""
    code, out, messages = call(*arguments)
    assert code == 0, messages
    return out, messages


def refused(*arguments: object) -> str:
    """Run a command that must end with 2 and one line, but for the model's; that line."""
    code, out, messages = call(*arguments)
    assert (code, out) == (2, ""), messages
    (error,) = (line for line in messages.splitlines() if not line.startswith("Model "))
    assert error.startswith("Error: "), messages
    return error


def raising(error: BaseException) -> Callable[..., None]:
    """Make a function that fails, to be put in place of another."""

    def function(*_: object, **__: object) -> None:
        raise error

    return function
