"""Several annotators: how far they agree, what they say together, and which cells to talk about."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd._table import as_list
from nimbus_sd._table import layer as read_layer
from nimbus_sd.labels._place import PLACE, cells_of, check_purpose, check_states, label_layer

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger("nimbus_sd")

# Negative, undetermined, positive.
_SIDES = (-1, 0, 1)


def agreement(adata: AnnData, layers: Sequence[str]) -> pd.DataFrame:
    """Measure how far annotators agree, marker by marker, beyond chance.

    Parameters
    ----------
    adata
        Cells x channels.
    layers
        One layer of labels for each annotator, at least two. States are positive, negative and undetermined; likely
        ones count as the others.

    Returns
    -------
    DataFrame
        One row per channel that all annotators judged a cell in (index ``channel``), and ``"all"`` of them together:
        ``cells`` (judged by all), ``agree`` (share with one state), ``kappa``: Cohen's for two annotators, Fleiss' for
        more (1 if they always agree, 0 if as often as by chance; NaN if all of them always say the same state).

    Raises
    ------
    KeyError
        If a layer does not exist.
    ValueError
        If there are fewer than two layers, a layer does not hold labels, or no cell is judged by all.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> adata.layers["second"] = adata.layers["gold"].copy()
    >>> adata.layers["second"][:400, 2] = 0
    >>> ns.labels.agreement(adata, ["gold", "second"]).loc["CD8", "kappa"].item()
    1.0
    """
    sides = _sides(_labels_of(adata, layers))
    shared = np.asarray(np.isfinite(sides).all(axis=0))
    if not shared.any():
        raise ValueError(f"No cell is judged in each of the layers {list(layers)}.")
    rows = {
        str(name): _agree(one[:, all_judged])
        for name, one, all_judged in zip(adata.var_names, np.moveaxis(sides, 2, 0), shared.T, strict=True)
        if all_judged.any()
    }
    rows["all"] = _agree(sides[:, shared])
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("channel")


def consensus(adata: AnnData, layers: Sequence[str], *, key_added: str = keys.GOLD) -> pd.DataFrame:
    """Join the labels of annotators, and list the cells that they dispute.

    A cell gets the state that more than half of its annotators see (positive, negative, undetermined), and is likely
    positive or negative if at least half of these say likely. Without such a majority it is undetermined. To settle
    disputes, correct the list and read it with :func:`from_csv`.

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
        The disputed cells, on which not all annotators see the same state: ``region``, ``instance_id``, ``channel``,
        ``label`` (the consensus), and a column for each annotator. Sets ``layers[key_added]``.

    Raises
    ------
    KeyError
        If a layer does not exist.
    ValueError
        If there are fewer than two layers or one does not hold labels; if ``key_added`` is one of them, or labels for
        training and for evaluation would be in one region.

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
    labels = _labels_of(adata, layers)
    if key_added in layers:
        raise ValueError(f"`key_added` is {key_added!r}, the labels of an annotator; choose another name.")
    joined = label_layer(adata, key_added)
    together = _majority(labels)
    known = np.isfinite(together)
    cells = cells_of(adata)
    check_purpose(adata, cells["region"][known.any(axis=1)], key_added)
    joined[known] = together[known]
    adata.layers[key_added] = joined

    sides = _sides(labels)
    with warnings.catch_warnings():
        # Cells that nobody judged.
        warnings.simplefilter("ignore", RuntimeWarning)
        rows, columns = np.nonzero(np.nanmin(sides, axis=0) < np.nanmax(sides, axis=0))
    disputed = cells.iloc[rows].assign(channel=adata.var_names[columns], label=together[rows, columns].astype(float))
    for name, one in zip(layers, labels, strict=True):
        disputed[name] = one[rows, columns].astype(float)
    logger.info("set %d labels of layers[%r], %d of them disputed", known.sum(), key_added, len(disputed))
    return disputed[[*PLACE, "label", *layers]].reset_index(drop=True)


def _labels_of(adata: AnnData, layers: Sequence[str]) -> NDArray[np.float32]:
    """Labels of each annotator, (annotators, cells, channels)."""
    names = as_list(layers)
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"`layers` is {layers!r}; it must name the layers of at least two annotators, each once.")
    labels = np.stack([read_layer(adata, name).astype(np.float32) for name in names])
    for name, one in zip(names, labels, strict=True):
        check_states(one.ravel(), f"layers[{name!r}]")
    return labels


def _sides(labels: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.sign(labels - 0.5)


def _agree(sides: NDArray[np.float32]) -> dict[str, float]:
    """Figures of cells that all annotators judged, (annotators, cells)."""
    same = (sides == sides[0]).all(axis=0)
    return {"cells": sides.shape[1], "agree": float(same.mean()), "kappa": _kappa(sides)}


def _kappa(sides: NDArray[np.float32]) -> float:
    from sklearn.metrics import cohen_kappa_score
    from statsmodels.stats.inter_rater import fleiss_kappa

    if (sides == sides[0, 0]).all():
        return float("nan")
    if len(sides) == 2:
        return float(cohen_kappa_score(*sides))
    return float(fleiss_kappa(np.stack([(sides == side).sum(axis=0) for side in _SIDES], axis=1)))


def _majority(labels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Join (annotators, cells, channels) to (cells, channels); NaN where nobody judged."""
    sides = _sides(labels)
    judges = np.isfinite(sides).sum(axis=0)
    together = np.where(judges > 0, np.float32(0.5), np.float32(np.nan))
    for side, sure in ((-1, 0.0), (1, 1.0)):
        votes = (sides == side).sum(axis=0)
        certain = (labels == sure).sum(axis=0)
        likely = 0.5 + side * 0.25
        together = np.where(2 * votes > judges, np.where(2 * certain > votes, sure, likely), together)
    return together.astype(np.float32)
