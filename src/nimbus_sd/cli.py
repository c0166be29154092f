"""The command line: a thin layer over the public functions."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from spatialdata import SpatialData

app = typer.Typer(
    help="Which marker is this cell positive for? Nimbus scores for multiplexed tissue images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@contextmanager
def _plain_messages() -> Iterator[None]:
    """Show warnings, log lines and errors a user can act on as one line each; exit with 2 after an error."""
    logger = logging.getLogger("nimbus_sd")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.addFilter(_Once())
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
        except (ValueError, KeyError, TypeError, OSError) as error:
            text = error.args[0] if isinstance(error, KeyError) and error.args else error
            _say(f"Error: {text}", "red")
            raise typer.Exit(2) from error
        finally:
            logger.removeHandler(handler)


class _Once(logging.Filter):
    """Lets each message pass once: a benchmark loads its model for every data set."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        new = record.getMessage() not in self._said
        self._said.add(record.getMessage())
        return new


def _say(text: str, colour: str) -> None:
    typer.secho(" ".join(text.split()), fg=colour, err=True)


class _Steps:
    """Says how long each step took."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def done(self, what: str) -> None:
        now = time.perf_counter()
        typer.echo(f"{what}  [{now - self._start:.1f} s]")
        self._start = now


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


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results; replaced if it holds those of a demo.")] = Path(
        "demo"
    ),
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
) -> None:
    """Score a simulated tissue and compare with its known truth."""
    with _plain_messages():
        _demo(out, progress)


def _demo(out: Path, progress: bool) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import pandas as pd

    import nimbus_sd as ns

    store, picture = out / "example.zarr", out / "example.png"
    # Before all work, so that nobody waits for an error.
    out.mkdir(parents=True, exist_ok=True)
    unknown = sorted(path.name for path in out.iterdir() if path.name not in (store.name, picture.name))
    if unknown:
        raise ValueError(f"{out} holds other files ({', '.join(unknown[:3])}); name a new folder with --out.")
    steps = _Steps()
    sdata = ns.datasets.example()
    steps.done(f"Built the example: {sdata.tables['table'].n_obs} cells in 2 regions, 8 markers, simulated.")
    adata = ns.predict(sdata, progress=progress)
    steps.done("Scored every cell for every marker.")

    scores = ns.metrics.marker_metrics(adata)
    mean = ns.metrics.marker_metrics(adata, "integrated_expression", threshold="otsu")
    table = pd.DataFrame(
        {
            "cells": scores["cells"],
            "share positive": scores["share_positive"].round(3),
            "F1 of scores at 0.5": scores["f1"].round(3),
            "F1 of mean intensity, Otsu": mean["f1"].round(3),
        }
    )
    table.loc["mean"] = table.mean().round(3)
    table["cells"] = table["cells"].astype(int)
    typer.echo("\nAgainst the known truth, undetermined cells left out:\n" + table.to_string() + "\n")

    sdata.write(store, overwrite=True)
    axes = ns.pl.comparison(
        sdata, ["CD3", "CD20", "PanCK", "Ki67"], "fov1_labels", crop=(slice(100, 360), slice(100, 360))
    )
    axes[0, 0].figure.savefig(picture, dpi=110)
    steps.done(f"Wrote {store} (SpatialData) and {picture} (picture).")


@app.command()
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
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
) -> None:
    """Score a store's cells and write the table into it."""
    with _plain_messages():
        if out is not None:
            _check_out(out, (".h5ad", ".csv"), overwrite)
        if not store.exists():
            raise FileNotFoundError(f"There is no {store}.")

        from spatialdata import read_zarr

        import nimbus_sd as ns

        try:
            sdata = read_zarr(store)
        except (ValueError, KeyError, OSError) as error:
            raise ValueError(f"{store} cannot be read as a SpatialData store: {error}") from error
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
            tta=tta,
            device=device,
            progress=progress,
        )
        if out is None:
            _write_table(sdata, table)
            typer.echo(f"Wrote {adata.n_obs} cells x {adata.n_vars} channels to table {table!r} of {store}.")
            return
        if out.suffix == ".h5ad":
            adata.write_h5ad(out)
        else:
            # A channel that is named as a column of obs gets the layer's name behind it.
            adata.obs.join(adata.to_df(layer=key), rsuffix=f"_{key}").to_csv(out)
        typer.echo(f"Wrote {adata.n_obs} cells x {adata.n_vars} channels to {out}.")


def _write_table(sdata: SpatialData, name: str) -> None:
    """Write a table into its store. One that is there goes last: whenever this is stopped, one of them is whole."""
    if f"tables/{name}" not in sdata.elements_paths_on_disk():
        sdata.write_element(name)
        return
    spare = f"{name}_new"
    while spare in sdata:
        spare += "_"
    sdata.tables[spare] = sdata.tables[name]
    sdata.write_element(spare)
    sdata.delete_element_from_disk(name)
    sdata.write_element(name)
    sdata.delete_element_from_disk(spare)


@app.command()
def convert(
    image: Annotated[
        Path, typer.Argument(metavar="IMAGE", help="OME-TIFF, folder of single-channel TIFFs, or folder of those.")
    ],
    mask: Annotated[Path, typer.Argument(metavar="MASK", help="Label TIFF, or folder of them.")],
    out: Annotated[Path, typer.Option(help="SpatialData store to write (.zarr).")],
    pixel_size: Annotated[float | None, typer.Option(help="um per pixel, where the file does not say.")] = None,
    channels: Annotated[
        list[str] | None, typer.Option("--channel", metavar="NAME", help="Name of a channel; repeat for all of them.")
    ] = None,
    mask_pattern: Annotated[str | None, typer.Option(help='Which mask is whose, e.g. "{fov}_whole_cell.tiff".')] = None,
) -> None:
    """Turn images and masks into a SpatialData store."""
    with _plain_messages():
        import nimbus_sd as ns

        if out.exists():
            raise FileExistsError(f"{out} exists already; name a new store.")
        sdata = ns.io.read_fovs(image, mask, pixel_size=pixel_size, channels=channels, mask_pattern=mask_pattern)
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        # Pixels are read while they are written, and a damaged file must not leave half a store behind.
        with TemporaryDirectory(prefix=".nimbus-sd-", dir=out.absolute().parent) as folder:
            sdata.write(Path(folder) / out.name)
            (Path(folder) / out.name).rename(out)
        typer.echo(f"Wrote {len(sdata.images)} image(s) and {len(sdata.labels)} mask(s) to {out}.")


@app.command()
def benchmark(
    model: Annotated[str, typer.Option(help="compact, nimbus, or a .safetensors or .pt file.")] = "compact",
    dataset: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Data set, such as mibi_breast; repeat. All by default.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the table to this .csv, too.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the file of --out.")] = False,
    folder: Annotated[
        Path | None, typer.Option(help="The gold standard, placed by hand: the zip, or the folder it unpacks to.")
    ] = None,
    pixel_size: Annotated[float, typer.Option(help="um per pixel, taken for that of all images.")] = 0.5,
    likely: Annotated[bool, typer.Option(help="Count labels that only lean to one side, too.")] = False,
    tta: Annotated[bool | None, typer.Option(help="Average eight views. As the model's card says by default.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
) -> None:
    """Score the gold standard of the paper and print the figures beside the published ones."""
    with _plain_messages():
        if out is not None:
            _check_out(out, (".csv",), overwrite)

        from nimbus_sd._benchmark import benchmark as run

        table = run(
            model,
            dataset,
            folder=folder,
            pixel_size=pixel_size,
            likely=likely,
            tta=tta,
            device=device,
            progress=progress,
        )
        n = len(table) - 2
        typer.echo(
            f"Scores of {model} of at least 0.5 against labels by hand, those that only lean to one side "
            f"{'counted' if likely else 'left out'}; {n} data set{'s' if n > 1 else ''}, pixels taken for "
            f"{pixel_size:g} um. Published: mean of the five data sets.\n"
        )
        typer.echo(table.astype(object).where(table.notna(), "").to_string(float_format="{:.3f}".format))
        if out is not None:
            table.columns = [f"{metric} ({way})" if way else metric for way, metric in table.columns]
            table.to_csv(out, index_label="dataset")
            typer.echo(f"\nWrote {out}.")


def _check_out(out: Path, endings: tuple[str, ...], overwrite: bool) -> None:
    """Before all work, so that nobody waits for an error."""
    if out.suffix not in endings:
        raise ValueError(f"--out {out} must end in {' or '.join(endings)}.")
    if not out.absolute().parent.is_dir():
        raise FileNotFoundError(f"There is no folder {out.parent} to write {out.name} into.")
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} exists already; pass --overwrite to replace it, or name another file.")
