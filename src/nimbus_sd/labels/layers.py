"""Layers of labels: their five states, labels of single cells put into them, and regions for evaluation only."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd._table import as_list, check_table, check_writable, instance_column, layer, region_column
from nimbus_sd._text import listed
from nimbus_sd.spatial import not_found, plain_ids

logger = logging.getLogger("nimbus_sd")

#: Label of each state; NaN is not judged and has no word.
STATES: Final[Mapping[str, float]] = {
    "positive": 1.0,
    "likely positive": 0.75,
    "undetermined": 0.5,
    "likely negative": 0.25,
    "negative": 0.0,
}
#: State of each label.
WORDS: Final[Mapping[float, str]] = {label: word for word, label in STATES.items()}
#: Columns of a table of labels that say where a label belongs; a fourth, ``label``, may be NaN.
PLACE: Final = ["region", "instance_id", "channel"]


def cells_of(adata: AnnData) -> pd.DataFrame:
    """Return region (text) and instance id (int64, or text of shapes) of every cell; a ValueError if one is twice."""
    cell = instance_column(adata)
    with warnings.catch_warnings():
        # What is there twice is an error here.
        warnings.simplefilter("ignore")
        region = region_column(adata).astype(str)
    text = plain_ids(cell)
    cells = pd.DataFrame({"region": region, "instance_id": text})
    if (twice := cells.duplicated()).any():
        first = "cell {instance_id} of {region!r}".format(**cells[twice].iloc[0])
        advice = "Rename regions of samples before joining these."
        raise ValueError(f"The table has several rows for {twice.sum()} cells, such as {first}. {advice}")
    return cells.astype({"instance_id": "int64"}) if text.str.fullmatch("-?[0-9]+").all() else cells


def places(adata: AnnData, rows: NDArray, columns: NDArray) -> pd.DataFrame:
    """Return where entries of a layer belong, in the columns `PLACE`."""
    return cells_of(adata).iloc[rows].assign(channel=adata.var_names.to_numpy(object)[columns])


def rows_of(adata: AnnData, table: pd.DataFrame) -> NDArray[np.intp]:
    """Return the row of each region and instance id; -1 where there is no such cell."""
    cells, asked = (pd.MultiIndex.from_frame(cells[PLACE[:2]].astype(str)) for cells in (cells_of(adata), table))
    return np.asarray(cells.get_indexer(asked))


def columns_of_channels(adata: AnnData, names: str | Sequence[str], where: str = "") -> NDArray[np.intp]:
    """Return the column of each channel; a KeyError if one does not exist."""
    if missing := [name for name in as_list(names) if name not in adata.var_names]:
        raise not_found("channel", missing, adata.var_names, where)
    return np.asarray(adata.var_names.get_indexer(as_list(names)), np.intp)


def check_names(adata: AnnData, regions: Iterable[str], channels: Iterable[str], where: str = "") -> None:
    """Raise a KeyError if a region or a channel does not exist."""
    existing = list(region_column(adata).astype(str).unique())
    if unknown := sorted(set(regions) - set(existing)):
        raise not_found("region", unknown, existing, where)
    columns_of_channels(adata, sorted(set(channels)), where)


def evaluation_regions(adata: AnnData) -> list[str]:
    """Name the regions for evaluation: those of :func:`draw_regions`, and others with a label in ``layers["gold"]``.

    They must be kept out of training.

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
    chosen = is_labelled(adata, keys.GOLD)
    if keys.EVALUATION in adata.obs:
        chosen |= adata.obs[keys.EVALUATION].astype("boolean").fillna(False).to_numpy(bool)
    return [str(name) for name in region_column(adata)[chosen].astype(str).unique()]


def training_regions(adata: AnnData) -> set[str]:
    """Name the regions that have cells for training."""
    return set(region_column(adata)[is_labelled(adata, keys.GOLD_TRAINING)].astype(str))


def is_labelled(adata: AnnData, name: str) -> NDArray[np.bool_]:
    """Whether each cell has a label in a layer, which need not exist."""
    if name not in adata.layers:
        return np.zeros(adata.n_obs, bool)
    return np.asarray(np.isfinite(layer(adata, name)).any(axis=1))


def label_layer(adata: AnnData, key_added: str) -> NDArray[np.float32]:
    """Return a layer of labels to write into; NaN throughout if it does not exist."""
    check_table(adata)
    check_writable(key_added)
    if key_added in adata.layers:
        return read_labels(adata, key_added)
    if key_added in (keys.NIMBUS, keys.INTEGRATED):
        raise ValueError(f"`key_added` is {key_added!r}, which is kept for something else; choose another name.")
    return np.full(adata.shape, np.nan, np.float32)


def read_labels(adata: AnnData, name: str) -> NDArray[np.float32]:
    """Return a layer that holds labels; a ValueError if it holds something else."""
    labels = layer(adata, name).astype(np.float32)
    check_states(labels, f"layers[{name!r}]")
    return labels


def check_states(labels: pd.Series | NDArray, source: str) -> None:
    """Raise a ValueError if a label is none of the five states, and not missing."""
    values = np.asarray(labels, np.float64)
    if wrong := sorted(set(np.unique(values[~np.isnan(values)]).tolist()) - set(WORDS)):
        allowed = ", ".join(f"{label:g} ({word})" for label, word in WORDS.items())
        raise ValueError(f"{source} has the label(s) {listed(wrong)}; a label is {allowed}, or missing (not judged).")


def check_purpose(adata: AnnData, regions: Iterable[str], key_added: str) -> None:
    """Refuse labels that would put a region into training and evaluation, or choose one for evaluation by hand."""
    given, evaluation = set(regions), evaluation_regions(adata)
    if key_added == keys.GOLD_TRAINING and (mixed := [name for name in evaluation if name in given]):
        raise ValueError(f"{listed(mixed)} is for evaluation: its labels belong into layers[{keys.GOLD!r}].")
    if key_added == keys.GOLD and keys.EVALUATION in adata.obs and (not_drawn := sorted(given - set(evaluation))):
        advice = f"pass `key_added={keys.GOLD_TRAINING!r}`, or draw more regions with `labels.draw_regions`."
        raise ValueError(f"{listed(not_drawn)} was not drawn for evaluation; {advice}")
    if key_added == keys.GOLD and (mixed := sorted(given & training_regions(adata))):
        raise ValueError(f"{listed(mixed)} has cells in layers[{keys.GOLD_TRAINING!r}], so it is for training only.")


def without_repeats(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """Drop rows that say the same again; a ValueError if a cell is labelled in more than one way."""
    table = table.drop_duplicates()
    # Region (or field of view), cell and channel are the last of them.
    place = [name for name in table if name != "label"]
    if len(repeated := table[table.duplicated(place)].drop_duplicates(place)):
        region, cell, channel = repeated.iloc[0][place[-3:]]
        example = f"cell {cell} of {region!r} for {channel!r}"
        raise ValueError(f"{source} labels {len(repeated)} cells in more than one way: {example} ...")
    return table


def known_cells(adata: AnnData, table: pd.DataFrame, source: str) -> tuple[pd.DataFrame, NDArray[np.intp]]:
    """Keep what is about cells of the table, each once, and find their rows; columns as for `put_labels`."""
    channels = set(table["channel"]) - {""}
    check_names(adata, table["region"].unique(), channels, f" (named in {source})")
    table = without_repeats(table, source)
    rows = rows_of(adata, table)
    if not (rows >= 0).any():
        content = f"{len(table)} labels, none of them of a cell of the table" if len(table) else "no labels"
        raise ValueError(f"{source} has {content}; nothing was changed. Are its cells from the same segmentation?")
    if (rows < 0).any():
        lost = table.loc[rows < 0, PLACE[:2]].drop_duplicates()
        region, cell = lost.iloc[0]
        what = f"labels {len(lost)} cells that the table has not, such as cell {cell} of {region!r}; they were left out"
        warnings.warn(f"{source} {what}. Are they from the same segmentation?", UserWarning, stacklevel=4)
    return table[rows >= 0], rows[rows >= 0]


def put_labels(adata: AnnData, table: pd.DataFrame, key_added: str, source: str) -> None:
    """Write labels (`PLACE` and ``label``) into a layer, over those of these cells; after an error it is as it was."""
    before = label_layer(adata, key_added)
    check_states(table["label"], source)
    table, rows = known_cells(adata, table, source)
    check_purpose(adata, table["region"], key_added)
    columns = adata.var_names.get_indexer(table["channel"])
    after = before.copy()
    after[rows, columns] = table["label"].to_numpy(np.float32)
    adata.layers[key_added] = after
    replaced = np.isfinite(before[rows, columns]) & (before[rows, columns] != after[rows, columns])
    logger.info("added %d labels to layers[%r], %d of them in place of others", len(rows), key_added, replaced.sum())
