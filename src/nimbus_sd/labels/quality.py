"""How good labels are: annotators against each other, silver labels against intensities and gold ones."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from nimbus_sd import keys
from nimbus_sd._table import as_list, clusters_of, judged, scaled_arcsinh, truth_layer
from nimbus_sd._table import layer as read_layer
from nimbus_sd.labels.layers import PLACE, cells_of, check_purpose, label_layer, places, read_labels
from nimbus_sd.metrics import marker_metrics

logger = logging.getLogger("nimbus_sd")

# Types with fewer cells are not compared.
_FEWEST = 10
# Below the first, one group is dimmer than the other; below the second, they are as bright as each other.
_DIMMER, _CLEAR = 0.4, 0.6


def agreement(adata: AnnData, layers: Sequence[str]) -> pd.DataFrame:
    """Measure how far annotators agree beyond chance, marker by marker.

    Parameters
    ----------
    adata
        Cells x channels.
    layers
        One layer of labels for each annotator, at least two. Likely positive counts as positive, likely negative as
        negative.

    Returns
    -------
    DataFrame
        One row per channel in which all annotators judged a cell (index ``channel``), and ``"all"`` of them together:
        ``cells`` (judged by all), ``agree`` (share with one state), ``kappa``: Cohen's for two annotators, Fleiss' for
        more (1 if they always agree, 0 if as often as by chance; NaN if all of them always say the same state).

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> adata.layers["second"] = adata.layers["gold"].copy()
    >>> adata.layers["second"][:400, 2] = 0
    >>> ns.labels.agreement(adata, ["gold", "second"]).loc["CD8", "kappa"].item()
    1.0
    """
    sides = _sides(_read_layers(adata, layers))
    shared = np.asarray(np.isfinite(sides).all(axis=0))
    if not shared.any():
        raise ValueError(f"No cell is judged in each of the layers {list(layers)}.")
    rows = {str(adata.var_names[i]): _agree(sides[:, shared[:, i], i]) for i in np.flatnonzero(shared.any(axis=0))}
    rows["all"] = _agree(sides[:, shared])
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("channel")


def consensus(adata: AnnData, layers: Sequence[str], *, key_added: str = keys.GOLD) -> pd.DataFrame:
    """Join the labels of annotators, and list the cells that they dispute.

    A cell gets the state that more than half of its annotators see (positive or negative, likely so if at least half of
    these say likely), else undetermined. To settle disputes, correct the list and read it with :func:`from_csv`.

    Parameters
    ----------
    adata
        Cells x channels.
    layers
        One layer of labels for each annotator, at least two.
    key_added
        Name of the layer. Labels that it has of other cells stay.

    Returns
    -------
    DataFrame
        The disputed cells, of which not all annotators see the same state: ``region``, ``instance_id``, ``channel``,
        ``label`` (the consensus), and a column for each annotator. Sets ``layers[key_added]``.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> for name in ("first", "second", "third"):
    ...     adata.layers[name] = adata.layers["gold"].copy()
    >>> adata.layers["third"][0, 2] = 0.25
    >>> disputed = ns.labels.consensus(adata, ["first", "second", "third"])
    >>> disputed[["instance_id", "channel", "label"]].to_numpy().tolist()
    [[1, 'CD3', 1.0]]
    """
    labels = _read_layers(adata, layers)
    if key_added in layers:
        raise ValueError(f"`key_added` is {key_added!r}, the labels of an annotator; choose another name.")
    after = label_layer(adata, key_added)
    majority = _majority(labels)
    judged = np.isfinite(majority)
    check_purpose(adata, cells_of(adata)["region"][judged.any(axis=1)], key_added)
    after[judged] = majority[judged]
    adata.layers[key_added] = after

    # NaN, of who did not judge, is neither the smallest nor the largest.
    sides = _sides(labels)
    rows, columns = np.nonzero(np.fmin.reduce(sides) < np.fmax.reduce(sides))
    disputed = places(adata, rows, columns).assign(label=majority[rows, columns].astype(float))
    for name, of_annotator in zip(as_list(layers), labels, strict=True):
        disputed[name] = of_annotator[rows, columns].astype(float)
    logger.info("set %d labels of layers[%r], %d of them disputed", judged.sum(), key_added, len(disputed))
    return disputed[[*PLACE, "label", *layers]].reset_index(drop=True)


def check_silver(
    adata: AnnData, *, cell_type_key: str | None = "cell_type", layer: str = keys.INTEGRATED, silver: str = keys.SILVER
) -> pd.DataFrame:
    """Say of each marker how well its silver labels agree with intensities, the worst first.

    The paper compared labels with images by eye and left out markers that disagreed (Rumberger et al., "Automatic
    creation of silver standard labels"). A wrong entry of the matrix shows as a positive type that is dimmer than a
    negative one; a poor stain, or wrong types, as an AUROC near 0.5.

    Parameters
    ----------
    adata
        Cells x channels.
    cell_type_key
        Column of ``obs`` with the types that the labels are from. None for labels from gates.
    layer, silver
        Layers of intensities and of labels.

    Returns
    -------
    DataFrame
        One row per labelled marker (index ``channel``), sorted by the smaller one of ``auroc`` and ``separation``:

        - ``positives``, ``negatives``: cells
        - ``auroc``: chance that a positive cell is brighter than a negative one
        - ``effect_size``: Cohen's d of arcsinh(x / c), positive minus negative cells; c is the median of the channel's
          values above 0
        - ``separation``: the same chance as ``auroc``, for the cells of the dimmest positive and the brightest
          negative type, by their medians; types of under 10 cells do not count
        - ``positive_type``, ``negative_type``: these two
        - ``reason``: what contradicts the labels (a ``separation`` or ``auroc`` under 0.6, a missing class), or empty

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> adata.layers["integrated_expression"] = adata.X
    >>> names = ["CD4 T cell", "CD8 T cell", "B cell", "macrophage", "epithelium", "other"]
    >>> matrix = {"CD3": [1, 1, 0, 0, 0, 0], "CD20": [0, 0, 1, 0, 0, 0], "CD8": [0, 0, 1, 0, 0, 0]}
    >>> ns.labels.silver(adata, pd.DataFrame(matrix, index=names))
    >>> ns.labels.check_silver(adata)["reason"].to_dict()
    {'CD8': "'CD8 T cell' (negative) is brighter than 'B cell' (positive)", 'CD3': '', 'CD20': ''}
    """
    labels = truth_layer(adata, silver)
    values = scaled_arcsinh(read_layer(adata, layer))
    types = None if cell_type_key is None else clusters_of(adata, cell_type_key)
    rows = {}
    for i in np.flatnonzero(judged(labels).any(axis=0)):
        kept = judged(labels[:, i]) & np.isfinite(values[:, i])
        cells = pd.DataFrame({"value": values[kept, i], "positive": labels[kept, i] > 0.5})
        cells["type"] = None if types is None else types[kept]
        rows[str(adata.var_names[i])] = _compare(cells)
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("channel")
    worst = table[["auroc", "separation"]].min(axis=1)
    return table.loc[worst.sort_values(kind="stable").index]


def silver_noise(
    adata: AnnData, *, silver: str = keys.SILVER, gold: str = keys.GOLD, by: str | Sequence[str] | None = None
) -> pd.DataFrame:
    """Measure the noise of silver labels against gold ones, the noisiest marker first (Rumberger et al., Fig. 2d).

    Parameters
    ----------
    adata
        Cells x channels.
    silver, gold
        Layers of labels. Cells that either of them leaves out (0.5, NaN) do not count.
    by
        Column of ``obs``, or several: noise of each group of cells. Types show a marker that is wrong in the matrix.

    Returns
    -------
    DataFrame
        One row per marker, and group if asked for, that has a cell to compare: ``cells``, ``positives`` (by gold),
        ``wrong`` (share of silver labels), ``wrong_positives`` (share of the silver positive cells that gold calls
        negative), ``missed_positives`` (share of the gold positive cells that silver calls negative), and of
        :func:`nimbus_sd.metrics.marker_metrics` ``precision``, ``recall``, ``specificity``, ``f1``.

    Examples
    --------
    >>> import pandas as pd
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> ns.labels.silver(adata, pd.DataFrame({"CD8": [1, 1, 0, 0, 0, 0]}, index=[
    ...     "CD4 T cell", "CD8 T cell", "B cell", "macrophage", "epithelium", "other"]))
    >>> noise = ns.labels.silver_noise(adata, by="cell_type")
    >>> noise.index[0], float(noise["wrong"].iloc[0])
    (('CD4 T cell', 'CD8'), 1.0)
    """
    metrics = marker_metrics(adata, silver, gold, threshold=0.5, by=by)
    metrics = metrics[metrics["cells"] > 0]
    cells, positives = metrics["cells"], metrics["positives"]
    true_positives = (metrics["recall"] * positives).fillna(0).round()
    false_positives = ((1 - metrics["specificity"]) * (cells - positives)).fillna(0).round()
    missed = positives - true_positives
    noise = metrics[["cells", "positives"]].assign(
        wrong=(false_positives + missed) / cells,
        wrong_positives=false_positives / (true_positives + false_positives).replace(0, np.nan),
        missed_positives=missed / positives.replace(0, np.nan),
    )
    noise = noise.join(metrics[["precision", "recall", "specificity", "f1"]])
    return noise.sort_values("wrong", ascending=False, kind="stable")


def _read_layers(adata: AnnData, layers: Sequence[str]) -> NDArray[np.float32]:
    """Read the labels of each annotator, (annotators, cells, channels)."""
    names = as_list(layers)
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"`layers` is {layers!r}; it must name the layers of at least two annotators, each once.")
    return np.stack([read_labels(adata, name) for name in names])


def _sides(labels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 1 for positive, 0 for undetermined, -1 for negative."""
    return np.sign(labels - 0.5)


def _agree(sides: NDArray[np.float32]) -> dict[str, float]:
    """Return the figures of cells that all annotators judged, (annotators, cells)."""
    from statsmodels.stats.inter_rater import fleiss_kappa

    kappa = float("nan")
    if (sides != sides[0, 0]).any():
        counts = np.stack([(sides == side).sum(axis=0) for side in (-1, 0, 1)], axis=1)
        kappa = float(cohen_kappa_score(*sides) if len(sides) == 2 else fleiss_kappa(counts))
    return {"cells": sides.shape[1], "agree": float((sides == sides[0]).all(axis=0).mean()), "kappa": kappa}


def _majority(labels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Join (annotators, cells, channels) to (cells, channels); NaN where nobody judged."""
    sides = _sides(labels)
    judges = np.isfinite(sides).sum(axis=0)
    majority = np.where(judges > 0, np.float32(0.5), np.float32(np.nan))
    for side, sure, likely in ((-1, 0.0, 0.25), (1, 1.0, 0.75)):
        votes = (sides == side).sum(axis=0)
        certain = (labels == sure).sum(axis=0)
        majority = np.where(2 * votes > judges, np.where(2 * certain > votes, sure, likely), majority)
    return majority.astype(np.float32)


def _compare(cells: pd.DataFrame) -> dict[str, object]:
    """Compare positive with negative cells, and the two types of either kind that are hardest to tell apart."""
    value = cells["value"]
    positive, negative = value[cells["positive"]].to_numpy(), value[~cells["positive"]].to_numpy()
    auroc, separation, dimmest, brightest, reason = _auroc(positive, negative), float("nan"), "", "", ""
    if not positive.size or not negative.size:
        reason = f"no {'negative' if positive.size else 'positive'} cells"
    elif auroc < _CLEAR:
        how = "dimmer than" if auroc < _DIMMER else "as bright as"
        reason = f"positive cells are {how} negative ones (AUROC {auroc:.2f})"
    types = cells.groupby("type", observed=True)
    medians = types["value"].median()[types.size() >= _FEWEST]
    share = types["positive"].mean()[medians.index]
    dim, bright = medians[share == 1], medians[share == 0]
    if len(dim) and len(bright):
        dimmest, brightest = str(dim.idxmin()), str(bright.idxmax())
        separation = _auroc(*(value[cells["type"] == name].to_numpy() for name in (dimmest, brightest)))
        if separation < _CLEAR:
            how = "brighter than" if separation < _DIMMER else "as bright as"
            reason = f"{brightest!r} (negative) is {how} {dimmest!r} (positive)"
    figures = {"auroc": auroc, "effect_size": _effect_size(positive, negative), "separation": separation}
    words = {"positive_type": dimmest, "negative_type": brightest, "reason": reason}
    return {"positives": positive.size, "negatives": negative.size, **figures, **words}


def _auroc(positive: NDArray, negative: NDArray) -> float:
    if not positive.size or not negative.size:
        return float("nan")
    truth = np.repeat([True, False], [positive.size, negative.size])
    return float(roc_auc_score(truth, np.concatenate([positive, negative])))


def _effect_size(positive: NDArray, negative: NDArray) -> float:
    """Cohen's d: difference of means in units of the pooled standard deviation."""
    if min(positive.size, negative.size) < 2:
        return float("nan")
    squares = float(((positive - positive.mean()) ** 2).sum()) + float(((negative - negative.mean()) ** 2).sum())
    difference = float(positive.mean() - negative.mean())
    return difference / np.sqrt(squares / (positive.size + negative.size - 2)) if squares > 0 else float("nan")
