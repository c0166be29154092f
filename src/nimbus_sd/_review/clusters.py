"""Clusters on the page: means by marker and their tree, edits by hand, typical and doubtful cells."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse
from scipy.cluster.hierarchy import leaves_list, linkage

from nimbus_sd import keys, tl
from nimbus_sd._review.markers import told
from nimbus_sd._table import clusters_of

_MOST: Final = 200
_EXAMPLES, _SAMPLE = 12, 50_000


def groupings(adata: AnnData) -> dict[str, tl.Metaclusters]:
    """Find the columns of ``obs`` that are clusters or types (2 to 200 of them), each with its colours."""
    region = str(adata.uns.get("spatialdata_attrs", {}).get("region_key", keys.REGION))
    found = {}
    for key in adata.obs.columns:
        column = adata.obs[key]
        if key in (region, keys.EVALUATION) or not isinstance(column.dtype, pd.CategoricalDtype):
            continue
        if 2 <= column.nunique() <= _MOST and not str(key).endswith(("_reason", "_node")):
            try:
                found[str(key)] = tl.Metaclusters.from_table(adata, key)
            except (TypeError, ValueError):
                # Names that no cluster may have, such as one that ends with a blank.
                continue
    return found


def described(key: str, value: tl.Metaclusters) -> dict[str, Any]:
    """Return a grouping as the page has it."""
    return {"key": key, "names": list(value.names), "colors": list(value.colors.values()), "editable": True}


def codes(adata: AnnData, key: str, value: tl.Metaclusters) -> NDArray[np.uint16]:
    """Return the number of each cell's metacluster among the names, from 1; 0 without one."""
    clusters = clusters_of(adata, key)
    number = {name: at for at, name in enumerate(value.names, 1)}
    of_code = [0, *(number[value.mapping[name]] for name in clusters.categories)]
    return np.array(of_code, np.uint16)[clusters.codes.astype(np.int64) + 1]


def edited(value: tl.Metaclusters, step: Mapping[str, Any]) -> tl.Metaclusters:
    """Do a step of the page: merge, split, rename or recolor."""
    match step:
        case {"do": "merge", "names": [*names], "into": into}:
            return value.merge(names, into)
        case {"do": "split", "name": name, "clusters": [*clusters], "into": into}:
            return value.split(name, clusters, into)
        case {"do": "rename", "name": name, "to": to}:
            return value.rename(name, to)
        case {"do": "recolor", "name": name, "color": color}:
            return value.recolor(name, color)
    raise ValueError(f"This is no step that clusters have: {dict(step)}.")


def heat_map(adata: AnnData, key: str, value: tl.Metaclusters, layer: str) -> dict[str, Any]:
    """Return mean scores cluster x marker, their tree (average linkage), and what was done by hand."""
    clusters = clusters_of(adata, key)
    scores = np.asarray(adata.layers[layer])
    markers = np.flatnonzero(np.isfinite(scores[:: max(1, len(scores) // _SAMPLE)]).any(axis=0))
    means = _means(scores[:, markers], clusters.codes, len(clusters.categories))
    tree = linkage(means, "average", optimal_ordering=True) if len(means) > 1 else np.zeros((0, 4))
    sizes = np.bincount(clusters.codes[clusters.codes >= 0], minlength=len(means))
    groups = [value.mapping[name] for name in clusters.categories]
    named = [not name.isdigit() and name not in tl.GREYS for name in groups]
    return {
        "key": key,
        "clusters": list(clusters.categories),
        "metacluster": groups,
        "sizes": sizes,
        "markers": [str(name) for name in adata.var_names[markers]],
        "means": means.round(4),
        "order": leaves_list(tree) if len(tree) else [0],
        "tree": tree,
        "names": list(value.names),
        "colors": list(value.colors.values()),
        "history": value.history(),
        "share_named": float(sizes[np.array(named, bool)].sum() / max(1, adata.n_obs)),
    }


def examples(adata: AnnData, key: str, value: tl.Metaclusters, layer: str, name: str) -> dict[str, Any]:
    """Return rows of a metacluster: the closest to its mean scores, and those almost as close to another's."""
    if name not in value.names:
        raise KeyError(f"There is no metacluster {name!r}; there are {list(value.names)}.")
    numbers, scores = codes(adata, key, value).astype(np.int64) - 1, np.asarray(adata.layers[layer])
    means = _means(scores, numbers, len(value.names))
    own = value.names.index(name)
    rows = np.flatnonzero(numbers == own)
    if len(rows) > _SAMPLE:
        rows = np.sort(np.random.default_rng(0).choice(rows, _SAMPLE, replace=False))
    cells, means = np.nan_to_num(scores[rows]), np.nan_to_num(means)
    distance = (cells**2).sum(axis=1)[:, None] - 2 * cells @ means.T + (means**2).sum(axis=1)
    nearest = np.delete(distance, own, axis=1).min(axis=1, initial=np.inf)
    typical = rows[np.argsort(distance[:, own], kind="stable")[:_EXAMPLES]]
    doubtful = rows[np.argsort(nearest - distance[:, own], kind="stable")[: _EXAMPLES * (len(means) > 1)]]
    return {"typical": typical, "doubtful": doubtful}


def cluster(adata: AnnData, layer: str) -> str:
    """Cluster the cells by the markers that tell types apart, where the panel has some; return the column."""
    # The flowsom package is an extra, and its maps are compiled for seconds.
    tl.flowsom(adata, layer=layer, channels=_lineage(adata), engine="minisom")
    return "flowsom_nimbus"


def name_types(adata: AnnData, layer: str) -> str:
    """Give each cell a type by the signatures; return the column."""
    notices: list[str] = []
    with told(notices):
        tl.cell_types(adata, layer=layer)
    # No panel has all markers of the signatures.
    for notice in [text for text in notices if not text.startswith("There are no scores")]:
        warnings.warn(notice, stacklevel=1)
    return "cell_type_nimbus"


def _lineage(adata: AnnData) -> Sequence[str] | None:
    """Return the panel's markers of the signatures; None, which is all, where it has few of them."""
    with told([]):
        try:
            table = tl.check_signatures(None, adata.var_names, missing="skip")
        except (KeyError, ValueError):
            return None
    found = [name for name in table.columns if name in adata.var_names]
    return found if len(found) >= 4 else None


def _means(scores: NDArray, numbers: NDArray, n: int) -> NDArray[np.float32]:
    """Return means over the cells of each number; 0 where no cell has a score."""
    rows = np.flatnonzero(numbers >= 0)
    member = sparse.csr_matrix((np.ones(len(rows), np.float32), (numbers[rows], rows)), (n, len(scores)))
    there = np.isfinite(scores)
    return np.asarray(member @ np.where(there, scores, 0) / np.maximum(member @ there.astype(np.float32), 1))
