"""Several annotators: how far they agree, what they say together, and which cells to talk about."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd._table import as_list
from nimbus_sd.labels.layers import PLACE, cells_of, check_purpose, label_layer, places, read_labels

logger = logging.getLogger("nimbus_sd")


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
    ValueError
        A layer does not hold labels, or a region would be for training and for evaluation.

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


def _read_layers(adata: AnnData, layers: Sequence[str]) -> NDArray[np.float32]:
    """Read the labels of each annotator, (annotators, cells, channels)."""
    names = as_list(layers)
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"`layers` is {layers!r}; it must name the layers of at least two annotators, each once.")
    return np.stack([read_labels(adata, name) for name in names])


def _sides(labels: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.sign(labels - 0.5)


def _agree(sides: NDArray[np.float32]) -> dict[str, float]:
    """Return the figures of cells that all annotators judged, (annotators, cells)."""
    from sklearn.metrics import cohen_kappa_score
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
