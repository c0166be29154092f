"""``nimbus-sd demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nimbus_sd._disk import UNFINISHED, replacing
from nimbus_sd.cli._files import write_store
from nimbus_sd.cli._messages import Steps, plain_messages, say


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results; replaced if it holds those of a demo.")] = Path(
        "demo"
    ),
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
) -> None:
    """Score a simulated tissue and compare with its known truth."""
    with plain_messages():
        _demo(out, progress)


def _demo(out: Path, progress: bool) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import pandas as pd

    import nimbus_sd as ns

    store, picture = out / "example.zarr", out / "example.png"
    # Before all work, so that nobody waits for an error.
    out.mkdir(parents=True, exist_ok=True)
    names = {path.name for path in out.iterdir() if not path.name.startswith(UNFINISHED)}
    unknown = sorted(names - {store.name, picture.name})
    if unknown:
        raise ValueError(f"{out} holds other files ({', '.join(unknown[:3])}); name a new folder with --out.")
    steps = Steps()
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
    say("\nAgainst the known truth, undetermined cells left out:\n" + table.to_string() + "\n")
    others = ns.metrics.compare_baselines(adata, n_boot=0)["f1"].unstack("rule").round(3)
    others.columns.name = others.index.name = None
    say("Mean F1 of other thresholds on the mean intensity; the oracle knows the truth:\n" + others.to_string() + "\n")

    write_store(sdata, store)
    axes = ns.pl.comparison(
        sdata, ["CD3", "CD20", "PanCK", "Ki67"], "fov1_labels", crop=(slice(100, 360), slice(100, 360))
    )
    with replacing(picture) as (file,):
        axes[0, 0].figure.savefig(file, dpi=110)
    steps.done(f"Wrote {store} (SpatialData) and {picture} (picture).")
