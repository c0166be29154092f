"""Cells whose labels would teach most, for training only."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd._table import as_list, judged, outside_unit_interval
from nimbus_sd._table import layer as read_layer
from nimbus_sd.labels._place import PLACE, cells_of, evaluation_regions
from nimbus_sd.spatial import not_found

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger("nimbus_sd")

UNCERTAIN, DISAGREES = "uncertain", "disagrees with silver"
# Scores in this range say neither yes nor no.
_MIDDLE = (0.25, 0.75)


def draw_cells(
    adata: AnnData,
    n: int,
    *,
    scores: str = keys.NIMBUS,
    silver: str | None = keys.SILVER,
    channels: str | Sequence[str] | None = None,
    rng: int | np.random.Generator = 0,
) -> pd.DataFrame:
    """Choose cells to judge by hand where that teaches most. They are for training only: hard cells, no fair sample.

    In each channel and region, half are uncertain (score from 0.25 to 0.75), half disagree with their silver label
    (score on the other side of 0.5), drawn with a chance that grows with how uncertain they are or how far they are
    off. Channels and regions take turns, so that all get the same number as long as they have such cells.

    Labels of these cells go to ``layers["gold_training"]``, which no metric takes unless asked. Regions for evaluation
    (:func:`draw_regions`) are never drawn from, and after the first call no other region's labels are taken as
    ``layers["gold"]``.

    Parameters
    ----------
    adata
        Cells x channels, with region and instance id in ``obs``.
    n
        Number of cells to judge; a cell counts once for each channel.
    scores
        Layer of scores in [0, 1].
    silver
        Layer of silver labels. None goes without.
    channels
        Which ones; all with a score by default.
    rng
        Seed or generator.

    Returns
    -------
    DataFrame
        ``region``, ``instance_id``, ``channel``, ``score``, ``silver`` (NaN without), ``reason``: ``"uncertain"`` or
        ``"disagrees with silver"``. In the order in which they were drawn: the first rows are a smaller draw. Sets
        ``obs["evaluation"]`` where it is missing.

    Raises
    ------
    KeyError
        If a layer or channel does not exist.
    ValueError
        If ``n`` is not a positive whole number, scores are outside [0, 1], or all regions are for evaluation.

    Warns
    -----
    UserWarning
        Says so if there are fewer such cells.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> adata.layers["silver"] = adata.layers.pop("gold")
    >>> adata.layers["nimbus"] = 0.8 - 0.4 * adata.layers["silver"]
    >>> regions = ns.labels.draw_regions(adata, 1)
    >>> drawn = ns.labels.draw_cells(adata, 16)
    >>> drawn["region"].unique().tolist(), drawn["reason"].value_counts().to_dict()
    (['fov1_labels'], {'uncertain': 8, 'disagrees with silver': 8})
    """
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise ValueError(f"`n` is {n!r}; it must be a whole number, 1 or more.")
    values = read_layer(adata, scores)
    if outside_unit_interval(values).any():
        raise ValueError(f"Layer {scores!r} has values outside [0, 1]; cells are drawn by scores.")
    labels = np.full(values.shape, np.nan) if silver is None else read_layer(adata, silver)
    names = list(adata.var_names) if channels is None else as_list(channels)
    if missing := [name for name in names if name not in adata.var_names]:
        raise not_found("channel", missing, adata.var_names)
    cells = cells_of(adata)
    kept = cells["region"].isin(evaluation_regions(adata)).to_numpy()
    if kept.all():
        raise ValueError(
            "All regions are for evaluation, so none is left to train on. Score regions without gold labels, or draw "
            "fewer with `labels.draw_regions`."
        )
    free = np.repeat(~kept[:, None], adata.n_vars, axis=1)
    if keys.GOLD_TRAINING in adata.layers:
        free &= ~np.isfinite(read_layer(adata, keys.GOLD_TRAINING))
    rng = np.random.default_rng(rng)
    queues = []
    free &= np.isfinite(values)
    numbers = pd.Series(np.flatnonzero(~kept)).groupby(cells["region"].to_numpy()[~kept], sort=False)
    for _, inside in numbers:
        for i in adata.var_names.get_indexer(names):
            here = inside.to_numpy()[free[inside, i]]
            order = _queue(values[here, i].astype(np.float64), labels[here, i].astype(np.float64), rng)
            # No queue gives more than all.
            queues.append([(here[cell], i, reason) for cell, reason in order[:n]])
    drawn = _in_turn(queues, n, rng)
    if len(drawn) < n:
        warnings.warn(
            f"There are {len(drawn)} cells to draw that are uncertain or disagree, not {n}.", UserWarning, stacklevel=2
        )
    if keys.EVALUATION not in adata.obs:
        adata.obs[keys.EVALUATION] = kept
    rows, columns = (np.array([one[k] for one in drawn], int) for k in (0, 1))
    table = cells.iloc[rows].reset_index(drop=True)
    table["channel"] = adata.var_names.to_numpy(object)[columns]
    table["score"], table["silver"] = values[rows, columns], labels[rows, columns]
    table["reason"] = pd.Categorical([one[2] for one in drawn], categories=[UNCERTAIN, DISAGREES])
    logger.info("drew %d cells for training", len(table))
    return table[[*PLACE, "score", "silver", "reason"]]


def _queue(scores: NDArray, labels: NDArray, rng: np.random.Generator) -> list[tuple[int, str]]:
    """Order the cells of a channel and region: uncertain ones and such that disagree by turns, each cell once."""
    unsure = (scores >= _MIDDLE[0]) & (scores <= _MIDDLE[1])
    # How near to 0.5, never 0; how far beyond it.
    uncertain = _shuffled(np.where(unsure, 1 - np.abs(2 * scores - 1), 0), rng)
    opposite = judged(labels) & ((scores >= 0.5) != (labels > 0.5))
    disagrees = _shuffled(np.where(opposite, np.abs(scores - labels), 0), rng)
    found: dict[int, str] = {}
    for turn in range(max(len(uncertain), len(disagrees))):
        for order, reason in ((uncertain, UNCERTAIN), (disagrees, DISAGREES)):
            if turn < len(order):
                found.setdefault(int(order[turn]), reason)
    return list(found.items())


def _shuffled(weight: NDArray, rng: np.random.Generator) -> NDArray[np.intp]:
    """Draw all with a weight, one after the other, the heavier the earlier by chance."""
    there = np.flatnonzero(weight > 0)
    # The largest of log weights with Gumbel noise are a draw without replacement.
    return there[np.argsort(-(np.log(weight[there]) + rng.gumbel(size=there.size)))]


def _in_turn(
    queues: Sequence[list[tuple[int, int, str]]], n: int, rng: np.random.Generator
) -> list[tuple[int, int, str]]:
    """Take one from each queue, in a random order, then the next one, until there are n."""
    drawn: list[tuple[int, int, str]] = []
    for turn in range(max(map(len, queues), default=0)):
        for k in rng.permutation(len(queues)):
            if turn < len(queues[k]):
                drawn.append(queues[k][turn])
        if len(drawn) >= n:
            break
    return drawn[:n]
