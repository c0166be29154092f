"""The command that the others belong to."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    help="Which marker is this cell positive for? Nimbus scores for multiplexed tissue images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        import nimbus_sd as ns

        typer.echo(ns.__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Take the options that belong to no command."""
