"""One HTML file about a run, for somebody who was not there; it needs no other file."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from spatialdata import SpatialData

from nimbus_sd import keys, metrics
from nimbus_sd._disk import replacing
from nimbus_sd._table import judged, region_column
from nimbus_sd._table import layer as read_layer
from nimbus_sd.pl import crops, evaluation, tissue
from nimbus_sd.pl._common import channel_names, holds_scores, literal, title
from nimbus_sd.tl import call_positive, source_of

# Where `tl.call_positive` leaves calls.
_STORED = "positive"
# Scores between are undecided.
_MIDDLE = (0.25, 0.75)
# Pictures side by side, pixels a side of examples, and resamples of baselines.
_COLUMNS, _CROP, _N_BOOT = 6, 300, 200

# The last column of a table is text.
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 66rem; padding: 0 1rem; color: #222; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; font-size: 13px; } th, td { padding: 2px 10px; text-align: right; }
thead th { border-bottom: 1px solid #888; vertical-align: bottom; }
th:first-child, tr :last-child { text-align: left; } td:last-child { max-width: 26rem; overflow-wrap: anywhere; }
tbody tr:nth-child(even) { background: #f5f5f5; } .wide { overflow-x: auto; } img { max-width: 100%; }
.row { display: flex; flex-wrap: wrap; align-items: start; gap: 0 1.5rem; } .row figure { max-width: 20rem; }
.row img { max-height: 15rem; }
figure { margin: 1rem 0; } figcaption, .note { color: #555; } figcaption { font-size: 13px; }
"""


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
            f"`adata` is none of the tables in `sdata`, which has {sorted(sdata.tables)}; pass one of them."
        )
    run = _Run(adata, layer, truth)
    channels = channel_names(adata, list(adata.var_names[:4]) if channels is None else channels)
    sections = [*_summary(run), *_markers(run), *_distributions(run), *_evaluation(run)]
    if sdata is not None and channels:
        sections += _examples(run, sdata, table_keys[0], channels)
    settings = {key: value for key, value in run.entry.items() if key != "model_description"}
    provenance = _html_table(_as_text(settings)) if settings else '<p class="note">Not recorded in this table.</p>'
    return write_page(path, "nimbus-sd report", [*sections, "<h2>How it was made</h2>", provenance])


class _Run:
    """What a report is about: a table, its layers, and how its cells are called.

    Calls are those stored in the table if they are of this layer and all its channels.
    """

    def __init__(self, adata: AnnData, layer: str, truth: str | None) -> None:
        self.adata, self.layer, self.truth = adata, layer, truth
        if truth is not None:
            read_layer(adata, truth)
        elif keys.GOLD in adata.layers and judged(read_layer(adata, keys.GOLD)).any():
            self.truth = keys.GOLD
        self.scores = holds_scores(layer, read_layer(adata, layer))
        self.intensities = keys.INTEGRATED in adata.layers and layer != keys.INTEGRATED
        self.regions: pd.Series | None = None
        with suppress(KeyError):
            self.regions = region_column(adata).astype(str)
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
    n_regions = 1 if run.regions is None else run.regions.nunique()
    counts = f"{int(scored.any(axis=1).sum()):,} cells of {n_regions} region{'s' * (n_regions != 1)}"
    meaning = f"Layer {run.layer!r} holds other values than scores from 0 to 1."
    if run.scores:
        meaning = "A score is the network's confidence, from 0 to 1, that a cell is positive for a marker."
    yield "<h1>Which marker is this cell positive for?</h1>"
    if isinstance(run.entry.get("model_description"), str):
        yield f'<p class="note">{escape(run.entry["model_description"])}</p>'
    model = escape(str(run.entry.get("model", "not recorded")))
    channels = f"{int(scored.any(axis=0).sum())} channels"
    yield f'<p class="note">{counts}, {channels}, model {model}. {escape(meaning)}</p>'


def _markers(run: _Run) -> Iterator[str]:
    columns = ["threshold", "low", "high"] * run.stored + ["share_positive"] * (run.stored or run.scores)
    table = run.calls[columns].copy()
    called = "The table holds no calls of this layer, and none are made here, since its values are no scores."
    if run.scores:
        called = "The table holds no calls of this layer; cells with a score of at least 0.5 are positive here."
        scores = pd.DataFrame(read_layer(run.adata, run.layer), columns=run.adata.var_names)
        undecided = (scores >= _MIDDLE[0]) & (scores <= _MIDDLE[1])
        table[f"share undecided ({_MIDDLE[0]}-{_MIDDLE[1]})"] = undecided.sum() / scores.notna().sum()
    if run.stored:
        called = "The calls are those stored in the table by tl.call_positive: cells from their channel's threshold on "
        called += "are positive; low and high are the threshold's 95 % interval."
    factors = run.adata.varm.get(f"{source_of(run.adata, run.layer)}_normalization")
    if factors is not None and "factor" in factors:
        table["normalisation factor"] = factors["factor"]
    if run.truth:
        against = metrics.marker_metrics(run.adata, run.layer, run.truth, threshold=run.threshold)
        table = table.join(against[["precision", "recall", "f1", "auroc"]])
    table["look at the image because"] = run.flags
    compared = "Not compared: it is not known which images the model was trained on."
    if run.compared:
        compared = "The images were compared with those that the model was trained on."
    yield f"<h2>Markers</h2><p>{escape(called)} {compared}</p>"
    yield _html_table(table.rename(columns=title))


def _distributions(run: _Run) -> Iterator[str]:
    by = " Blue: negative, orange: positive by the labels; each class has the area 1." if run.truth else ""
    how = {}
    for name in [run.layer, *([keys.INTEGRATED] if run.intensities else [])]:
        curved = not holds_scores(name, read_layer(run.adata, name))
        how[name] = title(name) + " as arcsinh(x / c), c the channel's median above 0" * curved
    yield "<h2>Distributions</h2><p>A clear stain gives one peak at each end.</p>"
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
    drawn = [(evaluation.metrics(table), f"F1 of {title(name)} at {run.rule}{otsu}.")]
    if run.scores:
        cuts = evaluation.curve(metrics.threshold_curve(adata, name, truth, average="pooled"))
        shares = evaluation.curve(metrics.calibration_curve(adata, name, truth))
        text = "Share of positive cells by score, all channels together. On the dotted line a score is that share."
        drawn += [(cuts, "What another threshold would give, all channels together."), (shares, text)]
    yield f'<div class="row">{"".join(picture(ax.figure, text) for ax, text in drawn)}</div>'
    if run.scores and run.intensities:
        baselines = metrics.compare_baselines(adata, truth, name, threshold=run.threshold, n_boot=_N_BOOT)
        caption = f"F1 of the scores at {run.rule} minus that of thresholds on intensities, mean over channels"
        yield picture(evaluation.metrics(baselines).figure, f"{caption}; 95 % intervals of {_N_BOOT} resamples.")


def _examples(run: _Run, sdata: SpatialData, table_key: str, channels: Sequence[str]) -> Iterator[str]:
    yield "<h2>Examples</h2>"
    adata, regions = run.adata, run.regions
    if regions is None or keys.SPATIAL not in adata.obsm:
        yield '<p class="note">The table does not say where its cells are.</p>'
        return
    region = str(regions.iloc[0])
    middle = np.nanmedian(np.asarray(adata.obsm[keys.SPATIAL])[regions == region, :2], axis=0)
    x, y = (middle * tissue.region_of(sdata, adata, channels[0], region).image_repeat).astype(int)
    crop = (slice(max(0, y - _CROP // 2), y + _CROP // 2), slice(max(0, x - _CROP // 2), x + _CROP // 2))
    layers = [run.layer, *([run.truth] if run.truth else [])]
    axes = tissue.comparison(sdata, channels, region, layers=layers, crop=crop, table_key=table_key)
    yield picture(axes[0, 0].figure, f"The middle of region {region}.")
    if not run.scores or keys.INTEGRATED not in adata.layers:
        return
    kinds: dict[Any, str] = {
        "dim": "Score of at least 0.5 though the mean is low: dim cells, or mistakes.",
        "bright": "Score below 0.5 though the mean is high: spill-over and debris, or mistakes.",
    }
    for kind, text in kinds.items():
        try:
            axes = crops.disagreement(sdata, kind, layer=run.layer, table_key=table_key)
        except ValueError as nothing:
            yield f'<p>{text}</p><p class="note">{escape(str(nothing))}</p>'
        else:
            scale = "Relative means: 0 is the median negative cell, 1 the median positive one."
            yield picture(axes[0].figure, f"{text} {scale}")


def write_page(path: Path, title: str, sections: Sequence[str]) -> Path:
    """Write a page."""
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
    with replacing(path) as (file,):
        file.write_text(f"{head}<style>{_STYLE}</style>" + "\n".join(sections) + "</html>\n", encoding="utf-8")
    return path


def _html_table(table: pd.DataFrame) -> str:
    """Return a table, the last column of which is text, as HTML: one number of digits for each column."""
    formatters = {name: _number_format(column) for name, column in table.select_dtypes("number").items()}
    with pd.option_context("display.max_colwidth", None):
        return f'<div class="wide">{table.to_html(border=0, na_rep="", formatters=formatters)}</div>'


def _number_format(column: pd.Series) -> Callable[[float], str]:
    """Write numbers with three digits of the largest, and at least three decimals up to 1; nothing for NaN."""
    largest = column[np.isfinite(column)].abs().max()
    whole = pd.api.types.is_integer_dtype(column.dtype) or not largest > 0
    decimals = 0 if whole else int(np.clip(3 - np.ceil(np.log10(largest)), 0, 9))
    return lambda value: f"{value:,.{decimals}f}" if np.isfinite(value) else ""


def _as_text(entry: Mapping[str, Any]) -> pd.DataFrame:
    """Turn nested settings into a table of one column, lists as text."""
    flat = pd.json_normalize(dict(entry), sep=" ")
    return pd.DataFrame({"": {name: _text(value) for name, value in flat.iloc[0].items()}}, dtype=object)


def _text(value: Any) -> str:
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(map(_text, np.asarray(value, object).ravel()))
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def picture(figure: Any, caption: str) -> str:
    """Return a figure as HTML with a caption of plain text, and close it."""
    data = io.BytesIO()
    literal(figure)
    figure.savefig(data, format="png", dpi=110)
    plt.close(figure)
    source = f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
    return f'<figure><img alt="" src="{source}"><figcaption>{escape(caption)}</figcaption></figure>'
