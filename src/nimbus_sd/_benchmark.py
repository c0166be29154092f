"""How a model does on the gold standard of the paper, beside the published figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata as ad
import pandas as pd

from nimbus_sd import keys
from nimbus_sd._predict import predict
from nimbus_sd.datasets import check_datasets, pan_m_gold_standard
from nimbus_sd.metrics import marker_metrics
from nimbus_sd.models import PUBLISHED, load

METRICS = ["precision", "recall", "specificity", "f1"]


def benchmark(
    model: str, datasets: Sequence[str] | None, folder: Path | None, likely: bool, *, progress: bool, **settings: Any
) -> pd.DataFrame:
    """Score the gold standard with a model, by `predict` with these settings, and compare with the labels.

    A pixel size is taken for that of all images: the paper halved all of them, as if they were of 0.5 um. ``likely``
    counts labels that only lean to one side, which the paper's figures do not.

    Returns a row for each data set, their ``mean``, and the ``published`` mean over all five. Columns: ``cells``
    (labelled cells of all markers) and ``positives``, and twice the metrics: ``"markers pooled"``, where the cells of
    all markers of a data set are counted together (the authors' code of Fig. 4), and ``"mean over markers"``.
    """
    # Errors in names come before all downloads.
    if folder is None:
        check_datasets(datasets)
    load(model)
    tables = {}
    for name, sdata in pan_m_gold_standard(datasets, folder=folder, progress=progress).items():
        table = predict(sdata, model=model, progress=progress, **settings)
        layers = {layer: table.layers[layer] for layer in (keys.NIMBUS, keys.GOLD)}
        tables[name] = ad.AnnData(obs=table.obs[[keys.REGION, "dataset"]], var=table.var[[]], layers=layers)
    adata = ad.concat(tables, join="outer", index_unique="-")

    pooled = marker_metrics(adata, by="dataset", average="pooled", likely=likely).loc[list(tables)]
    macro = marker_metrics(adata, by="dataset", average="macro", likely=likely)
    parts = {"": pooled[["cells", "positives"]], "markers pooled": pooled[METRICS], "mean over markers": macro[METRICS]}
    result = pd.concat(parts, axis=1).loc[list(tables)].rename_axis(None)
    published = [PUBLISHED.figures[f"gold_standard_{metric}"] for metric in METRICS]
    result.loc["mean"] = [*result[""].sum(), *pooled[METRICS].mean(), *macro.loc["mean", METRICS]]
    result.loc["published"] = [float("nan")] * 2 + published * 2
    return result.astype({("", "cells"): "Int64", ("", "positives"): "Int64"})
