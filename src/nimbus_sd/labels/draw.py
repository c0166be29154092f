"""What to judge by hand: whole regions drawn at random for evaluation, and hard cells for training."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd._table import judged, layer, obs_columns, outside_unit_interval, region_column
from nimbus_sd._text import listed
from nimbus_sd.labels.layers import PLACE, cells_of, columns_of_channels, evaluation_regions, places, training_regions

logger = logging.getLogger("nimbus_sd")

UNCERTAIN, DISAGREES = "uncertain", "disagrees with silver"
# Scores in this range say neither yes nor no.
_MIDDLE = (0.25, 0.75)


def draw_regions(adata: AnnData, n: int = 3, *, by: str | None = None, rng: int | np.random.Generator = 0) -> list[str]:
    """Draw whole regions at random for evaluation (Rumberger et al., "Manual annotation": three of each data set).

    Judge all their cells by hand, for ``layers["gold"]``: a selection of them would bias every metric. Neither
    :func:`draw_cells` nor training may take any (:func:`evaluation_regions`).

    Parameters
    ----------
    adata
        Cells x channels, with the region in ``obs``.
    n
        Number of regions, of each group, also those that are for evaluation already. Too few without cells for training
        are a ValueError.
    by
        Column of ``obs`` with groups of regions, such as ``"dataset"``.
    rng
        Seed or generator.

    Returns
    -------
    list of str
        All regions for evaluation, in the order of the table. Sets ``obs["evaluation"]``: bool, whether the cell is in
        one of them.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> del adata.layers["gold"]
    >>> ns.labels.draw_regions(adata, 1)
    ['fov2_labels']
    """
    _check_n(n)
    rng = np.random.default_rng(rng)
    region = region_column(adata).astype(str)
    group = region.map(lambda _: "all") if by is None else obs_columns(adata, by)[by].astype(str)
    pairs = list(dict.fromkeys(zip(region, group, strict=True)))
    if len(pairs) > region.nunique():
        raise ValueError(f"obs[{by!r}] splits the cells of a region; groups must be of whole regions.")
    chosen, trained = set(evaluation_regions(adata)), training_regions(adata)
    for group_name in dict.fromkeys(group):
        members = [name for name, its_group in pairs if its_group == group_name]
        free = [name for name in members if name not in chosen | trained]
        lacking = n - len(chosen.intersection(members))
        if lacking > len(free):
            where = "" if by is None else f" of {group_name!r}"
            fit = len(set(members) - trained)
            raise ValueError(f"`n` is {n}, but of {len(members)} regions{where} only {fit} have no cells for training.")
        if lacking > 0:
            chosen |= set(rng.choice(free, lacking, replace=False).tolist())
    adata.obs[keys.EVALUATION] = region.isin(chosen).to_numpy()
    drawn = [name for name, _ in pairs if name in chosen]
    logger.info("set obs[%r]: %s", keys.EVALUATION, listed(drawn))
    return drawn


def draw_cells(
    adata: AnnData,
    n: int,
    *,
    scores: str = keys.NIMBUS,
    silver: str | None = keys.SILVER,
    channels: str | Sequence[str] | None = None,
    rng: int | np.random.Generator = 0,
) -> pd.DataFrame:
    """Choose the cells whose labels teach most. They are for training only: hard cells are a biased sample.

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
        Number of cells to judge; a cell counts once for each channel. A warning says if there are fewer.
    scores
        Layer of scores in [0, 1].
    silver
        Layer of silver labels. None uses none.
    channels
        Which ones; all with a score by default.
    rng
        Seed or generator.

    Returns
    -------
    DataFrame
        ``region``, ``instance_id``, ``channel``, ``score``, ``silver`` (NaN without), ``reason`` (``"uncertain"`` or
        ``"disagrees with silver"``), in the order of the draw: the first rows are a smaller draw. Sets
        ``obs["evaluation"]`` where it is missing.

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
    _check_n(n)
    values = layer(adata, scores)
    if outside_unit_interval(values).any():
        raise ValueError(f"Layer {scores!r} has values outside [0, 1]; cells are drawn by scores.")
    labels = np.full(values.shape, np.nan) if silver is None else layer(adata, silver)
    wanted = columns_of_channels(adata, list(adata.var_names) if channels is None else channels)
    region = cells_of(adata)["region"]
    evaluation = region.isin(evaluation_regions(adata)).to_numpy()
    if evaluation.all():
        raise ValueError("All regions are for evaluation, so none is left to train on. Draw fewer, or score others.")
    free = np.isfinite(values) & ~evaluation[:, None]
    if keys.GOLD_TRAINING in adata.layers:
        free &= ~np.isfinite(layer(adata, keys.GOLD_TRAINING))
    rng = np.random.default_rng(rng)
    queues = []
    for _, in_region in pd.Series(np.flatnonzero(~evaluation)).groupby(region[~evaluation].to_numpy(), sort=False):
        for column in wanted:
            cells = in_region.to_numpy()[free[in_region, column]]
            order = _queue(values[cells, column].astype(np.float64), labels[cells, column].astype(np.float64), rng)
            # No queue gives more than all.
            queues.append([(cells[i], column, reason) for i, reason in order[:n]])
    chosen: list[tuple[int, int, str]] = []
    for turn in range(max(map(len, queues), default=0)):
        # The first of each queue, in a random order, then the second ones, until there are enough.
        if len(chosen) < n:
            chosen += [queues[i][turn] for i in rng.permutation(len(queues)) if turn < len(queues[i])]
    drawn = pd.DataFrame(chosen[:n], columns=["row", "column", "reason"])
    if len(drawn) < n:
        warnings.warn(f"There are {len(drawn)} cells that are uncertain or disagree, not {n}.", stacklevel=2)
    if keys.EVALUATION not in adata.obs:
        adata.obs[keys.EVALUATION] = evaluation
    rows, columns = drawn["row"].to_numpy(int), drawn["column"].to_numpy(int)
    table = places(adata, rows, columns).reset_index(drop=True)
    table["score"], table["silver"] = values[rows, columns], labels[rows, columns]
    table["reason"] = pd.Categorical(drawn["reason"], categories=[UNCERTAIN, DISAGREES])
    logger.info("drew %d cells for training", len(table))
    return table[[*PLACE, "score", "silver", "reason"]]


def _check_n(n: object) -> None:
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise ValueError(f"`n` is {n!r}; it must be a whole number, 1 or more.")


def _queue(scores: NDArray, labels: NDArray, rng: np.random.Generator) -> list[tuple[int, str]]:
    """Order the cells of a channel and region: uncertain ones and such that disagree by turns, each cell once."""
    unsure = (scores >= _MIDDLE[0]) & (scores <= _MIDDLE[1])
    # How near to 0.5, never 0; how far beyond it.
    uncertain = _shuffled(np.where(unsure, 1 - np.abs(2 * scores - 1), 0), rng)
    opposite = judged(labels) & ((scores >= 0.5) != (labels > 0.5))
    disagrees = _shuffled(np.where(opposite, np.abs(scores - labels), 0), rng)
    reasons: dict[int, str] = {}
    for turn in range(max(len(uncertain), len(disagrees))):
        for order, reason in ((uncertain, UNCERTAIN), (disagrees, DISAGREES)):
            if turn < len(order):
                reasons.setdefault(int(order[turn]), reason)
    return list(reasons.items())


def _shuffled(weight: NDArray, rng: np.random.Generator) -> NDArray[np.intp]:
    """Draw all with a weight, one after the other, the heavier the earlier by chance."""
    drawn = np.flatnonzero(weight > 0)
    # The largest of log weights with Gumbel noise are a draw without replacement.
    return drawn[np.argsort(-(np.log(weight[drawn]) + rng.gumbel(size=drawn.size)))]
