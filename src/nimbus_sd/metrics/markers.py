"""How well a layer agrees with the truth: marker by marker, in groups of cells, and averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from nimbus_sd import keys
from nimbus_sd._table import as_list, truth_states
from nimbus_sd.metrics.bootstrap import Average, estimate_markers, macro_averages, split
from nimbus_sd.metrics.judged import warn_if_fitted
from nimbus_sd.metrics.thresholds import Threshold, called_layers


def marker_metrics(
    adata: AnnData,
    pred: str | Sequence[str] = keys.NIMBUS,
    truth: str = keys.GOLD,
    *,
    threshold: Threshold | Mapping[str, Threshold] = 0.5,
    by: str | Sequence[str] | None = None,
    average: Average | None = None,
    likely: bool = True,
    n_boot: int = 0,
    rng: int | np.random.Generator = 0,
    region_key: str | None = None,
) -> pd.DataFrame:
    """Compare layers with the truth (Rumberger et al., "Validation and benchmarking").

    Parameters
    ----------
    adata
        Cells x channels.
    pred
        Layer of scores, or of any values that are larger for positive cells; or several layers, each compared on the
        cells that it has a value for. Undetermined cells of ``"silver"`` and ``"gold"`` have none.
    truth
        Layer of labels in [0, 1]: above 0.5 positive, below 0.5 negative; 0.5 (undetermined) and NaN are left out.
    threshold
        Cells at or above it are called positive; in units of the layer. A number, a mapping from each channel to one,
        or a rule of :func:`find_threshold`, applied to all the layer's values in the channel, judged or not:
        ``"otsu"``, ``"mixture"``, ``"quantile"``, or ``"oracle"``, which knows the truth and is a ceiling. With
        several layers also a mapping from each of them to one of these.
    by
        Column of ``obs``, or several, such as ``"region"``: one result for each group of cells. Cells without a value
        there are left out. Thresholds are those of the whole table.
    average
        ``"macro"`` takes the mean over markers in each group, and with ``by`` adds the mean over groups: the paper's
        way (Fig. 3), with data sets as groups. A metric that is NaN for a marker does not count. ``"pooled"`` puts
        the cells of all markers together, and with ``by`` adds all groups together; the authors' code for Fig. 4
        takes the mean of such groups.
    likely
        Whether cells labelled 0.75 and 0.25 (likely positive, likely negative) count.
    n_boot
        Number of bootstrap draws for 95 % intervals; 1000 is usual. Thresholds are not found again in each draw: an
        interval is that of these thresholds in other regions.
    rng
        Seed or generator of the draws.
    region_key
        Column of ``obs`` with the region of each cell, for the bootstrap; by default the one that the table's
        annotation names, else ``"region"``.

    Returns
    -------
    DataFrame
        One row per marker, index ``channel``; in front of it levels ``layer`` (if ``pred`` is a list) and those of
        ``by``. Averages have no level ``channel`` if they have another one; the mean over groups is the last row of a
        layer, ``"mean"``, and all groups together ``"all"``.

        ``cells`` (with a label and a value), ``positives``, ``share_positive`` (of the cells, by the truth),
        ``precision``, ``recall``, ``specificity``, ``f1``, ``accuracy``, ``auroc``, ``average_precision``,
        ``threshold`` (NaN in averages of several). In macro averages cells and positives are sums.

        With ``n_boot`` also ``<metric>_low`` and ``<metric>_high`` (see ``metrics.bootstrap.share_interval``),
        ``n_regions`` (with a judged cell), ``resampled``: ``"regions"``, or ``"cells"`` where there are fewer than 5
        regions; such an interval is too narrow for other regions than these.

        A metric without cells to compute it from is NaN: a marker without positive cells has only specificity, one
        without negative cells no specificity and AUROC. Where cells are positive but none is called, precision is 0.

    Raises
    ------
    ValueError
        If labels are outside of [0, 1] or none says positive or negative.

    Warns
    -----
    UserWarning
        If a threshold as for scores meets a layer of other values, or a layer is judged on cells that
        :func:`nimbus_sd.tl.calibrate` or :func:`nimbus_sd.tl.adapt` fitted it on.

    Examples
    --------
    Scores beside intensities, each with a threshold of its own:

    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> adata.layers["mean"] = 100 * adata.layers["gold"]
    >>> both = ns.metrics.marker_metrics(adata, ["gold", "mean"], threshold={"gold": 0.5, "mean": "otsu"})
    >>> both.loc[("mean", "CD3"), "auroc"].item()
    1.0
    >>> by_region = ns.metrics.marker_metrics(adata, ["gold"], by="region", average="macro")
    >>> by_region["recall"].to_dict()
    {('gold', 'fov1_labels'): 1.0, ('gold', 'fov2_labels'): 1.0, ('gold', 'mean'): 1.0}
    """
    if average not in (None, "macro", "pooled"):
        raise ValueError(f"`average` is {average!r}; it must be None, 'macro' or 'pooled'.")
    names, columns = as_list(pred), as_list(by or [])
    if not names:
        raise ValueError("`pred` names no layer; pass one or several.")
    states = truth_states(adata, truth, likely=likely)
    groups, whole = split(adata, states, columns, n_boot=n_boot, rng=rng, region_key=region_key)
    measured = groups
    if average == "pooled":
        measured = [*groups, whole] if columns else [whole]
    places = [group.key for group in measured]
    if average is None:
        places = [(*place, channel) for place in places for channel in adata.var_names]
    elif average == "macro":
        places = [*filter(None, places), ("mean",) * max(1, len(columns))]

    rows, index = [], []
    for name, values, valued, cuts in called_layers(adata, names, states, threshold):
        warn_if_fitted(adata, name, states)
        parts = [estimate_markers(values, valued, cuts, group, average) for group in measured]
        if average == "macro":
            parts = [macro_averages(parts, groups, whole)[-len(places) :]]
        rows += [estimate.row() for estimates in parts for estimate in estimates]
        index += places if isinstance(pred, str) else [(name, *place) for place in places]

    levels = [*([] if isinstance(pred, str) else ["layer"]), *columns, *([] if columns and average else ["channel"])]
    if len(levels) == 1:
        return pd.DataFrame(rows, index=pd.Index([place for (place,) in index], name=levels[0]))
    return pd.DataFrame(rows, index=pd.MultiIndex.from_tuples(index, names=levels))
