"""``nimbus-sd predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from nimbus_sd._disk import replacing
from nimbus_sd.cli._files import check_out, check_store, read_factors, read_store
from nimbus_sd.cli._messages import plain_messages, say


def predict(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="SpatialData store (.zarr).")],
    image: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Image; repeat for many regions.")] = None,
    labels: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Cell labels; repeat for many regions.")
    ] = None,
    channel: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Channel to score; repeat. All by default.")
    ] = None,
    model: Annotated[str, typer.Option(help="compact, nimbus, or a .safetensors or .pt file.")] = "compact",
    pixel_size: Annotated[float | None, typer.Option(help="um per image pixel.")] = None,
    normalization: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Factors to divide by: columns channel, factor. Measured by default."),
    ] = None,
    tta: Annotated[bool | None, typer.Option(help="Average eight views. As the model's card says by default.")] = None,
    table: Annotated[str, typer.Option(help="Name of the table in the store.")] = "table",
    key: Annotated[str, typer.Option(help="Name of the layer of scores.")] = "nimbus",
    out: Annotated[
        Path | None, typer.Option(help="Write the table to this .h5ad or .csv and leave the store alone.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option(help="Add the scores to a table that the store has already, or replace the file of --out.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"], typer.Option(help="bfloat16 is faster where the hardware has it.")
    ] = "auto",
    tile_size: Annotated[
        int | None, typer.Option(help="Side of a tile in model pixels; smaller ones take less memory.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images that pass the network at once.")] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Keep finished tiles here: the same command goes on after any stop."),
    ] = None,
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
) -> None:
    """Score a store's cells and write the table into it."""
    with plain_messages():
        if out is not None:
            check_out(out, (".h5ad", ".csv"), overwrite)
        else:
            check_store(store, table)

        factors = None if normalization is None else read_factors(normalization)

        import nimbus_sd as ns
        from nimbus_sd._text import without_formulas
        from nimbus_sd.io import restore

        # A table that this command put in its place before it was killed is not somebody else's.
        overwrite |= out is None and table in restore(store)
        sdata = read_store(store)
        if out is None and table in sdata.tables and not overwrite:
            raise ValueError(
                f"{store} has a table {table!r} already. Pass --overwrite to add the scores to it, --table for "
                "another name, or --out for a file of its own."
            )
        adata = ns.predict(
            sdata,
            image,
            labels,
            table_key=table,
            key_added=key,
            model=model,
            channels=channel,
            pixel_size=pixel_size,
            normalization=factors,
            tta=tta,
            precision=precision,
            tile_size=tile_size,
            batch_size=batch_size,
            device=device,
            checkpoint=checkpoint,
            progress=progress,
        )
        if out is None:
            ns.io.save_table(sdata, table, overwrite=overwrite)
            say(f"Wrote {adata.n_obs} cells x {adata.n_vars} channels to table {table!r} of {store}.")
            return
        with replacing(out) as (file,):
            if out.suffix == ".h5ad":
                adata.write_h5ad(file)
            else:
                # A channel that is named as a column of obs gets the layer's name behind it.
                without_formulas(adata.obs.join(adata.to_df(layer=key), rsuffix=f"_{key}")).to_csv(file)
        say(f"Wrote {adata.n_obs} cells x {adata.n_vars} channels to {out}.")
