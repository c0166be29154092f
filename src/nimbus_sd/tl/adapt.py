"""A marker's line moved by a few labels of one's own."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd._table import judged, outside_unit_interval, truth_layer
from nimbus_sd._table import layer as read_layer
from nimbus_sd.tl._line import fit_line, held_out, judge, move
from nimbus_sd.tl._regions import given_regions
from nimbus_sd.tl._results import check_key_added, log_overwritten

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger("nimbus_sd")

_TOOL = "adapt"
_FEWEST = 5
_UNLABELLED = "no labels"


def adapt(
    adata: AnnData,
    *,
    labels: str = keys.GOLD_TRAINING,
    regions: str | Sequence[str] | None = None,
    layer: str = keys.NIMBUS,
    likely: bool = True,
    key_added: str = "nimbus_adapted",
    region_key: str | None = None,
) -> None:
    """Move each marker's scores by a few labels, with no pixel read again.

    The logit of a marker's scores gets a slope and an offset of its own: logistic regression on the marker's labelled
    cells, held by a prior at slope 1 and offset 0, the scores as they are. So a few labels move it carefully, many
    decide, and a marker without labels stays as it is. The order of cells never turns round.

    Parameters
    ----------
    adata
        Cells x channels.
    labels
        Layer of labels: above 0.5 positive, below negative; 0.5 (undetermined) and NaN are left out.
    regions
        Regions whose labels may be used; None takes all. ``labels="gold"`` must name them, and the others stay for
        evaluation.
    layer
        Layer of scores in [0, 1].
    likely
        Whether to use the labels 0.25 and 0.75 (likely negative and positive).
    key_added
        Name of the results.
    region_key
        Column of ``obs`` that names a cell's region; by default the one that the table's annotation names, else
        ``"region"``.

    Returns
    -------
    None
        Sets in ``adata``:

        - ``layers[key_added]``: in [0, 1], never falling with the score, NaN where the score is NaN; the same as
          ``layer`` for markers without labels
        - ``varm[key_added]``: DataFrame channels x (``slope``, ``offset``, ``labels``, ``positives``, ``f1_before``,
          ``f1_after``, ``log_loss_before``, ``log_loss_after``, ``held_out``, ``reason``). F1 (at 0.5) and log loss
          are of labelled cells, each moved by a fit that did not use it: up to five times a part is held out, whole
          ``"regions"`` where at least three have labels of the marker, else ``"cells"`` (neighbours may flatter).
          ``reason`` is ``"no labels"``, ``"too few labels: ..."`` (under 5), ``"labels of one class: ..."``,
          ``"scores are not higher in positive cells"``, or empty
        - ``obs[f"{key_added}_fitted"]``: cells whose labels were used; metrics warn if they are judged on
        - ``uns[key_added]``: ``params``, ``regions`` (with labels that were used), and ``held_out``, these figures
          over all markers' labels

    Raises
    ------
    KeyError
        If a layer, the column or a region does not exist.
    ValueError
        If scores are outside [0, 1]; if no cell with a score has a label; if ``labels`` is ``"gold"`` and ``regions``
        is None; if ``key_added`` is the name of something that another tool made.

    Warns
    -----
    UserWarning
        Names markers whose labels are too few, or contradict the scores, with the reason.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> adata.layers["nimbus"] = 0.2 + 0.2 * adata.layers["gold"]
    >>> ns.tl.adapt(adata, labels="gold", regions="fov1_labels")
    >>> adata.varm["nimbus_adapted"][["f1_before", "f1_after"]].loc["CD3"].to_list()
    [0.0, 1.0]
    """
    scores = read_layer(adata, layer)
    if key_added in (layer, labels):
        raise ValueError(f"`key_added` is {key_added!r}, a layer that is needed; choose another name.")
    fitted_key = f"{key_added}_fitted"
    earlier = check_key_added(adata, key_added, _TOOL, also=[("obs", fitted_key)])
    if outside_unit_interval(scores).any():
        raise ValueError(f"Layer {layer!r} has values outside [0, 1]; only scores can be adapted.")
    if labels == keys.GOLD and regions is None:
        raise ValueError(
            f"`labels` is {labels!r}, the labels for evaluation: name the `regions` that may be used, so that the "
            f"others are left to judge on, or put labels of cells for training into layers[{keys.GOLD_TRAINING!r}]."
        )
    truth = truth_layer(adata, labels, likely=likely)
    region, named = given_regions(adata, regions, region_key)
    codes, allowed = region.cat.codes.to_numpy(), region.isin(named).to_numpy()

    # Channel by channel: a table of millions of cells is copied once, in its own precision.
    result = np.array(scores, dtype=scores.dtype if scores.dtype.kind == "f" else np.float32)
    fitted = np.zeros(adata.n_obs, bool)
    rows, outcomes = [], []
    for i in range(adata.n_vars):
        column = scores[:, i]
        used = np.flatnonzero(judged(truth[:, i], likely=likely) & np.isfinite(column) & allowed)
        fitted[used] = True
        own, positive = column[used], truth[used, i] > 0.5
        slope, offset = fit_line(own, positive)
        if len(used):
            result[:, i] = move(column, slope, offset)
        after, unit = held_out(own, positive, codes[used])
        outcomes.append((own, after, positive))
        rows.append(
            {"slope": slope, "offset": offset, "labels": len(used), "positives": int(positive.sum())}
            | judge(own, after, positive)
            | {"held_out": unit, "reason": _reason(own, positive)}
        )
    if not fitted.any():
        raise ValueError(
            f"Layer {labels!r} labels no cell with a score in region(s) {', '.join(map(repr, named))}; there is "
            "nothing to adapt to."
        )

    table = pd.DataFrame(rows, index=adata.var_names)
    adata.layers[key_added] = result
    adata.varm[key_added] = table.astype({"held_out": "category", "reason": "category"})
    adata.obs[fitted_key] = fitted
    adata.uns[key_added] = {
        "tool": _TOOL,
        "params": {"layer": layer, "labels": labels, "likely": likely, "region_key": str(region.name)},
        "regions": sorted(set(region[fitted])),
        "held_out": judge(*(np.concatenate(parts) for parts in zip(*outcomes, strict=True))),
        "fitted_cells": fitted_key,
    }
    if doubtful := [f"{str(name)!r} ({why})" for name, why in table["reason"].items() if why not in ("", _UNLABELLED)]:
        warnings.warn(
            f"Label more cells, and look at varm[{key_added!r}], before using {', '.join(doubtful)}.",
            UserWarning,
            stacklevel=2,
        )
    log_overwritten(earlier, _TOOL)
    adapted = int((table["labels"] > 0).sum())
    logger.info("added layers[%r]: %d of %d markers adapted", key_added, adapted, adata.n_vars)


def _reason(scores: NDArray, positive: NDArray[np.bool_]) -> str:
    """Say why a marker's line is not to be trusted; empty if nothing speaks against it."""
    labels, positives = len(positive), int(positive.sum())
    if not labels:
        return _UNLABELLED
    if labels < _FEWEST or positives in (0, labels):
        what = "too few labels" if labels < _FEWEST else "labels of one class"
        return f"{what}: {positives} positive, {labels - positives} negative"
    higher = scores[positive].mean() > scores[~positive].mean()
    return "" if higher else "scores are not higher in positive cells"
