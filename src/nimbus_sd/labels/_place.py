"""Putting labels of single cells into a layer, each where it belongs and none lost."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd._table import check_table, check_writable, instance_column, region_column
from nimbus_sd._table import layer as read_layer
from nimbus_sd.labels._states import WORDS, listed
from nimbus_sd.spatial import not_found

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger("nimbus_sd")

#: Columns of a table of labels: where a label belongs. A fourth, ``label``, is in [0, 1], or NaN for not judged.
PLACE = ["region", "instance_id", "channel"]


def cells_of(adata: AnnData) -> pd.DataFrame:
    """Return region (text) and instance id (int64) of every cell of a table."""
    return pd.DataFrame(
        {"region": region_column(adata).astype(str), "instance_id": instance_column(adata).astype("int64")}
    )


def evaluation_regions(adata: AnnData) -> list[str]:
    """Name the regions that are for evaluation, and so must be kept out of training.

    Those that :func:`draw_regions` drew, and all others with a label in ``layers["gold"]``.

    Parameters
    ----------
    adata
        Cells x channels.

    Returns
    -------
    list of str
        In the order of the table.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> ns.labels.evaluation_regions(adata)
    ['fov1_labels', 'fov2_labels']
    """
    check_table(adata)
    chosen = np.zeros(adata.n_obs, bool)
    if keys.EVALUATION in adata.obs:
        chosen |= adata.obs[keys.EVALUATION].astype("boolean").fillna(False).to_numpy(bool)
    if keys.GOLD in adata.layers:
        chosen |= np.isfinite(read_layer(adata, keys.GOLD)).any(axis=1)
    return [str(name) for name in region_column(adata)[chosen].astype(str).unique()]


def put_labels(adata: AnnData, table: pd.DataFrame, key_added: str, source: str) -> None:
    """Write labels into a layer, over those that the cells have there; all other cells keep theirs.

    Parameters
    ----------
    adata
        The table of cells.
    table
        `PLACE` and ``label``.
    key_added
        Name of the layer; it is made if it is not there.
    source
        Where the labels are from, for messages.

    Raises
    ------
    KeyError
        A region or channel is not in the table of cells.
    ValueError
        No label is of a cell of the table; a label is none of the five states; a cell has two; the layer holds
        something else; labels for training are of an evaluation region, or the other way round.

    Warns
    -----
    UserWarning
        Says how many cells are not in the table of cells.
    """
    before = label_layer(adata, key_added)
    check_states(table["label"], source)
    cells = cells_of(adata)
    check_names(adata, table["region"].unique(), table["channel"].unique(), f" (named in {source})")
    table = table.drop_duplicates()
    if len(twice := table[table.duplicated(PLACE, keep=False)]):
        region, cell, channel = twice.iloc[0][PLACE]
        both = [
            WORDS.get(float(one), "not judged")
            for one in twice[(twice[PLACE] == twice.iloc[0][PLACE]).all(axis=1)]["label"]
        ]
        raise ValueError(
            f"{source} labels {len(twice.drop_duplicates(PLACE))} cells in more than one way, such as cell {cell} of "
            f"{region!r} for {channel!r}: {' and '.join(both)}."
        )
    rows = pd.MultiIndex.from_frame(cells).get_indexer(pd.MultiIndex.from_frame(table[PLACE[:2]]))
    if not (rows >= 0).any():
        there = f"{len(table)} labels, none of them of a cell of the table" if len(table) else "no labels"
        raise ValueError(f"{source} has {there}; nothing was changed. Are its cells from the same segmentation?")
    if (rows < 0).any():
        lost = table.loc[rows < 0, PLACE[:2]].drop_duplicates()
        region, cell = lost.iloc[0]
        warnings.warn(
            f"{source} labels {len(lost)} cells that the table has not, such as cell {cell} of {region!r}; their "
            "labels were left out. Are they from the same segmentation?",
            UserWarning,
            stacklevel=3,
        )
    table, rows = table[rows >= 0], rows[rows >= 0]
    check_purpose(adata, table["region"], key_added)
    columns = adata.var_names.get_indexer(table["channel"])
    after = before.copy()
    after[rows, columns] = table["label"].to_numpy(np.float32)
    adata.layers[key_added] = after
    replaced = np.isfinite(before[rows, columns]) & (before[rows, columns] != after[rows, columns])
    logger.info("added %d labels to layers[%r], %d of them in place of others", len(rows), key_added, replaced.sum())


def check_names(adata: AnnData, regions: Iterable[str], channels: Iterable[str], where: str = "") -> None:
    """Raise a KeyError if a region or a channel is not in the table."""
    there = {"region": list(region_column(adata).astype(str).unique()), "channel": list(adata.var_names)}
    for name, given in (("region", regions), ("channel", channels)):
        if unknown := sorted(set(given) - set(there[name])):
            raise not_found(name, unknown, there[name], where)


def label_layer(adata: AnnData, key_added: str) -> NDArray[np.float32]:
    """Return a layer of labels; NaN throughout if it does not exist.

    Raises
    ------
    ValueError
        It holds something else than labels.
    """
    check_table(adata)
    check_writable(key_added)
    if key_added not in adata.layers:
        if key_added in (keys.NIMBUS, keys.INTEGRATED):
            raise ValueError(f"`key_added` is {key_added!r}, which is kept for something else; choose another name.")
        return np.full(adata.shape, np.nan, np.float32)
    values = read_layer(adata, key_added).astype(np.float32)
    check_states(values.ravel(), f"layers[{key_added!r}]")
    return values


def check_states(labels: pd.Series | NDArray, source: str) -> None:
    """Raise a ValueError if a label is none of the five states, and not missing."""
    values = np.asarray(labels, np.float64)
    if wrong := sorted(set(np.unique(values[~np.isnan(values)]).tolist()) - set(WORDS)):
        raise ValueError(
            f"{source} has the label(s) {listed(wrong)}; a label is one of "
            f"{', '.join(f'{label:g} ({word})' for label, word in WORDS.items())}, or missing (not judged)."
        )


def check_purpose(adata: AnnData, regions: pd.Series, key_added: str) -> None:
    """Refuse to mix labels for evaluation, of whole regions drawn at random, with those for training.

    Raises
    ------
    ValueError
        Labels for ``"gold"`` are of a region with cells for training, or that was not drawn though others were; labels
        for ``"gold_training"`` are of a region for evaluation.
    """
    given = set(regions)
    if key_added == keys.GOLD_TRAINING and (mixed := [one for one in evaluation_regions(adata) if one in given]):
        raise ValueError(
            f"{listed(mixed)} is for evaluation: its labels belong into layers[{keys.GOLD!r}], and no cell of it may "
            "be trained on."
        )
    if key_added != keys.GOLD:
        return
    region = region_column(adata).astype(str)
    if keys.EVALUATION in adata.obs and (other := sorted(given - set(evaluation_regions(adata)))):
        raise ValueError(
            f"{listed(other)} was not drawn for evaluation, so its labels do not belong into layers[{keys.GOLD!r}], by "
            f"which scores are judged. Put them into layers[{keys.GOLD_TRAINING!r}] (`key_added`), or draw more "
            "regions with `labels.draw_regions`."
        )
    if keys.GOLD_TRAINING in adata.layers:
        trained = np.isfinite(read_layer(adata, keys.GOLD_TRAINING)).any(axis=1)
        if mixed := sorted(given & set(region[trained])):
            raise ValueError(
                f"{listed(mixed)} has cells in layers[{keys.GOLD_TRAINING!r}] that are for training; a region is for "
                "one or the other."
            )
