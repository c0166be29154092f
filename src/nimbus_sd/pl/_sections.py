"""Sections of the report that need no labels: summary, markers, distributions, provenance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd._table import layer
from nimbus_sd.metrics import marker_metrics
from nimbus_sd.pl import shape
from nimbus_sd.pl._layers import holds_scores, regions_of
from nimbus_sd.pl._page import as_text, html_table, picture
from nimbus_sd.pl._style import title
from nimbus_sd.tl import source_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from nimbus_sd.pl._run import Run

_MIDDLE = (0.25, 0.75)
_COLUMNS = 6


def summary(run: Run) -> Iterator[str]:
    known = np.isfinite(layer(run.adata, run.layer))
    entry = _entry(run)
    column = regions_of(run.adata)
    regions = 1 if column is None else column.nunique()
    yield "<h1>Which marker is this cell positive for?</h1>"
    if isinstance(entry.get("model_description"), str):
        yield f'<p class="note">{escape(entry["model_description"])}</p>'
    meaning = (
        "A score is the network's confidence, from 0 to 1, that a cell is positive for a marker."
        if run.scores
        else f"Layer {run.layer!r} holds other values than scores from 0 to 1."
    )
    yield (
        f'<p class="note">{int(known.any(axis=1).sum()):,} cells of {regions} region{"s" * (regions != 1)}, '
        f"{int(known.any(axis=0).sum())} channels, model {escape(str(entry.get('model', 'not recorded')))}. "
        f"{escape(meaning)}</p>"
    )


def markers(run: Run) -> Iterator[str]:
    table = run.calls.copy() if run.stored or run.scores else run.calls[[]].copy()
    if run.scores:
        name = f"share undecided ({_MIDDLE[0]}-{_MIDDLE[1]})"
        table[name] = [_undecided(column) for column in layer(run.adata, run.layer).T]
    factors = run.adata.varm.get(f"{source_of(run.adata, run.layer)}_normalization")
    if factors is not None and "factor" in factors:
        table["normalisation factor"] = factors["factor"]
    if run.truth:
        found = marker_metrics(run.adata, run.layer, run.truth, threshold=run.threshold)
        table = table.join(found[["precision", "recall", "f1", "auroc"]])
    table["look at the image because"] = run.flags
    yield f"<h2>Markers</h2><p>{escape(_called(run))} {escape(_compared(run))}</p>"
    yield html_table(table.rename(columns=title))


def _called(run: Run) -> str:
    if run.stored:
        return (
            "The calls are those stored in the table by tl.call_positive: cells at or above their channel's threshold "
            "are positive; low and high are the threshold's 95 % interval."
        )
    if run.scores:
        return "The table holds no calls of this layer; cells with a score of at least 0.5 are positive here."
    return "The table holds no calls of this layer, and none are made here, since its values are no scores."


def _compared(run: Run) -> str:
    if run.compared:
        return "The images were compared with those that the model was trained on."
    return "Not compared: it is not known which images the model was trained on."


def _undecided(values: NDArray) -> float:
    known = values[np.isfinite(values)]
    return float(((known >= _MIDDLE[0]) & (known <= _MIDDLE[1])).mean()) if known.size else float("nan")


def distributions(run: Run) -> Iterator[str]:
    by = " Blue: negative, orange: positive by the labels; each class has the area 1." if run.truth else ""
    names = [run.layer, *([keys.INTEGRATED] if run.intensities else [])]
    how = {name: _in_words(run, name) for name in names}
    yield "<h2>Distributions</h2><p>One heap at each end is what a clear stain gives.</p>"
    yield picture(_pooled(run, names), f"All channels together: {'; '.join(how.values())}.{by}")
    for name in names:
        yield picture(_by_channel(run, name), f"By channel: {how[name]}.{by}")


def _in_words(run: Run, name: str) -> str:
    if holds_scores(name, layer(run.adata, name)):
        return title(name)
    return f"{title(name)} as arcsinh(x / c), c the channel's median above 0"


def _pooled(run: Run, names: list[str]) -> Figure:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(names), figsize=(4.2 * len(names), 2.6), squeeze=False, layout="constrained")
    for name, ax in zip(names, axes[0], strict=True):
        shape.score_shape(run.adata, name, run.truth, ax=ax)
        ax.set(ylabel="", yticks=[])
    return figure


def _by_channel(run: Run, name: str) -> Figure:
    import matplotlib.pyplot as plt

    scale: Any = "linear" if holds_scores(name, layer(run.adata, name)) else "arcsinh"
    channels = list(run.adata.var_names)
    columns = min(_COLUMNS, len(channels))
    rows = -(-len(channels) // columns)
    # Scores share an axis; expression does not, since channels reach differently far.
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(2 * columns, 1.6 * rows),
        squeeze=False,
        sharex="all" if scale == "linear" else "none",
        layout="constrained",
    )
    panels = axes.ravel()
    for number, (channel, ax) in enumerate(zip(channels, panels, strict=False)):
        shape.score_shape(run.adata, name, run.truth, channel=channel, scale=scale, ax=ax)
        ax.set(xlabel="", ylabel="", yticks=[])
        # Nothing hangs below the last one of a column.
        ax.tick_params(labelbottom=scale == "arcsinh" or number + columns >= len(channels))
        if ax.get_legend() is not None:
            ax.get_legend().remove()
    for ax in panels[len(channels) :]:
        ax.set_visible(False)
    return figure


def provenance(run: Run) -> Iterator[str]:
    entry = {key: value for key, value in _entry(run).items() if key != "model_description"}
    yield "<h2>How it was made</h2>"
    yield html_table(as_text(entry)) if entry else '<p class="note">Not recorded in this table.</p>'


def _entry(run: Run) -> Mapping[str, Any]:
    entry = run.adata.uns.get(run.layer, {})
    return entry if isinstance(entry, Mapping) else {}
