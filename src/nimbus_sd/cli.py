"""The command line: a thin layer over the public functions."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Argument, Option

from nimbus_sd._disk import UNFINISHED, put_folder, replacing
from nimbus_sd._text import as_number, plain

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData

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


Version = Annotated[bool, Option(callback=_print_version, is_eager=True, help="Print the version and stop.")]
Store = Annotated[Path, Argument(metavar="STORE", help="SpatialData store (.zarr).")]
Model = Annotated[str, Option(help="compact, nimbus, or a .safetensors or .pt file.")]
Views = Annotated[bool | None, Option(help="Average eight views. As the model's card says by default.")]
Device = Annotated[str, Option(help="auto, cpu, cuda, mps.")]
Progress = Annotated[bool, Option(help="Show progress bars.")]
Replace = Annotated[bool, Option(help="Replace the file of --out.")]
Names = list[str] | None
Precision = Literal["auto", "float32", "bfloat16"]


class _OnceHandler(logging.Handler):
    """Shows each message once: a benchmark loads its model for every data set."""

    def __init__(self) -> None:
        super().__init__()
        self._say_once = cache(_say_line)

    def emit(self, record: logging.LogRecord) -> None:
        self._say_once(record.getMessage())


@contextmanager
def _plain_messages() -> Iterator[None]:
    """Show warnings, log lines and errors that a user can act on as one line each.

    Exit with 2 after an error, with 130 after Ctrl-C.
    """
    logger, handler = logging.getLogger("nimbus_sd"), _OnceHandler()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    # The reader of zarr stores logs harmless lines about labels without a parent image.
    logging.getLogger("ome_zarr").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", category=UserWarning, module=r"nimbus_sd\b")
        warnings.showwarning = lambda message, *_, **__: _say_line(f"Warning: {message}", "yellow")
        try:
            yield
        except (ValueError, KeyError, TypeError, OSError, MemoryError, ImportError) as error:
            text = error.args[0] if isinstance(error, KeyError) and error.args else error
            _say_line(" ".join([f"Error: {text}", *getattr(error, "__notes__", [])]), "red")
            raise typer.Exit(2) from error
        except KeyboardInterrupt as stop:
            _say_line(str(stop) or "Stopped.", "yellow")
            raise typer.Exit(130) from stop
        finally:
            logger.removeHandler(handler)


@app.callback()
def main(version: Version = False) -> None:
    """Take the options that belong to no command."""


@app.command()
@_plain_messages()
def demo(
    out: Annotated[Path, Option(help="Folder for the results; those of an older demo are replaced.")] = Path("demo"),
    progress: Progress = True,
) -> None:
    """Score a simulated tissue and compare with its known truth."""
    import matplotlib

    matplotlib.use("Agg")
    import pandas as pd

    import nimbus_sd as ns

    store, picture = out / "example.zarr", out / "example.png"
    # Before all work, so that nobody waits for an error.
    out.mkdir(parents=True, exist_ok=True)
    names = {path.name for path in out.iterdir() if not path.name.startswith(UNFINISHED)}
    if unknown := sorted(names - {store.name, picture.name}):
        raise ValueError(f"{out} holds other files ({', '.join(unknown[:3])}); name a new folder with --out.")
    _check_out(picture, (".png",), overwrite=True)
    start = time.perf_counter()
    sdata = ns.datasets.example()
    cells = sdata.tables["table"].n_obs
    start = _say_step(f"Built the example: {cells} cells in 2 regions, 8 markers, simulated.", start)
    adata = ns.predict(sdata, progress=progress)
    start = _say_step("Scored every cell for every marker.", start)

    scores = ns.metrics.marker_metrics(adata)
    otsu = ns.metrics.marker_metrics(adata, "integrated_expression", threshold="otsu")
    columns = {"share positive": scores["share_positive"], "F1 of scores at 0.5": scores["f1"]}
    table = pd.DataFrame({"cells": scores["cells"], **columns, "F1 of mean intensity, Otsu": otsu["f1"]}).round(3)
    table.loc["mean"] = table.mean().round(3)
    table["cells"] = table["cells"].astype(int)
    _say(f"\nAgainst the known truth, undetermined cells left out:\n{table.to_string()}\n")
    others = ns.metrics.compare_baselines(adata, n_boot=0)["f1"].unstack("rule").round(3)
    others.columns.name = others.index.name = None
    _say(f"Mean F1 of other thresholds on the mean intensity; the oracle knows the truth:\n{others.to_string()}\n")

    _write_store(sdata, store)
    crop = slice(100, 360), slice(100, 360)
    axes = ns.pl.comparison(sdata, ["CD3", "CD20", "PanCK", "Ki67"], "fov1_labels", crop=crop)
    with replacing(picture) as (file,):
        axes[0, 0].figure.savefig(file, dpi=110)
    _say_step(f"Wrote {store} (SpatialData) and {picture} (picture).", start)


@app.command()
@_plain_messages()
def predict(
    store: Store,
    image: Annotated[Names, Option(metavar="NAME", help="Image; repeat for many regions.")] = None,
    labels: Annotated[Names, Option(metavar="NAME", help="Cell labels; repeat for many regions.")] = None,
    shapes: Annotated[Names, Option(metavar="NAME", help="Polygons or circles that are the cells, not labels.")] = None,
    channel: Annotated[Names, Option(metavar="NAME", help="Channel to score; repeat. All by default.")] = None,
    model: Model = "compact",
    pixel_size: Annotated[float | None, Option(help="um per image pixel.")] = None,
    grow: Annotated[float, Option(help="Grow the cells by so many um, such as 2 for masks of nuclei.")] = 0.0,
    normalization: Annotated[Path | None, Option(metavar="CSV", help="Factors: columns channel, factor.")] = None,
    tta: Views = None,
    table: Annotated[str, Option(help="Name of the table in the store.")] = "table",
    key: Annotated[str, Option(help="Name of the layer of scores.")] = "nimbus",
    out: Annotated[Path | None, Option(help="Write to this .h5ad, .csv or .xlsx, not into the store.")] = None,
    overwrite: Annotated[bool, Option(help="Add to a table of the store, or replace the file of --out.")] = False,
    device: Device = "auto",
    precision: Annotated[Precision, Option(help="bfloat16 is faster where the hardware has it.")] = "auto",
    tile_size: Annotated[
        int | None, Option(help="Side of a tile in model pixels; small ones take less memory.")
    ] = None,
    batch_size: Annotated[int | None, Option(help="Images that pass the network at once.")] = None,
    checkpoint: Annotated[Path | None, Option(metavar="FOLDER", help="Keep finished tiles here, to resume.")] = None,
    progress: Progress = True,
) -> None:
    """Score a store's cells and write the table into it."""
    # What is in the way is said before all work.
    places = [store, store / "tables", *(store / "tables" / table).glob("**/")]
    if out is not None:
        _check_out(out, (".h5ad", ".csv", ".xlsx"), overwrite)
    elif closed := [place for place in places if place.exists() and not os.access(place, os.W_OK)]:
        hint = "pass --out for a file of its own, or open it to you"
        raise PermissionError(f"{closed[0]} cannot be written to; {hint}.")
    factors = None if normalization is None else _read_factors(normalization)

    import nimbus_sd as ns
    from nimbus_sd.io import restore

    # A table that this command put in its place before it was killed is not somebody else's.
    overwrite |= out is None and table in restore(store)
    sdata = _read_store(store)
    if out is None and table in sdata.tables and not overwrite:
        hint = "Pass --overwrite to add the scores to it, --table for another name, or --out for a file of its own."
        raise ValueError(f"{store} has a table {table!r} already. {hint}")
    settings: dict[str, Any] = {"pixel_size": pixel_size, "normalization": factors, "tta": tta, "precision": precision}
    settings |= {"tile_size": tile_size, "batch_size": batch_size, "device": device, "checkpoint": checkpoint}
    settings |= {"shapes_key": shapes, "grow": grow, "table_key": table, "key_added": key, "progress": progress}
    adata = ns.predict(sdata, image, labels, model=model, channels=channel, **settings)
    if out is None:
        ns.io.save_table(sdata, table, overwrite=overwrite)
    elif out.suffix == ".h5ad":
        with replacing(out) as (file,):
            adata.write_h5ad(file)
    else:
        ns.io.write_cells(adata, out, layers=key, channels=channel, overwrite=overwrite)
    place = f"table {table!r} of {store}" if out is None else out
    _say(f"Wrote {adata.n_obs} cells x {adata.n_vars} channels to {place}.")


@app.command()
@_plain_messages()
def export(
    store: Annotated[Path, Argument(metavar="STORE", help="SpatialData store (.zarr) with scores.")],
    out: Annotated[Path, Option(help="File to write: .csv, or .xlsx where openpyxl is installed.")],
    layer: Annotated[
        Names, Option(metavar="NAME", help="Such as integrated_expression; repeat. Scores by default.")
    ] = None,
    channel: Annotated[Names, Option(metavar="NAME", help="Channel to write; repeat. All by default.")] = None,
    obs: Annotated[Names, Option(metavar="NAME", help="What to write of cells, such as area; repeat.")] = None,
    threshold: Annotated[
        Names, Option(metavar="[CHANNEL=]VALUE", help="Add calls at this score, or auto; repeat for channels.")
    ] = None,
    table: Annotated[str, Option(metavar="NAME", help="Table in the store.")] = "table",
    overwrite: Replace = False,
) -> None:
    """Write cells with their places, scores, intensities and calls as one flat file."""
    _check_out(out, (".csv", ".xlsx"), overwrite)
    cuts = {}
    for text in threshold or ():
        name, _, value = text.rpartition("=")
        number = as_number(value)
        cuts[name or "*"] = value if number is None else number

    import nimbus_sd as ns

    adata, layers = _table_of(_read_store(store), store, table), layer or ["nimbus"]
    if cuts:
        ns.tl.call_positive(adata, layer=layers[0], threshold=cuts)
        layers = [*layers, "positive"]
    ns.io.write_cells(adata, out, layers=layers, channels=channel, obs=obs, overwrite=overwrite)
    _say(f"Wrote {adata.n_obs} cells x {len(channel or adata.var_names)} channels to {out}.")


@app.command()
@_plain_messages()
def convert(
    image: Annotated[Path, Argument(metavar="IMAGE", help="TIFF or QPTIFF, folder of channels, or folder of those.")],
    mask: Annotated[Path, Argument(metavar="MASK", help="Label TIFF, PNG or NPY, GeoJSON of cells, or folder.")],
    out: Annotated[Path, Option(help="SpatialData store to write (.zarr).")],
    pixel_size: Annotated[float | None, Option(help="um per pixel, where the file does not say.")] = None,
    channels: Annotated[
        Names, Option("--channel", "--channels", metavar="NAME", help="Name, repeat for all; or one CSV file of names.")
    ] = None,
    make_unique: Annotated[bool, Option("--make-unique", help="Number channels of one name.")] = False,
    series: Annotated[str | None, Option(help="Name or number of the image in files of several.")] = None,
    mask_pattern: Annotated[str | None, Option(help='Which mask is whose, e.g. "{fov}_whole_cell.tiff".')] = None,
    mask_plane: Annotated[int | None, Option(help="Number (from 0) of the plane in masks of several.")] = None,
    grow: Annotated[float, Option(help="Grow the cells of masks by so many um, such as 2 for masks of nuclei.")] = 0.0,
) -> None:
    """Turn images and masks into a SpatialData store, with pyramids of those above 4096 pixels a side."""
    from spatialdata import get_element_instances
    from spatialdata.models import get_channel_names
    from spatialdata.transformations import get_transformation

    import nimbus_sd as ns
    from nimbus_sd.io import with_pyramids
    from nimbus_sd.keys import PIXEL_SIZE_SOURCE

    if out.exists():
        raise FileExistsError(f"{out} exists already; name a new store.")
    if out.suffix != ".zarr":
        raise ValueError(f"--out {out} must end in .zarr.")
    names = Path(channels[0]) if channels and channels[0].lower().endswith((".csv", ".txt")) else channels
    settings: dict[str, Any] = {"pixel_size": pixel_size, "channels": names, "make_unique": make_unique, "grow": grow}
    settings |= {"series": series, "mask_pattern": mask_pattern, "mask_plane": mask_plane}
    sdata = with_pyramids(ns.io.read_fovs(image, mask, **settings))
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    _write_store(sdata, out)
    written = _read_store(out)
    before: list[str] = []
    for name, element in written.images.items():
        names, source = list(map(str, get_channel_names(element))), written.attrs[PIXEL_SIZE_SOURCE][name]
        cells = written.labels.get(f"{name}_labels", written.shapes.get(f"{name}_cells"))
        size = get_transformation(element, get_all=True).get(f"{name}_um")
        pixels = "pixel size not known (--pixel-size)"
        if size is not None:
            pixels = f"{size.to_affine_matrix(('y',), ('y',))[0, 0]:.6g} um per pixel ({source})"
        listed = "" if names == before else f" ({', '.join(names)})"
        _say(f"{name}: {len(names)} channels{listed}, {len(get_element_instances(cells))} cells, {pixels}.")
        before = names
    options = "".join(f" --shapes {name}" for name in sdata.shapes)
    _say(f"Wrote {len(sdata.images)} image(s) to {out}. Score them with: nimbus-sd predict {out}{options}")


@app.command()
@_plain_messages()
def report(
    store: Annotated[Path, Argument(metavar="STORE", help="SpatialData store (.zarr) with scores.")],
    out: Annotated[Path, Option(help="File to write (.html); nothing else is needed to open it.")],
    layer: Annotated[str, Option(help="Name of the layer of scores.")] = "nimbus",
    table: Annotated[str, Option("--table-key", "--table", metavar="NAME", help="Table in the store.")] = "table",
    overwrite: Replace = False,
) -> None:
    """Write a run's markers, distributions, examples and provenance into one HTML file."""
    _check_out(out, (".html",), overwrite)

    import matplotlib

    matplotlib.use("Agg")

    import nimbus_sd as ns

    sdata = _read_store(store)
    _say(f"Wrote {ns.pl.report(_table_of(sdata, store, table), out, sdata, layer=layer)}.")


@app.command()
@_plain_messages()
def review(
    store: Annotated[Path, Argument(metavar="STORE", help="SpatialData store (.zarr) with scores.")],
    table: Annotated[str, Option(metavar="NAME", help="Table in the store.")] = "table",
    layer: Annotated[str, Option(help="Name of the layer of scores.")] = "nimbus",
    annotator: Annotated[str | None, Option(metavar="NAME", help="Who judges; kept with each step.")] = None,
    port: Annotated[int, Option(min=0, max=65535, help="Port of this machine to serve on; 0 takes a free one.")] = 0,
    browser: Annotated[bool, Option(help="Open the page in a browser, where there is one.")] = True,
) -> None:
    """Open a page to see scores on the tissue, correct them and save what was learned."""
    import nimbus_sd as ns
    from nimbus_sd.io import restore

    if store.exists() and os.access(store, os.W_OK):
        restore(store)
    sdata = _read_store(store)
    _table_of(sdata, store, table)
    here = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform in ("darwin", "win32"))
    page = ns.review(sdata, table, layer=layer, annotator=annotator, port=port, browser=browser and here)
    _say(f"Review of {store} at {page.url}")
    if not here:
        number = page.url.split(":")[2].split("/")[0]
        _say(f"From another machine: ssh -N -L {number}:127.0.0.1:{number} {socket.gethostname()}, then open it there.")
    _say("Ctrl-C ends it; what was done is kept.")
    try:
        page.wait()
    finally:
        _say(page.stop())


@app.command()
@_plain_messages()
def benchmark(
    model: Model = "compact",
    dataset: Annotated[Names, Option(metavar="NAME", help="Such as mibi_breast; repeat. All by default.")] = None,
    out: Annotated[Path | None, Option(help="Write the table to this .csv, too.")] = None,
    overwrite: Replace = False,
    folder: Annotated[Path | None, Option(help="The gold standard's zip, or the folder it unpacks to.")] = None,
    pixel_size: Annotated[float, Option(help="um per pixel, taken for that of all images.")] = 0.5,
    likely: Annotated[bool, Option(help="Count labels that only lean to one side, too.")] = False,
    tta: Views = None,
    device: Device = "auto",
    progress: Progress = True,
) -> None:
    """Score the gold standard of the paper and print the figures beside the published ones."""
    if out is not None:
        _check_out(out, (".csv",), overwrite)

    from nimbus_sd import _benchmark
    from nimbus_sd._text import without_formulas

    settings: dict[str, Any] = {"pixel_size": pixel_size, "tta": tta, "device": device, "progress": progress}
    table = _benchmark.benchmark(model, dataset, folder, likely, **settings)
    n, counted = len(table) - 2, "counted" if likely else "left out"
    _say(
        f"Scores of {model} of at least 0.5 against labels by hand, those that only lean to one side {counted}; {n} "
        f"data set{'s' if n > 1 else ''}, pixels taken for {pixel_size:g} um. Published: mean of the five data sets.\n"
    )
    _say(table.astype(object).where(table.notna(), "").to_string(float_format="{:.3f}".format))
    if out is not None:
        table.columns = [f"{metric} ({average})" if average else metric for average, metric in table.columns]
        with replacing(out) as (file,):
            without_formulas(table).to_csv(file, index_label="dataset")
        _say(f"\nWrote {out}.")


def _check_out(out: Path, endings: tuple[str, ...], overwrite: bool) -> None:
    """Check where a result will go; before all work, so that nobody waits for an error."""
    if out.suffix not in endings:
        raise ValueError(f"--out {out} must end in {' or '.join(endings)}.")
    # A link stays a link.
    folder = Path(os.path.realpath(out)).parent
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {out.parent} to write {out.name} into.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} cannot be written to; name a file elsewhere with --out, or open it to you.")
    if out.is_dir():
        raise IsADirectoryError(f"{out} is a folder; name a file with --out.")
    if out.suffix == ".xlsx":
        from nimbus_sd.io import check_ending

        check_ending(out)
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} exists already; pass --overwrite to replace it, or name another file.")


def _read_store(store: Path) -> SpatialData:
    """Read a store, with one error for all that can be wrong with it."""
    if not store.exists():
        raise FileNotFoundError(f"There is no {store}.")

    from spatialdata import read_zarr

    try:
        return read_zarr(store)
    except (ValueError, KeyError, OSError) as error:
        raise ValueError(f"{store} cannot be read as a SpatialData store: {error}") from error


def _table_of(sdata: SpatialData, store: Path, name: str) -> AnnData:
    if name not in sdata.tables:
        present = ", ".join(map(repr, sdata.tables)) or "none"
        hint = "Pass its name with --table, or run `nimbus-sd predict` first."
        raise KeyError(f"{store} has no table {name!r}; there is: {present}. {hint}")
    return sdata.tables[name]


def _read_factors(path: Path) -> pd.Series:
    """Read normalisation factors from a CSV file with the columns ``channel`` and ``factor``."""
    from nimbus_sd._text import columns_of, with_formulas

    columns = columns_of(path)
    if missing := [name for name in ("channel", "factor") if name not in columns]:
        raise ValueError(f"{path} has the columns {columns}; it needs {' and '.join(map(repr, missing))}, too.")

    import pandas as pd

    # Channels may be named "NA" or "1".
    table = pd.read_csv(path, encoding="utf-8-sig", dtype={"channel": str}, keep_default_na=False)
    return table.assign(channel=with_formulas(table["channel"])).set_index("channel")["factor"]


def _write_store(sdata: SpatialData, path: Path) -> None:
    """Write a store, whole or not at all; one that is there is replaced."""
    with TemporaryDirectory(prefix=UNFINISHED, dir=path.absolute().parent) as folder:
        sdata.write(Path(folder) / path.name)
        put_folder(Path(folder) / path.name, path, Path(folder) / "old")


def _say_line(text: str, colour: str | None = None) -> None:
    """Show a message on one line."""
    typer.secho(plain(" ".join(text.split())), fg=colour, err=True)


def _say(text: str) -> None:
    """Print what a command has done."""
    typer.echo(plain(text))


def _say_step(text: str, start: float) -> float:
    """Print what was done and the seconds since its start; return the time."""
    now = time.perf_counter()
    _say(f"{text}  [{now - start:.1f} s]")
    return now
