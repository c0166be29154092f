"""``nimbus-sd report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nimbus_sd.cli._files import check_out, read_store
from nimbus_sd.cli._messages import plain_messages, say


def report(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="SpatialData store (.zarr) with scores.")],
    out: Annotated[Path, typer.Option(help="File to write (.html); nothing else is needed to open it.")],
    layer: Annotated[str, typer.Option(help="Name of the layer of scores.")] = "nimbus",
    table: Annotated[
        str, typer.Option("--table-key", "--table", metavar="NAME", help="Name of the table in the store.")
    ] = "table",
    overwrite: Annotated[bool, typer.Option(help="Replace the file of --out.")] = False,
) -> None:
    """Write a run's markers, distributions, examples and provenance into one HTML file."""
    with plain_messages():
        check_out(out, (".html",), overwrite)

        import matplotlib

        matplotlib.use("Agg")

        import nimbus_sd as ns

        sdata = read_store(store)
        if table not in sdata.tables:
            known = ", ".join(map(repr, sdata.tables)) or "none"
            raise KeyError(
                f"{store} has no table {table!r}; there is: {known}. Pass its name with --table-key, or run "
                f"`nimbus-sd predict` first."
            )
        path = ns.pl.report(sdata.tables[table], out, sdata, layer=layer)
        say(f"Wrote {path}.")
