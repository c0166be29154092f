"""How much confounders say about which calls are wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from nimbus_sd import keys
from nimbus_sd._table import as_list, layer, region_column, truth_layer
from nimbus_sd.metrics._calls import Threshold, calls, threshold_by_layer, thresholds_of
from nimbus_sd.metrics._pairs import Pairs, estimate, reason
from nimbus_sd.metrics.confounders import OF_CELL, OF_REGION, confounders

if TYPE_CHECKING:
    from anndata import AnnData


def confounder_information(
    adata: AnnData,
    pred: str | Sequence[str] = keys.NIMBUS,
    truth: str = keys.GOLD,
    *,
    threshold: Threshold | Mapping[str, Threshold] = 0.5,
    likely: bool = True,
    radius: float = 120.0,
    unit: Literal["px", "um"] = "px",
    max_cells: int = 3000,
    n_permutations: int = 100,
    n_boot: int = 100,
    rng: int | np.random.Generator = 0,
    region_key: str | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Measure the mutual information between each confounder and being wrong.

    As in the paper's "Confounders analysis" (Fig. 4d).

    Each judged pair of a cell and a marker is called right or wrong; pairs of all markers are taken together. The
    information is estimated from nearest neighbours (Ross 2014, :func:`sklearn.feature_selection.mutual_info_classif`
    with 3 neighbours), in nats; it can be no more than the entropy of being wrong.

    The null shuffles the confounder between those that have a value of their own: cells for size and density, which
    all markers share, the channels of regions for heterogeneity and rarity, else pairs. So a few regions do not count
    as thousands of cells. Neighbouring cells are alike in size and density too, of which it does not know: trust the
    interval rather than the p value where errors cluster in space.

    The interval is not a bootstrap: regions drawn twice would put equal cells side by side, which the
    nearest-neighbour estimate takes for information. Halves of the regions are drawn without replacement instead,
    whose spread is the standard error of the whole (delete-half jackknife, Shao & Wu 1989), and the interval is
    Student's with as many degrees of freedom as regions but one. Near 0, which no estimate falls below, the null says
    more than the interval.

    Parameters
    ----------
    adata
        Cells x channels, as for :func:`confounders`.
    pred
        Layer that calls cells positive, or several, side by side, each on the cells that it has a value for.
    truth
        Layer of labels in [0, 1].
    threshold, likely
        As for :func:`marker_metrics`.
    radius, unit
        As for :func:`confounders`.
    max_cells
        Pairs of cell and marker that are used, at most: they are drawn once, the same for all layers where these have
        values. Time grows with it.
    n_permutations
        Number of shuffles of the null; 0 for none.
    n_boot
        Number of halves drawn for 95 % intervals; 0 for none.
    rng
        Seed or generator of all draws.
    region_key
        Column of ``obs`` with the region of each cell, as for :func:`confounders`.
    progress
        Show a progress bar over layers and confounders.

    Returns
    -------
    DataFrame
        Index ``layer``, ``confounder``:

        - ``information``: in nats; ``information_low``, ``information_high``: its 95 % interval
        - ``null_95``: 95 % quantile of the null; ``p_value``: share of the null at or above the estimate, which
          counts as one of it
        - ``pairs``: used, of ``pairs_judged``; ``wrong``: how many of them are
        - ``n_regions``: with a pair; ``resampled``: ``"regions"``, or ``"cells"`` (pairs) where there are fewer than
          5 regions; such an interval is too narrow for other regions than these
        - ``reason``: why there is no estimate, else empty

    Raises
    ------
    KeyError
        As :func:`confounders`, or if a layer has no threshold.
    ValueError
        As :func:`confounders`, or if a number of draws is negative or ``max_cells`` is not positive.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.predict(ns.datasets.example(), channels=["CD3", "CD8"], progress=False)
    >>> found = ns.metrics.confounder_information(
    ...     adata,
    ...     ["nimbus", "integrated_expression"],
    ...     threshold={"nimbus": 0.5, "integrated_expression": "otsu"},
    ...     max_cells=500,
    ...     n_permutations=10,
    ...     n_boot=0,
    ...     progress=False,
    ... )
    >>> found.loc[("nimbus", "spill_over"), "reason"]
    'not measured; run `tl.cell_features` first'
    """
    if max_cells < 1 or min(n_permutations, n_boot) < 0:
        raise ValueError(
            f"`max_cells` is {max_cells}, `n_permutations` {n_permutations} and `n_boot` {n_boot}; the first must be "
            "at least 1, the others 0 (none) or more."
        )
    names, labels = as_list(pred), truth_layer(adata, truth, likely=likely)
    thresholds = threshold_by_layer(threshold, names)
    errors = {name: _wrong(adata, name, labels, thresholds[name], likely=likely) for name in names}
    found = confounders(adata, truth, radius=radius, unit=unit, likely=likely, region_key=region_key)
    region = pd.factorize(region_column(adata, region_key))[0]

    draw, *seeds = np.random.default_rng(rng).spawn(1 + len(names))
    order = draw.random(labels.shape, np.float32).ravel()
    rows = {}
    bar = tqdm(total=len(names) * len(found), desc="confounders", disable=not progress)
    for (name, wrong), seed in zip(errors.items(), seeds, strict=True):
        judged = np.flatnonzero(wrong.ravel() >= 0)
        used = judged
        if len(used) > max_cells:
            used = np.sort(used[np.argpartition(order[used], max_cells)[:max_cells]])
        cell, channel = np.divmod(used, labels.shape[1])
        of_region = region[cell] * labels.shape[1] + channel
        for confounder, table in found.items():
            values = table.to_numpy()[cell, channel].astype(np.float64)
            owner = cell if confounder in OF_CELL else of_region if confounder in OF_REGION else used
            pairs = Pairs(values, wrong[cell, channel] > 0, region[cell], cell, owner).part(np.isfinite(values))
            rows[name, confounder] = {
                **estimate(pairs, n_permutations, n_boot, seed.spawn(1)[0]),
                "pairs": len(pairs.values),
                "pairs_judged": len(judged),
                "wrong": int(pairs.wrong.sum()),
                "reason": _reason(adata, pairs, confounder, judged=len(judged)),
            }
            bar.update()
    bar.close()
    result = pd.DataFrame.from_dict(rows, orient="index")
    result.index = pd.MultiIndex.from_tuples(list(rows), names=["layer", "confounder"])
    return result


def _wrong(adata: AnnData, name: str, labels: NDArray, threshold: Threshold, *, likely: bool) -> NDArray[np.int8]:
    """Whether each cell is called wrong in each channel: 1 or 0, -1 where there is nothing to judge."""
    values = layer(adata, name)
    cuts = thresholds_of(values, name, labels, adata.var_names, threshold, likely=likely)
    wrong = np.full(labels.shape, -1, np.int8)
    for i, one in enumerate(calls(values, name, labels, cuts, np.arange(len(labels)), likely=likely)):
        wrong[one.cells, i] = one.called != one.positive
    return wrong


def _reason(adata: AnnData, pairs: Pairs, confounder: str, *, judged: int) -> str:
    """Say why there is no estimate, and what can be done."""
    if not judged:
        return "no cell has both a label and a value"
    if confounder == "spill_over" and keys.BOUNDARY not in adata.obsp:
        return "not measured; run `tl.cell_features` first"
    return reason(pairs)
