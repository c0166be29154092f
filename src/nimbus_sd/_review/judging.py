"""Whole regions judged by hand, blind to scores: who judged what, where annotators differ, and the gold of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from nimbus_sd import keys, labels
from nimbus_sd._table import region_column

#: Of each annotator, and marker: the label of every cell, NaN without one.
Given = Mapping[str, Mapping[str, NDArray[np.float32]]]
#: Layer of what was settled where annotators differ, and those that no annotator's labels may be in.
SETTLED: Final = "gold_settled"
RESERVED: Final = (keys.GOLD_TRAINING, SETTLED)
_MOST: Final = 500


def layer_of(annotator: str) -> str:
    """Name the layer of an annotator's labels; a ValueError if another has that name."""
    if f"gold_{annotator}" in RESERVED:
        raise ValueError(f"An annotator cannot be named {annotator!r}: that layer is kept for something else.")
    return f"gold_{annotator}"


def summary(adata: AnnData, given: Given, trained: Collection[str]) -> dict[str, Any]:
    """Return regions with what was judged of them, those that can be drawn, agreement, and cells that are disputed.

    ``trained`` are regions with labels for training, which cannot be judged for evaluation.
    """
    region = region_column(adata).astype(str).to_numpy()
    evaluation = set(labels.evaluation_regions(adata))
    names = list(dict.fromkeys(region))
    regions = []
    for name in names:
        there = region == name
        counts = {
            who: {marker: n for marker, states in by.items() if (n := int(np.isfinite(states[there]).sum()))}
            for who, by in given.items()
        }
        judged = {who: by for who, by in counts.items() if by}
        regions.append({"name": name, "evaluation": name in evaluation, "cells": int(there.sum()), "judged": judged})
    free = [name for name in names if name not in evaluation and name not in trained]
    refused = None
    if len(names) < 2:
        refused = "There is one region, and cells to train on and regions to judge by must not be the same."
    elif not evaluation and not free:
        refused = "Every region has cells that were labelled for training; labels to judge by must come from others."
    return {"regions": regions, "free": free, "refused": refused, **_differences(adata, given)}


def _differences(adata: AnnData, given: Given) -> dict[str, Any]:
    """Compare annotators on the cells that any of them judged."""
    markers = list(dict.fromkeys(marker for by in given.values() for marker in by))
    missing = np.full(adata.n_obs, np.nan, np.float32)
    if len(given) < 2 or not markers:
        return {"agreement": [], "disputed": []}
    stacked = {who: np.stack([by.get(marker, missing) for marker in markers], axis=1) for who, by in given.items()}
    rows = np.flatnonzero(np.any([np.isfinite(states).any(axis=1) for states in stacked.values()], axis=0))
    # Each cell is named by its row.
    obs = pd.DataFrame({keys.REGION: "all", keys.INSTANCE: rows}, index=rows.astype(str))
    layers = {layer_of(who): states[rows] for who, states in stacked.items()}
    judged = AnnData(obs=obs, var=pd.DataFrame(index=markers), layers=layers)
    try:
        table = labels.agreement(judged, list(layers)).rename_axis("marker").reset_index()
    except ValueError:
        # No cell is judged by all of them.
        return {"agreement": [], "disputed": []}
    disputed = labels.consensus(judged, list(layers), key_added="both").head(_MOST)
    cells = [
        {
            "row": int(row["instance_id"]),
            "marker": row["channel"],
            "states": {who: state(row[layer_of(who)]) for who in given},
        }
        for _, row in disputed.iterrows()
    ]
    return {"agreement": table.to_dict("records"), "disputed": cells}


def state(label: float) -> int:
    """Return the page's number of a label: 0 none, 1 negative to 5 positive."""
    return 0 if np.isnan(label) else int(4 * label) + 1


def write(adata: AnnData, given: Given, settled: Mapping[str, NDArray[np.float32]]) -> list[str]:
    """Put labels into the table: a layer for each annotator, and ``gold``, their consensus, with what was settled.

    A ValueError, before anything is changed, where a region is for training. Returns the layers written.
    """
    evaluation, region = labels.evaluation_regions(adata), region_column(adata).astype(str)
    layers: dict[str, NDArray[np.float32]] = {}
    for layer, by in [*((layer_of(who), by) for who, by in given.items()), (SETTLED, settled)]:
        if by:
            values = np.array(adata.layers.get(layer, np.full(adata.shape, np.nan)), np.float32)
            for marker, states in by.items():
                values[:, adata.var_names.get_loc(marker)] = states
            if np.isfinite(values[~region.isin(evaluation)]).any():
                raise ValueError("Labels to judge by are of regions that were drawn for evaluation only.")
            layers[layer] = values
    if not layers:
        return []
    own = [name for name in layers if name != SETTLED]
    adata.layers.update(layers)
    if len(own) > 1:
        labels.consensus(adata, own)
    gold = np.array(adata.layers.get(keys.GOLD, np.full(adata.shape, np.nan)), np.float32)
    # Of one annotator there is no consensus; what was settled is the last word.
    for name in [*own[: len(own) == 1], *(name for name in layers if name == SETTLED)]:
        gold = np.where(np.isfinite(layers[name]), layers[name], gold)
    adata.layers[keys.GOLD] = gold
    return [*layers, keys.GOLD]
