"""Labels of a region's cells, from the layers of a table."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd.spatial import Region, check_rows, dense, existing_table, rows_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

logger = logging.getLogger("nimbus_sd")

CODE = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class CellLabels:
    """Labels of the n cells of a region that a table has, in C channels; NaN = not judged.

    Parameters
    ----------
    ids
        int64 (n,).
    training
        float32 (n, C): silver labels, and gold labels for training where there are some.
    gold
        float32 (n, C): evaluation gold.
    trusted
        bool (n, C): where ``training`` is a gold label.
    """

    ids: NDArray[np.int64]
    training: NDArray[np.float32]
    gold: NDArray[np.float32]
    trusted: NDArray[np.bool_]

    @property
    def for_evaluation(self) -> bool:
        """Whether the region holds evaluation gold."""
        return bool(np.isfinite(self.gold).any())

    @property
    def informative(self) -> NDArray[np.bool_]:
        """Whether a cell is labelled positive or negative, in each channel."""
        known = [np.isfinite(one) & (one != 0.5) for one in (self.training, self.gold)]
        return (known[0] | known[1]).any(axis=0)


def labels_table(sdata: SpatialData, table_key: str, labels: str, regions: Sequence[Region]) -> AnnData:
    """Find the table with the labels of these regions.

    Raises
    ------
    KeyError
        There is no such table, or no layer of labels in it; or not the one that was asked for.
    ValueError
        It does not say which cells its rows are, or a layer holds something else than labels.
    """
    table = existing_table(sdata, table_key, [])
    layers = [key for key in (labels, keys.GOLD_TRAINING) if key in table.layers]
    for_evaluation = (
        "layers['gold'] is for evaluation, and nothing is trained on it. Labels of cells that may be trained on "
        "belong into layers['gold_training'] (with NaN in the other cells); regions whose gold is left are tested."
    )
    if labels == keys.GOLD:
        raise ValueError(for_evaluation)
    if labels == keys.SILVER and not layers and keys.GOLD in table.layers:
        raise KeyError(f"Table {table_key!r} has no layers['silver'] to train on, but layers['gold']. {for_evaluation}")
    if labels not in table.layers and (not layers or labels != keys.SILVER):
        raise KeyError(
            f"Table {table_key!r} has no layers[{labels!r}], so there are no labels to train on; it has "
            f"{sorted(key for key in table.layers if key)}. Name the layer with `labels`."
        )
    if labels not in table.layers:
        logger.info("table %r has no layers[%r]: trained on layers['gold_training'] alone", table_key, labels)
    check_rows(table, f"Table {table_key!r}", regions, "Pass the table of these regions as `table_key`", some=True)
    for key in {*layers, keys.GOLD} & set(table.layers):
        _check_code(dense(table.layers[key], table.shape), key)
    return table


def cell_labels(table: AnnData, region: Region, labels: str) -> CellLabels:
    """Read the labels of a region's cells; channels that the table lacks are not judged."""
    rows, ids = rows_of(table, region.labels_key)
    columns = table.var_names.get_indexer(region.channels)

    def read(key: str) -> NDArray[np.float32]:
        if key not in table.layers:
            return np.full((len(rows), len(columns)), np.nan, np.float32)
        values = dense(table.layers[key][rows], (len(rows), table.n_vars)).astype(np.float32)
        return np.where(columns >= 0, values[:, columns], np.float32(np.nan))

    proofread = read(keys.GOLD_TRAINING)
    trusted = np.isfinite(proofread)
    return CellLabels(ids, np.where(trusted, proofread, read(labels)), read(keys.GOLD), trusted)


def _check_code(values: NDArray, key: str) -> None:
    known = values[np.isfinite(values)]
    strange = np.unique(known[~np.isin(known, CODE)])
    if len(strange) or np.isinf(values).any():
        some = ", ".join(f"{value:g}" for value in strange[:5]) or "inf"
        raise ValueError(
            f"layers[{key!r}] holds {some}, which are no labels. A label is 1 (positive), 0.75 (likely positive), 0.5 "
            "(undetermined), 0.25 (likely negative), 0 (negative) or NaN (not judged)."
        )
