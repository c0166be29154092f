"""Regions for evaluation, drawn at random and whole."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from nimbus_sd import keys
from nimbus_sd._table import layer as read_layer
from nimbus_sd._table import obs_columns, region_column
from nimbus_sd.labels._place import evaluation_regions
from nimbus_sd.labels._states import listed

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger("nimbus_sd")


def draw_regions(adata: AnnData, n: int = 3, *, by: str | None = None, rng: int | np.random.Generator = 0) -> list[str]:
    """Draw whole regions at random for evaluation (Rumberger et al., "Manual annotation": three of each data set).

    All their cells are to be judged by hand, for ``layers["gold"]``; nobody may choose among them, or figures would
    not hold for other cells. :func:`draw_cells` takes none of them, and training must not either
    (:func:`evaluation_regions`).

    Parameters
    ----------
    adata
        Cells x channels, with the region in ``obs``.
    n
        Number of regions, of each group. Regions that are for evaluation already count.
    by
        Column of ``obs`` with groups of regions, such as ``"dataset"``.
    rng
        Seed or generator.

    Returns
    -------
    list of str
        All regions for evaluation, in the order of the table. Sets ``obs["evaluation"]``: bool, whether the cell is in
        one of them.

    Raises
    ------
    KeyError
        If the column does not exist.
    ValueError
        If a group has too few regions without cells for training, or a region is in two groups; if ``n`` is not a
        positive whole number.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> del adata.layers["gold"]
    >>> ns.labels.draw_regions(adata, 1)
    ['fov2_labels']
    """
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise ValueError(f"`n` is {n!r}; it must be a whole number, 1 or more.")
    rng = np.random.default_rng(rng)
    region = region_column(adata).astype(str)
    group = region.map(lambda _: "all") if by is None else obs_columns(adata, by)[by].astype(str)
    pairs = list(dict.fromkeys(zip(region, group, strict=True)))
    if len(pairs) > region.nunique():
        raise ValueError(f"obs[{by!r}] parts the cells of a region; groups must be of whole regions.")
    chosen, trained = set(evaluation_regions(adata)), _trained(adata)
    for name in dict.fromkeys(group):
        members = [one for one, own in pairs if own == name]
        free = [one for one in members if one not in chosen and one not in trained]
        lacking = n - len([one for one in members if one in chosen])
        if lacking > len(free):
            where = "" if by is None else f" of {name!r}"
            fit = len(members) - len(trained.intersection(members))
            raise ValueError(
                f"{n} regions{where} are to be for evaluation, but of {len(members)} only {fit} have no cells for "
                "training. Draw fewer (`n`)."
            )
        if lacking > 0:
            chosen |= set(rng.choice(free, lacking, replace=False).tolist())
    adata.obs[keys.EVALUATION] = region.isin(chosen).to_numpy()
    found = [one for one, _ in pairs if one in chosen]
    logger.info("set obs[%r]: %s", keys.EVALUATION, listed(found))
    return found


def _trained(adata: AnnData) -> set[str]:
    if keys.GOLD_TRAINING not in adata.layers:
        return set()
    judged = np.isfinite(read_layer(adata, keys.GOLD_TRAINING)).any(axis=1)
    return set(region_column(adata)[judged].astype(str))
