"""One HTML file about a run, for somebody who was not there."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

from nimbus_sd import keys
from nimbus_sd.metrics import calibration_curve, compare_baselines, marker_metrics, threshold_curve
from nimbus_sd.metrics._layers import judged, layer
from nimbus_sd.pl import curves, shape, tables
from nimbus_sd.pl._page import drawn, html_table, picture, write_page
from nimbus_sd.pl._style import title
from nimbus_sd.pl.comparison import comparison
from nimbus_sd.pl.disagreement import disagreement
from nimbus_sd.tl import call_positive

if TYPE_CHECKING:
    from spatialdata import SpatialData

_CROP = 300


def report(
    adata: AnnData,
    path: str | Path,
    sdata: SpatialData | None = None,
    *,
    layer: str = keys.NIMBUS,
    truth: str | None = None,
    channels: Sequence[str] | None = None,
) -> Path:
    """Write a run's markers, flags, distributions, examples and provenance into one HTML file.

    Parameters
    ----------
    adata
        Table from :func:`nimbus_sd.predict`. It is not changed.
    path
        File to write; nothing else is needed to open it. An existing file is replaced.
    sdata
        Images and labels, one of whose tables ``adata`` is; with them the report shows crops.
    layer
        Layer of scores.
    truth
        Layer of labels for the evaluation. None takes ``"gold"`` where it exists and judges a cell.
    channels
        Channels of which crops are shown; the first four by default.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    KeyError
        If a layer or a channel does not exist.
    ValueError
        If ``adata`` is none of the tables in ``sdata``.

    Examples
    --------
    >>> import nimbus_sd as ns, tempfile
    >>> sdata = ns.datasets.example()
    >>> adata = ns.predict(sdata, channels=["CD3"], progress=False)
    >>> ns.pl.report(adata, tempfile.mkdtemp() + "/run.html").suffix
    '.html'
    """
    truth = _truth(adata, truth)
    place = None if sdata is None else _table_key(adata, sdata)
    sections = [
        *_summary(adata, layer),
        *_markers(adata, layer, truth),
        *_distributions(adata, layer, truth),
        *(_evaluation(adata, layer, truth) if truth else []),
        *(_examples(sdata, place, layer, truth, channels) if sdata is not None and place is not None else []),
        *_provenance(adata, layer),
    ]
    return write_page(Path(path), "nimbus-sd report", sections)


def _truth(adata: AnnData, truth: str | None) -> str | None:
    if truth is None and keys.GOLD in adata.layers and judged(layer(adata, keys.GOLD)).any():
        return keys.GOLD
    return truth


def _summary(adata: AnnData, name: str) -> Iterator[str]:
    scored = np.isfinite(layer(adata, name))
    model = adata.uns.get(name, {}).get("model", "not recorded")
    regions = adata.obs[keys.REGION].nunique() if keys.REGION in adata.obs else 1
    yield "<h1>Which marker is this cell positive for?</h1>"
    yield (
        f'<p class="note">{int(scored.any(axis=1).sum()):,} cells of {regions} region{"s" * (regions != 1)}, '
        f"{int(scored.any(axis=0).sum())} channels, model {escape(str(model))}. "
        "A score is the network's confidence, from 0 to 1, that a cell is positive for a marker.</p>"
    )


def _markers(adata: AnnData, name: str, truth: str | None) -> Iterator[str]:
    called = AnnData(obs=adata.obs[[]], var=adata.var[[]], layers=_few(adata, name), uns=dict(adata.uns))
    factors = f"{name}_normalization"
    if factors in adata.varm:
        called.varm[factors] = adata.varm[factors]
    with warnings.catch_warnings():
        # The flags are in the table.
        warnings.simplefilter("ignore", UserWarning)
        call_positive(called, layer=name, key_added="call", n_boot=0)
    table = called.varm["call"][["share_positive"]].copy()
    table["0.25 to 0.75"] = [_middle(column) for column in layer(adata, name).T]
    if factors in adata.varm and "factor" in adata.varm[factors]:
        table["normalisation factor"] = adata.varm[factors]["factor"]
    if truth:
        table = table.join(marker_metrics(adata, name, truth)[["precision", "recall", "f1", "auroc"]])
    table["look at the image because"] = called.var["call_flag"].astype(str)
    yield "<h2>Markers</h2><p>Cells with a score of at least 0.5 are positive here.</p>"
    yield html_table(table.rename(columns=title))


def _few(adata: AnnData, name: str) -> dict[str, np.ndarray]:
    names = [name, *([keys.INTEGRATED] if keys.INTEGRATED in adata.layers else [])]
    return {one: layer(adata, one) for one in names}


def _middle(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(((known > 0.25) & (known < 0.75)).mean()) if known.size else float("nan")


def _distributions(adata: AnnData, name: str, truth: str | None) -> Iterator[str]:
    import matplotlib.pyplot as plt

    names = list(adata.var_names)
    columns = min(6, len(names))
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2 * columns, 1.6 * rows), squeeze=False, sharex=True, layout="constrained"
    )
    for channel, ax in zip(names, axes.ravel(), strict=False):
        shape.score_shape(adata, name, truth, channel=channel, ax=ax)
        ax.set(xlabel="", ylabel="", yticks=[])
        if ax.get_legend() is not None:
            ax.get_legend().remove()
    for ax in axes.ravel()[len(names) :]:
        ax.set_visible(False)
    by = " Blue: negative, orange: positive by the labels; each class has the area 1." if truth else ""
    yield f"<h2>Distribution of scores</h2><p>One heap at each end is what a clear stain gives.{by}</p>"
    yield picture(figure)


def _evaluation(adata: AnnData, name: str, truth: str) -> Iterator[str]:
    yield f"<h2>Against the labels in layer {escape(truth)!r}</h2>"
    layers = [name, *([keys.INTEGRATED] if keys.INTEGRATED in adata.layers else [])]
    metrics = marker_metrics(adata, layers, truth, threshold={one: 0.5 if one == name else "otsu" for one in layers})
    pictures = [
        drawn(tables.marker_metrics, metrics),
        drawn(curves.threshold_curve, threshold_curve(adata, name, truth, average="pooled")),
        drawn(curves.calibration_curve, calibration_curve(adata, name, truth)),
    ]
    yield f'<div class="row">{"".join(pictures)}</div>'
    if keys.INTEGRATED in adata.layers:
        yield "<p>F1 of the scores at 0.5 minus that of thresholds on intensities; the oracle knows the labels.</p>"
        yield drawn(tables.compare_baselines, compare_baselines(adata, truth, name, n_boot=200))


def _table_key(adata: AnnData, sdata: SpatialData) -> str:
    """Find the table among those of the SpatialData, from which crops are drawn."""
    for key, table in sdata.tables.items():
        if table is adata:
            return str(key)
    raise ValueError(
        f"`adata` is none of the tables in `sdata`, which has {sorted(sdata.tables)}. Pass one of them, such as "
        "sdata.tables['table'], or leave `sdata` out for a report without crops."
    )


def _examples(
    sdata: SpatialData, place: str, name: str, truth: str | None, channels: Sequence[str] | None
) -> Iterator[str]:
    adata = sdata.tables[place]
    channels = list(adata.var_names[:4]) if channels is None else list(channels)
    region = str(adata.obs[keys.REGION].iloc[0])
    here = adata.obs[keys.REGION].to_numpy() == region
    x, y = np.median(adata.obsm[keys.SPATIAL][here], axis=0).astype(int)
    crop = (slice(max(0, y - _CROP // 2), y + _CROP // 2), slice(max(0, x - _CROP // 2), x + _CROP // 2))
    layers = [name, *([truth] if truth else [])]
    yield f"<h2>Examples</h2><p>The middle of region {escape(region)}.</p>"
    axes = comparison(sdata, channels, region, layers=layers, crop=crop, table_key=place)
    yield picture(axes.ravel()[0].figure)
    for kind, text in (
        ("dim", "Called positive though the mean is low: dim cells, or mistakes."),
        ("bright", "Called negative though the mean is high: spill-over and debris, or mistakes."),
    ):
        yield f"<p>{text} Means are relative: 0 is the median negative cell, 1 the median positive one.</p>"
        try:
            yield picture(disagreement(sdata, kind, layer=name, table_key=place)[0].figure)  # type: ignore[arg-type]
        except ValueError as nothing:
            yield f'<p class="note">{escape(str(nothing))}</p>'


def _provenance(adata: AnnData, name: str) -> Iterator[str]:
    entry = pd.json_normalize(dict(adata.uns.get(name, {})), sep=" ")
    yield "<h2>How it was made</h2>"
    if entry.empty:
        yield '<p class="note">Not recorded in this table.</p>'
    else:
        yield html_table(entry.astype(str).T.rename(columns={0: ""}))
