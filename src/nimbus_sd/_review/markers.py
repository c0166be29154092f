"""What is told of a marker, what it learned from clicks, and which of its cells to look at next."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.special import expit, logit

from nimbus_sd import keys, labels, tl
from nimbus_sd._table import region_column

logger = logging.getLogger("nimbus_sd")

#: Shown scores from here to there are doubtful.
DOUBTFUL: Final = (0.25, 0.75)
_ALONE = threading.RLock()
_BINS, _SAMPLE, _FEWEST, _NEAREST = 40, 20_000, 5, 20


@contextmanager
def told(notices: list[str]) -> Iterator[None]:
    """Collect warnings for people, and log nothing less.

    One thread at a time: the process has one set of filters and one logger, which must be as they were.
    """
    with _ALONE, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", category=UserWarning, module=r"nimbus_sd\b")
        level = logger.level
        logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            logger.setLevel(level)
        notices += dict.fromkeys(str(warning.message) for warning in caught)


def learn(adata: AnnData, layer: str, marker: str, given: NDArray[np.float32]) -> dict[str, Any]:
    """Fit a marker's line to its labels, by :func:`nimbus_sd.tl.adapt` on its labelled cells alone.

    ``given`` are labels of all cells, NaN without one. Returns ``slope``, ``offset``, ``labels``, ``positives``, and
    ``learned``, a sentence.
    """
    rows = np.flatnonzero(np.isfinite(given))
    scores = np.asarray(adata.layers[layer][rows, adata.var_names.get_loc(marker)], np.float32)
    used = (given[rows] != 0.5) & np.isfinite(scores)
    rows, scores = rows[used], scores[used]
    positives = int((given[rows] > 0.5).sum())
    counts = {"labels": len(rows), "positives": positives}
    if not len(rows):
        return {"slope": 1.0, "offset": 0.0, **counts, "learned": ""}
    # Not by `region_column`, which looks at every cell for one that is there twice.
    key = str(adata.uns.get("spatialdata_attrs", {}).get("region_key", keys.REGION))
    region = adata.obs[key].iloc[rows].astype(str)
    columns = {layer: scores[:, None], "clicks": given[rows, None]}
    judged = AnnData(obs=pd.DataFrame({"region": region}), var=pd.DataFrame(index=[marker]), layers=columns)
    # Too few labels are told below.
    with told([]):
        tl.adapt(judged, labels="clicks", layer=layer, key_added="line", region_key="region")
    line = judged.varm["line"].iloc[0]
    # No accuracy is told: these cells were chosen because they are hard.
    place = expit(-line["offset"] / line["slope"])
    what = f"a score of {place:.2f} counts as 0.50, by {len(rows)} cell{'s' * (len(rows) > 1)}"
    if len(rows) < _FEWEST or positives in (0, len(rows)):
        what += f", too few yet: {positives} positive, {len(rows) - positives} negative"
    elif line["reason"]:
        what += f", but {line['reason']}"
    return {"slope": float(line["slope"]), "offset": float(line["offset"]), **counts, "learned": what}


def shown(scores: NDArray[np.float32], slope: float, offset: float) -> NDArray[np.float32]:
    """Move scores by a learned line, as the page does."""
    if (slope, offset) == (1.0, 0.0):
        return scores
    return expit(slope * logit(np.clip(scores, 1e-4, 1 - 1e-4).astype(np.float64)) + offset).astype(np.float32)


def describe(ordered: NDArray[np.float32], threshold: float, slope: float = 1.0, offset: float = 0.0) -> dict[str, Any]:
    """Return ``share`` of positive cells, ``doubt`` (share between the bounds) and ``histogram`` of shown scores.

    ``ordered`` are a marker's scores, not moved, ascending, NaN last. The limits are moved back by the line instead of
    millions of cells forth.
    """
    n = int(np.searchsorted(ordered, np.inf, "right"))
    if not n:
        return {"share": None, "doubt": None, "histogram": [0] * _BINS}
    limits = np.array([threshold, *DOUBTFUL, *np.linspace(0, 1, _BINS + 1)[1:-1]])
    if (slope, offset) != (1.0, 0.0):
        limits = expit((logit(limits) - offset) / slope)
        # Scores beyond these are shown as these are.
        limits[limits < 1e-4], limits[limits > 1 - 1e-4] = -np.inf, np.inf
    below = np.searchsorted(ordered[:n], limits.astype(np.float32), "left")
    up_to = np.searchsorted(ordered[:n], np.float32(limits[2]), "right")
    histogram = np.diff([0, *below[3:], n]).tolist()
    return {"share": float(1 - below[0] / n), "doubt": float((up_to - below[1]) / n), "histogram": histogram}


def flags(adata: AnnData, layer: str) -> dict[str, str]:
    """Say which markers need a look, as :func:`nimbus_sd.tl.call_positive` does; of many cells, a draw tells."""
    rows = np.arange(adata.n_obs)
    if adata.n_obs > _SAMPLE:
        rows = np.sort(np.random.default_rng(0).choice(adata.n_obs, _SAMPLE, replace=False))
    layers = {name: adata.layers[name][rows] for name in {layer, keys.NIMBUS, keys.INTEGRATED} if name in adata.layers}
    drawn = AnnData(obs=adata.obs[[]].iloc[rows], var=adata.var[[]], layers=layers, varm=dict(adata.varm))
    drawn.uns = dict(adata.uns)
    with told([]):
        tl.call_positive(drawn, layer=layer, key_added="look")
    return dict(zip(map(str, adata.var_names), drawn.var["look_flag"].astype(str), strict=True))


def next_doubtful(
    adata: AnnData,
    layer: str,
    marker: str,
    item: Mapping[str, Any],
    given: NDArray[np.float32],
    after: Sequence[int],
    rng: int = 0,
) -> tuple[int | None, str]:
    """Choose the cell whose label teaches most, in a region that is not for evaluation; return its row and why.

    Without labels, as :func:`nimbus_sd.labels.draw_cells` draws: uncertain ones, and such that disagree with a silver
    label. With labels, of the doubtful cells nearest to the learned line the one whose region has the fewest labels.
    """
    at = adata.var_names.get_loc(marker)
    scores = np.asarray(adata.layers[layer][:, at], np.float32)
    moved = shown(scores, item["slope"], item["offset"])
    silver = (
        np.asarray(adata.layers[keys.SILVER][:, at]) if keys.SILVER in adata.layers else np.full(len(scores), np.nan)
    )
    region = region_column(adata).astype("category")
    evaluation = region.cat.categories.isin(labels.evaluation_regions(adata))[region.cat.codes]
    free = np.isfinite(scores) & ~np.isfinite(given) & ~evaluation
    free[list(after)] = False
    contrary = np.isfinite(silver) & (silver != 0.5) & ((moved >= 0.5) != (silver > 0.5))
    rows = np.flatnonzero(free & (((moved >= DOUBTFUL[0]) & (moved <= DOUBTFUL[1])) | contrary))
    if not rows.size:
        return None, f"No doubtful cell of {marker} is left."
    draw = np.random.default_rng([rng, len(after)])
    rows = np.sort(draw.choice(rows, min(len(rows), _SAMPLE), replace=False))
    if item["labels"]:
        used = region.cat.codes[np.isfinite(given)]
        there = np.bincount(used, minlength=len(region.cat.categories))[region.cat.codes.iloc[rows]]
        nearest = np.argsort(np.abs(moved[rows] - 0.5), kind="stable")[:_NEAREST]
        return int(rows[nearest[np.argmin(there[nearest])]]), "nearest to the learned line"
    few = rows[:: max(1, len(rows) // 2000)]
    columns = {layer: moved[few, None], keys.SILVER: silver[few, None]}
    obs = pd.DataFrame({keys.REGION: region.iloc[few].astype(str), keys.INSTANCE: few})
    drawn = labels.draw_cells(
        AnnData(obs=obs, var=pd.DataFrame(index=[marker]), layers=columns), 1, scores=layer, rng=draw
    )
    return int(drawn["instance_id"].iloc[0]), str(drawn["reason"].iloc[0])
