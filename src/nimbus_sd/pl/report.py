"""One HTML file about a run, for somebody who was not there."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from spatialdata import SpatialData

from nimbus_sd import keys, metrics
from nimbus_sd._table import judged, region_column
from nimbus_sd._table import layer as read_layer
from nimbus_sd.pl import crops, evaluation, tissue
from nimbus_sd.pl._page import as_text, html_table, picture, write_page
from nimbus_sd.pl._read import channel_names, holds_scores
from nimbus_sd.pl._style import title
from nimbus_sd.tl import call_positive, source_of

# Where `tl.call_positive` leaves calls.
_STORED = "positive"
# Scores between are undecided.
_MIDDLE = (0.25, 0.75)
_COLUMNS = 6
# Pixels a side of examples.
_CROP = 300
_N_BOOT = 200


def report(
    adata: AnnData,
    path: str | Path,
    sdata: SpatialData | None = None,
    *,
    layer: str = keys.NIMBUS,
    truth: str | None = None,
    channels: str | Sequence[str] | None = None,
) -> Path:
    """Write a run's markers, flags, distributions, examples and provenance into one HTML file.

    Calls are those that :func:`nimbus_sd.tl.call_positive` stored as ``"positive"`` if they are of this layer; else
    scores are called at 0.5 here, and other values are not called. Text from ``uns[layer]["model_description"]``, where
    there is one, is put at the top.

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
    ValueError
        If ``adata`` is none of the tables in ``sdata``.
    FileNotFoundError
        If the folder of ``path`` does not exist.

    Examples
    --------
    >>> import nimbus_sd as ns, tempfile
    >>> sdata = ns.datasets.example()
    >>> adata = ns.predict(sdata, channels=["CD3"], progress=False)
    >>> ns.pl.report(adata, tempfile.mkdtemp() + "/run.html").suffix
    '.html'
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"The folder {str(path.parent)!r} does not exist; create it first, or name another.")
    table_keys = [] if sdata is None else [str(key) for key, table in sdata.tables.items() if table is adata]
    if sdata is not None and not table_keys:
        raise ValueError(
            f"`adata` is none of the tables in `sdata`, which has {sorted(sdata.tables)}. Pass one of them, such as "
            "sdata.tables['table'], or leave `sdata` out for a report without crops."
        )
    run = _Run(adata, layer, truth)
    channels = channel_names(adata, list(adata.var_names[:4]) if channels is None else channels)
    sections = [*_summary(run), *_markers(run), *_distributions(run), *_evaluation(run)]
    if sdata is not None and channels:
        sections += _examples(run, sdata, table_keys[0], channels)
    return write_page(path, "nimbus-sd report", [*sections, *_provenance(run)])


class _Run:
    """What a report is about: a table, its layers, and how its cells are called.

    Calls are those stored in the table if they are of this layer and all its channels.
    """

    def __init__(self, adata: AnnData, layer: str, truth: str | None) -> None:
        self.adata, self.layer, self.truth = adata, layer, truth
        if truth is None and keys.GOLD in adata.layers and judged(read_layer(adata, keys.GOLD)).any():
            self.truth = keys.GOLD
        elif truth is not None:
            read_layer(adata, truth)
        self.scores = holds_scores(layer, read_layer(adata, layer))
        self.intensities = keys.INTEGRATED in adata.layers and layer != keys.INTEGRATED
        self.entry = _mapping(adata, layer)
        of_layer = _mapping(adata, _STORED).get("params", {}).get("layer") == layer and _STORED in adata.varm
        self.stored = bool(of_layer and adata.varm[_STORED]["threshold"].notna().all())
        key = _STORED if self.stored else f"{layer}_called"
        called = adata if self.stored else _called(adata, layer, key)
        self.calls = called.varm[key]
        self.flags = called.var.get(f"{key}_flag", pd.Series("", called.var_names)).astype(object).fillna("")
        self.compared = called.uns[key].get("trained_range") == "compared"
        # As metrics take it, and in words.
        self.threshold: float | str | dict[str, float] = 0.5 if self.scores else "otsu"
        self.rule = "0.5" if self.scores else "Otsu's threshold"
        if self.stored:
            self.threshold = {str(channel): float(cut) for channel, cut in self.calls["threshold"].items()}
            self.rule = "the stored thresholds"


def _mapping(adata: AnnData, key: str) -> Mapping[str, Any]:
    entry = adata.uns.get(key, {})
    return entry if isinstance(entry, Mapping) else {}


def _called(adata: AnnData, name: str, key_added: str) -> AnnData:
    """Call a copy of what matters at 0.5, so that the table stays as it is."""
    copy = AnnData(
        obs=adata.obs[[]],
        var=adata.var[[]],
        layers={key: read_layer(adata, key) for key in {name, *({keys.INTEGRATED} & set(adata.layers))}},
        varm={key: table for key, table in adata.varm.items() if str(key).endswith("_normalization")},
        uns={key: adata.uns[key] for key in {name, source_of(adata, name)} if key in adata.uns},
    )
    with warnings.catch_warnings():
        # The flags are in the report.
        warnings.simplefilter("ignore", UserWarning)
        call_positive(copy, layer=name, key_added=key_added, n_boot=0)
    return copy


def _summary(run: _Run) -> Iterator[str]:
    scored = np.isfinite(read_layer(run.adata, run.layer))
    regions = _regions(run.adata)
    n_regions = 1 if regions is None else regions.nunique()
    yield "<h1>Which marker is this cell positive for?</h1>"
    if isinstance(run.entry.get("model_description"), str):
        yield f'<p class="note">{escape(run.entry["model_description"])}</p>'
    meaning = (
        "A score is the network's confidence, from 0 to 1, that a cell is positive for a marker."
        if run.scores
        else f"Layer {run.layer!r} holds other values than scores from 0 to 1."
    )
    yield (
        f'<p class="note">{int(scored.any(axis=1).sum()):,} cells of {n_regions} region{"s" * (n_regions != 1)}, '
        f"{int(scored.any(axis=0).sum())} channels, model {escape(str(run.entry.get('model', 'not recorded')))}. "
        f"{escape(meaning)}</p>"
    )


def _regions(adata: AnnData) -> pd.Series | None:
    try:
        return region_column(adata).astype(str)
    except KeyError:
        return None


def _markers(run: _Run) -> Iterator[str]:
    columns = ["threshold", "low", "high"] * run.stored + ["share_positive"] * (run.stored or run.scores)
    table = run.calls[columns].copy()
    if run.scores:
        scores = pd.DataFrame(read_layer(run.adata, run.layer), columns=run.adata.var_names)
        undecided = (scores >= _MIDDLE[0]) & (scores <= _MIDDLE[1])
        table[f"share undecided ({_MIDDLE[0]}-{_MIDDLE[1]})"] = undecided.sum() / scores.notna().sum()
    factors = run.adata.varm.get(f"{source_of(run.adata, run.layer)}_normalization")
    if factors is not None and "factor" in factors:
        table["normalisation factor"] = factors["factor"]
    if run.truth:
        against = metrics.marker_metrics(run.adata, run.layer, run.truth, threshold=run.threshold)
        table = table.join(against[["precision", "recall", "f1", "auroc"]])
    table["look at the image because"] = run.flags
    if run.stored:
        called = (
            "The calls are those stored in the table by tl.call_positive: cells at or above their channel's threshold "
            "are positive; low and high are the threshold's 95 % interval."
        )
    elif run.scores:
        called = "The table holds no calls of this layer; cells with a score of at least 0.5 are positive here."
    else:
        called = "The table holds no calls of this layer, and none are made here, since its values are no scores."
    compared = (
        "The images were compared with those that the model was trained on."
        if run.compared
        else "Not compared: it is not known which images the model was trained on."
    )
    yield f"<h2>Markers</h2><p>{escape(called)} {escape(compared)}</p>"
    yield html_table(table.rename(columns=title))


def _distributions(run: _Run) -> Iterator[str]:
    by = " Blue: negative, orange: positive by the labels; each class has the area 1." if run.truth else ""
    how = {}
    for name in [run.layer, *([keys.INTEGRATED] if run.intensities else [])]:
        curved = not holds_scores(name, read_layer(run.adata, name))
        how[name] = title(name) + " as arcsinh(x / c), c the channel's median above 0" * curved
    yield "<h2>Distributions</h2><p>One heap at each end is what a clear stain gives.</p>"
    figure = plt.figure(figsize=(4.2 * len(how), 2.6), layout="constrained")
    for i, name in enumerate(how, 1):
        ax = figure.add_subplot(1, len(how), i)
        evaluation.score_shape(run.adata, name, run.truth, ax=ax).set(ylabel="", yticks=[])
    yield picture(figure, f"All channels together: {'; '.join(how.values())}.{by}")
    rows, columns = -(-run.adata.n_vars // _COLUMNS), min(_COLUMNS, run.adata.n_vars)
    for name, text in how.items():
        figure = plt.figure(figsize=(2 * columns, 1.6 * rows), layout="constrained")
        for i, channel in enumerate(run.adata.var_names, 1):
            ax = figure.add_subplot(rows, columns, i)
            evaluation.score_shape(run.adata, name, run.truth, channel=channel, ax=ax)
            ax.set(xlabel="", ylabel="", yticks=[])
            if legend := ax.get_legend():
                legend.remove()
        yield picture(figure, f"By channel: {text}.{by}")


def _evaluation(run: _Run) -> Iterator[str]:
    if run.truth is None:
        return
    adata, name, truth = run.adata, run.layer, run.truth
    yield f"<h2>Against the labels in layer {escape(truth)!r}</h2>"
    thresholds = {name: run.threshold} | ({keys.INTEGRATED: "otsu"} if run.intensities else {})
    table = metrics.marker_metrics(adata, list(thresholds), truth, threshold=thresholds)
    otsu = f", and of {title(keys.INTEGRATED)} at Otsu's threshold" if run.intensities else ""
    pictures = [picture(evaluation.metrics(table).figure, f"F1 of {title(name)} at {run.rule}{otsu}.")]
    if run.scores:
        by_threshold = evaluation.curve(metrics.threshold_curve(adata, name, truth, average="pooled"))
        reliability = evaluation.curve(metrics.calibration_curve(adata, name, truth))
        pictures += [
            picture(by_threshold.figure, "What another threshold would give, all channels together."),
            picture(
                reliability.figure,
                "Share of positive cells among those of about the same score, all channels together. On the dotted "
                "line a score is that share.",
            ),
        ]
    yield f'<div class="row">{"".join(pictures)}</div>'
    if run.scores and run.intensities:
        baselines = metrics.compare_baselines(adata, truth, name, threshold=run.threshold, n_boot=_N_BOOT)
        caption = (
            f"F1 of the scores at {run.rule} minus that of thresholds on intensities, mean over channels, with 95 % "
            f"intervals from {_N_BOOT} resamples."
        )
        yield picture(evaluation.metrics(baselines).figure, caption)


def _examples(run: _Run, sdata: SpatialData, table_key: str, channels: Sequence[str]) -> Iterator[str]:
    yield "<h2>Examples</h2>"
    adata, regions = run.adata, _regions(run.adata)
    if regions is None or keys.SPATIAL not in adata.obsm:
        yield '<p class="note">The table does not say where its cells are.</p>'
        return
    region = str(regions.iloc[0])
    middle = np.nanmedian(np.asarray(adata.obsm[keys.SPATIAL])[regions == region, :2], axis=0)
    x, y = (middle * tissue.region_of(sdata, channels[0], region).image_repeat).astype(int)
    crop = (slice(max(0, y - _CROP // 2), y + _CROP // 2), slice(max(0, x - _CROP // 2), x + _CROP // 2))
    layers = [run.layer, *([run.truth] if run.truth else [])]
    axes = tissue.comparison(sdata, channels, region, layers=layers, crop=crop, table_key=table_key)
    yield picture(axes[0, 0].figure, f"The middle of region {region}.")
    if not run.scores or keys.INTEGRATED not in adata.layers:
        return
    kinds: tuple[tuple[Literal["dim", "bright"], str], ...] = (
        ("dim", "Score of at least 0.5 though the mean is low: dim cells, or mistakes."),
        ("bright", "Score below 0.5 though the mean is high: spill-over and debris, or mistakes."),
    )
    for kind, text in kinds:
        try:
            axes = crops.disagreement(sdata, kind, layer=run.layer, table_key=table_key)
        except ValueError as nothing:
            yield f'<p>{text}</p><p class="note">{escape(str(nothing))}</p>'
        else:
            scale = "Relative means: 0 is the median negative cell, 1 the median positive one."
            yield picture(axes[0].figure, f"{text} {scale}")


def _provenance(run: _Run) -> Iterator[str]:
    entry = {key: value for key, value in run.entry.items() if key != "model_description"}
    yield "<h2>How it was made</h2>"
    yield html_table(as_text(entry)) if entry else '<p class="note">Not recorded in this table.</p>'
