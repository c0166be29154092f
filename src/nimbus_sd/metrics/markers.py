"""How well a layer agrees with the truth: marker by marker, in groups of cells, and averaged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd._table import as_list, layer
from nimbus_sd.metrics._calls import Threshold, calls, threshold_by_layer, thresholds_of
from nimbus_sd.metrics._counts import Judged, pool
from nimbus_sd.metrics._estimate import Estimate, estimate, macro, mean
from nimbus_sd.metrics._fitted import warn_if_fitted
from nimbus_sd.metrics._frame import Frame, Group, frame

if TYPE_CHECKING:
    from anndata import AnnData

Average = Literal["macro", "pooled"]


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
        Layer of scores, or of any values that are larger for positive cells; or several layers, side by side, each
        on the cells that it has a value for. Undetermined cells of ``"silver"`` and ``"gold"`` have none.
    truth
        Layer of labels in [0, 1]: above 0.5 positive, below 0.5 negative; 0.5 (undetermined) and NaN are left out.
    threshold
        Cells at or above it are called positive; it is in units of the layer. A number, a mapping from each channel
        to one, or a rule of :func:`find_threshold`, applied to all the layer's values in the channel, judged or not:
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
        Number of bootstrap draws for 95 % intervals; 1000 is usual. Thresholds stay as they were found: an interval
        is that of these thresholds in other regions, not of finding them again.
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

        With ``n_boot`` also ``<metric>_low`` and ``<metric>_high``, ``n_regions`` (with a judged cell), ``resampled``:
        ``"regions"``, or ``"cells"`` where there are fewer than 5 regions; such an interval is too narrow for other
        regions than these. How they are computed, and how often they cover: ``metrics.bootstrap.share_interval``.

        A metric without cells to compute it from is NaN: a marker without positive cells has only specificity, one
        without negative cells no specificity and AUROC. Where cells are positive but none is called, precision is 0.

    Raises
    ------
    KeyError
        If a layer or a column of ``obs`` does not exist, or a mapping of thresholds lacks a channel or a layer.
    ValueError
        If labels are outside of [0, 1] or none says positive or negative; if an option has a value that it cannot.

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
    >>> float(ns.metrics.marker_metrics(adata, pred="gold").loc["CD3", "f1"])
    1.0
    >>> found = ns.metrics.marker_metrics(adata, ["gold"], by="region", average="macro")
    >>> found["recall"].to_dict()
    {('gold', 'fov1_labels'): 1.0, ('gold', 'fov2_labels'): 1.0, ('gold', 'mean'): 1.0}
    """
    if average not in (None, "macro", "pooled"):
        raise ValueError(f"`average` is {average!r}; it must be None, 'macro' or 'pooled'.")
    names, columns = as_list(pred), as_list(by or [])
    if not names:
        raise ValueError("`pred` names no layer; pass one or several.")
    base = frame(adata, truth, columns, likely=likely, n_boot=n_boot, rng=rng, region_key=region_key)
    index: list[tuple] = []
    rows: list[dict[str, float | str]] = []
    for name, wanted in threshold_by_layer(threshold, names).items():
        values = layer(adata, name)
        warn_if_fitted(adata, name, base.judged)
        cuts = thresholds_of(values, name, base.labels, adata.var_names, wanted, likely=likely)
        for key, found in _compare(values, name, cuts, base, adata.var_names, average, grouped=bool(columns)):
            index.append(key if isinstance(pred, str) else (name, *key))
            rows.append(found.row())
    levels = [*([] if isinstance(pred, str) else ["layer"]), *columns]
    if not columns or average is None:
        levels.append("channel")
    return pd.DataFrame(rows, index=_index(index, levels))


def _compare(
    values: NDArray,
    name: str,
    cuts: Sequence[float],
    base: Frame,
    channels: Sequence[str],
    average: Average | None,
    *,
    grouped: bool,
) -> Iterator[tuple[tuple, Estimate]]:
    """Yield the rows of one layer: their place, in groups and channels, and figures."""

    def judged_in(group: Group) -> Iterator[Judged]:
        return calls(values, name, base.labels, cuts, group.cells, likely=base.likely)

    if average == "pooled":
        cut = cuts[0] if len(set(cuts)) == 1 else float("nan")
        for group in [*base.groups, base.whole] if grouped else [base.whole]:
            key = group.key * len(base.groups[0].key) if grouped and group is base.whole else group.key
            yield key, estimate(pool(list(judged_in(group))), cut, group)
        return
    averages = []
    for group in base.groups:
        resampled = group.sample.resampled if group.sample and average else None
        parts = [estimate(one, cut, group, resampled) for one, cut in zip(judged_in(group), cuts, strict=True)]
        if average is None:
            yield from (((*group.key, channel), part) for channel, part in zip(channels, parts, strict=True))
            continue
        averages.append(macro(parts, group))
        yield group.key or ("mean",), averages[-1]
    if averages and grouped:
        yield ("mean",) * len(base.groups[0].key), mean(averages, base.groups, base.whole)


def _index(places: list[tuple], levels: list[str]) -> pd.Index:
    if len(levels) == 1:
        return pd.Index([place[0] for place in places], name=levels[0])
    return pd.MultiIndex.from_tuples(places, names=levels)
