"""``nimbus-sd benchmark``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nimbus_sd._disk import replacing
from nimbus_sd.cli._files import check_out
from nimbus_sd.cli._messages import plain_messages, say


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
    with plain_messages():
        if out is not None:
            check_out(out, (".csv",), overwrite)

        from nimbus_sd._benchmark import benchmark as run
        from nimbus_sd._text import without_formulas

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
        say(
            f"Scores of {model} of at least 0.5 against labels by hand, those that only lean to one side "
            f"{'counted' if likely else 'left out'}; {n} data set{'s' if n > 1 else ''}, pixels taken for "
            f"{pixel_size:g} um. Published: mean of the five data sets.\n"
        )
        say(table.astype(object).where(table.notna(), "").to_string(float_format="{:.3f}".format))
        if out is not None:
            table.columns = [f"{metric} ({way})" if way else metric for way, metric in table.columns]
            with replacing(out) as (file,):
                without_formulas(table).to_csv(file, index_label="dataset")
            say(f"\nWrote {out}.")
