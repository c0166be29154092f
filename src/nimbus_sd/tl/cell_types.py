"""Cell types from positivity: the type of each cell, and suggestions for clusters."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd._table import clusters_of
from nimbus_sd.tl._inputs import check_number, scored_matrix
from nimbus_sd.tl._results import AMBIGUOUS, UNASSIGNED, check_key_added, log_overwritten
from nimbus_sd.tl._type_model import TypeModel, evidence, fit_types
from nimbus_sd.tl.signatures import CellType, Missing, Signatures, checked_table, markers_of, on_panel, type_tree

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger("nimbus_sd")

#: Cells at a time: a term for each of their types and markers is held.
_CELLS = 1 << 12
_MIN_OTHERS = 0.05
#: A marker is named as speaking against a type where it makes it half as probable.
_SPEAKS = np.log(2)
#: Share and number of the cells from which on a marker that keeps them from a type is warned of.
_BLOCKS, _FEW = 0.05, 10


def cell_types(
    adata: AnnData,
    signatures: Signatures = None,
    *,
    layer: str = keys.NIMBUS,
    min_probability: float = 0.5,
    missing: Missing = "skip",
    key_added: str = "cell_type_nimbus",
) -> None:
    """Give each cell the deepest type of a signature tree that its scores support, with a probability and a reason.

    Evidence is weighed, not counted off. A type is expected to be positive in 90 % of its cells for the markers that
    it adds, in 60 % for those that it inherits (a dim CD45 does not stop a CD3+ cell), and in few for those that it
    must not have or that define other types; how few is learned from the cells, marker by marker, so that one that
    spills over weighs less. The shares of the types are learned as well. A score counts by how far it is from the
    share of positive cells in training (27 %), and never as certain. Markers that the panel lacks carry no evidence.

    The cell gets the deepest type that, with its subtypes, is more probable than ``min_probability``; there is one at
    most. If not even a root is, the cell is ``"unassigned"`` if it is more probably of none than of any, else
    ``"ambiguous"``. As shares and rates are learned, a cell's type depends a little on the other cells.

    The paper left 5.34 % of the cells unassigned, by clustering and merging by hand (Rumberger et al., Fig. 5d and e).

    Parameters
    ----------
    adata
        Cells x channels.
    signatures
        A DataFrame or the path of a CSV file (UTF-8) with a row for each type: its name first (the index), a column
        ``parent``, and a column for each marker: ``+`` or ``positive``, ``-`` or ``negative``, empty or ``any``. A type
        inherits the signs of its ancestors. None takes :func:`signatures`. Markers are found by their synonyms,
        regardless of case, blanks and hyphens.
    layer
        Layer of scores in [0, 1]; calls (0 and 1) do as well.
    min_probability
        A type must be more probable than this, in [0.5, 1).
    missing
        ``"error"`` refuses markers without a channel. ``"skip"`` does without them, as always without channels that
        have no score: types that add such a positive marker are left out, and their subtypes move up and no longer
        need it; a negative one is not asked for.
    key_added
        Name of the results.

    Returns
    -------
    None
        Sets in ``adata``:

        - ``obs[key_added]``: categorical, the types present in the order of the tree, then ``"ambiguous"`` and
          ``"unassigned"``; missing for cells that lack a score
        - ``obs[f"{key_added}_probability"]``: float32, that the cell is of its type; that it fits none (unassigned)
          or any (ambiguous)
        - ``obs[f"{key_added}_reason"]``: categorical: the signs that the type asks for, the marker that decided against
          the next best type, and the one that spoke most against the type
          (``"CD45+ CD3+; decided by CD3+, despite CD45-"``); the nearest type and what speaks against it (unassigned);
          or the types in question (ambiguous)
        - ``uns[key_added]``: ``tool``, ``params``, ``types`` (DataFrame types x ``parent``, ``signature``, ``cells``,
          ``share``), ``unassigned``, ``ambiguous`` (shares of the scored cells), ``not_scored`` (number of cells), and
          ``kept_out`` (for each channel, the cells without a type that would have one if it were not looked at)

    Raises
    ------
    KeyError
        If a marker has no channel.
    ValueError
        If signatures contradict themselves (see :func:`check_signatures`).

    Warns
    -----
    UserWarning
        Names markers without scores, and those that keep more than 5 % of the cells from a type.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> table = ns.tl.signatures().loc[["Immune cell", "T cell", "B cell", "Epithelial cell"]]
    >>> ns.tl.cell_types(adata, table, layer="gold")
    >>> adata.obs["cell_type_nimbus"].cat.categories.to_list()
    ['Immune cell', 'T cell', 'B cell', 'Epithelial cell', 'unassigned']
    >>> adata.obs["cell_type_nimbus_reason"].iloc[0]
    'CD45+ CD3+; decided by CD3+'
    """
    _check_limit("min_probability", min_probability)
    columns = [key_added, f"{key_added}_probability", f"{key_added}_reason"]
    earlier = check_key_added(adata, key_added, "cell_types", [("obs", column) for column in columns])
    table = on_panel(checked_table(signatures), list(map(str, adata.var_names)), missing)
    scores, used, channels = scored_matrix(adata, layer, markers_of(table))
    tree = type_tree(table, scores, channels, layer)

    code, reason = np.full(adata.n_obs, -1, np.int16), np.full(adata.n_obs, None)
    probability = np.full(adata.n_obs, np.nan, np.float32)
    rows = np.flatnonzero(used)
    blocked = pd.Series(0, channels)
    for cells, called in _calls(fit_types(tree, scores, channels), scores, min_probability):
        at = rows[cells]
        code[at], probability[at], reason[at], _, kept_out = called
        blocked += kept_out

    texts = [*((cell_type.parent, cell_type.signature) for cell_type in tree), ("", ""), ("", "")]
    types = pd.DataFrame(texts, _names(tree), ["parent", "signature"])
    types["cells"] = np.bincount(code[used], minlength=len(types))
    types["share"] = share = types["cells"] / len(scores)
    adata.obs[columns[0]] = pd.Categorical.from_codes(code, types.index).remove_unused_categories()
    adata.obs[columns[1]] = probability
    adata.obs[columns[2]] = pd.Categorical(reason)
    origin = "nimbus_sd.tl.signatures()" if signatures is None else "DataFrame"
    origin = str(Path(signatures)) if isinstance(signatures, str | Path) else origin
    params = {"layer": layer, "min_probability": float(min_probability), "missing": missing, "signatures": origin}
    adata.uns[key_added] = {
        "tool": "cell_types",
        "params": params,
        "types": types,
        **share[[AMBIGUOUS, UNASSIGNED]].to_dict(),
        "not_scored": int((~used).sum()),
        "kept_out": {name: int(count) for name, count in blocked.items() if count},
    }
    if (many := blocked[blocked >= max(_BLOCKS * len(scores), _FEW)]).size:
        counts = ", ".join(f"{name} keeps {count:,} cells out" for name, count in many.items())
        advice = "Look at their images; leave the column of one that does not work here out of the signatures."
        warnings.warn(
            f"Of {len(scores):,} cells, {counts} of the types that their other markers name. {advice}", stacklevel=2
        )
    log_overwritten(earlier, "cell_types")
    percent = 100 * share[[UNASSIGNED, AMBIGUOUS]]
    logger.info("added obs[%r]: of %d cells, %.2f %% unassigned, %.2f %% ambiguous", key_added, len(scores), *percent)


def suggest_types(
    adata: AnnData,
    groupby: str,
    signatures: Signatures = None,
    *,
    layer: str = keys.NIMBUS,
    min_probability: float = 0.5,
    min_share: float = 0.5,
    missing: Missing = "skip",
) -> pd.DataFrame:
    """Suggest a cell type for each cluster, by the types of its cells.

    Each cell has its type from :func:`cell_types` and those above it. The cluster gets the deepest type that more than
    ``min_share`` of its cells have. Without one it is ``"ambiguous"`` if most of its cells have some type, or most of
    those without a type are ambiguous; else ``"unassigned"``.

    Parameters
    ----------
    adata
        Cells x channels.
    groupby
        Column of ``obs`` with the clusters.
    signatures, layer, min_probability, missing
        As for :func:`cell_types`.
    min_share
        In [0.5, 1).

    Returns
    -------
    DataFrame
        One row for each cluster, named as text, in the order of its categories:

        - ``type``: the suggestion
        - ``share``: of the cluster's cells that have this type (or no type)
        - ``probability``: mean over the cluster's cells that they are of this type; NaN without a type
        - ``cells``: number of cells with scores
        - ``reason``: the signs that the type asks for; without a type, how many cells have one or are ambiguous
        - ``others``: other types of at least 5 % of the cells, the most common first

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> table = ns.tl.signatures().loc[["Immune cell", "T cell", "B cell", "Epithelial cell"]]
    >>> ns.tl.suggest_types(adata, "cell_type", table, layer="gold")["type"].to_dict()
    {'B cell': 'B cell', 'CD4 T cell': 'T cell', 'CD8 T cell': 'T cell', 'epithelium': 'Epithelial cell',
     'macrophage': 'Immune cell', 'other': 'unassigned'}
    """
    _check_limit("min_probability", min_probability)
    _check_limit("min_share", min_share)
    clusters = clusters_of(adata, groupby)
    table = on_panel(checked_table(signatures), list(map(str, adata.var_names)), missing)
    scores, used, channels = scored_matrix(adata, layer, markers_of(table))
    tree = type_tree(table, scores, channels, layer)

    # Row 0 is for cells without a cluster.
    row = clusters.codes[used].astype(np.intp) + 1
    counts = np.zeros((len(clusters.categories) + 1, len(tree) + 2), np.int64)
    expected = np.zeros((len(counts), len(tree)))
    for cells, (code, _, _, probabilities, _) in _calls(fit_types(tree, scores, channels), scores, min_probability):
        np.add.at(counts, (row[cells], code), 1)
        np.add.at(expected, row[cells], probabilities)

    rows = [_suggestion(tree, *pair, min_share) for pair in zip(counts[1:], expected[1:], strict=True)]
    columns = ["type", "share", "probability", "cells", "reason", "others"]
    return pd.DataFrame(rows, pd.Index(clusters.categories, name=groupby), columns)


def _suggestion(tree: Sequence[CellType], counts: NDArray, expected: NDArray, min_share: float) -> tuple[object, ...]:
    """Return a cluster's row from its number of cells with each code, and its expected number of cells of each type."""
    cells, total = pd.Series(counts, _names(tree)), int(counts.sum())
    if not total:
        return UNASSIGNED, np.nan, np.nan, 0, "no cell has scores", ""
    within = {top.name: [sub.name for sub in tree if top.name in (*sub.parents, sub.name)] for top in tree}
    common = [i for i, names in enumerate(within.values()) if cells[names].sum() > min_share * total]
    if common:
        # Types that more than half of the cells have are on one line of the tree, the deepest last.
        best = tree[common[-1]]
        name, reason, explained = best.name, best.signature, within[best.name]
        share, probability = cells[explained].sum() / total, expected[common[-1]] / total
    else:
        assigned = int(counts[:-2].sum())
        mostly_assigned = 2 * assigned > total
        name = AMBIGUOUS if mostly_assigned or cells[AMBIGUOUS] > cells[UNASSIGNED] else UNASSIGNED
        share, probability = (assigned if mostly_assigned else total - assigned) / total, np.nan
        reason, explained = f"{assigned / total:.0%} of the cells have a type", [name]
        if name == AMBIGUOUS and not mostly_assigned:
            reason += f", {cells[AMBIGUOUS] / total:.0%} are ambiguous"
    others = cells[cells >= _MIN_OTHERS * total].drop(explained, errors="ignore")
    others = others.sort_values(ascending=False, kind="stable")
    return name, share, probability, total, reason, ", ".join(f"{key} {n / total:.0%}" for key, n in others.items())


def _check_limit(name: str, value: float) -> None:
    check_number(name, value, lambda limit: 0.5 <= limit < 1, "in [0.5, 1), so that one type at most has it")


def _names(tree: Sequence[CellType]) -> list[str]:
    """Name what a cell can be, in the order of codes."""
    return [*(cell_type.name for cell_type in tree), AMBIGUOUS, UNASSIGNED]


def _calls(model: TypeModel, scores: NDArray, min_probability: float) -> Iterator[tuple[slice, tuple[NDArray, ...]]]:
    """Yield consecutive cells: their codes, probabilities and reasons (cells,), those of all types, and what blocked.

    All types have probabilities (cells, types); ``blocked`` counts the cells with a type only without each channel.
    """
    for start in range(0, len(scores), _CELLS):
        cells = slice(start, start + _CELLS)
        terms = model.terms(scores[cells])
        posterior = model.posterior(terms)
        code, probabilities = _deepest(model, posterior, min_probability)
        none = posterior[:, -1]
        by_code = np.column_stack([probabilities, 1 - none, none])
        probability = by_code[np.arange(len(code)), code].astype(np.float32)
        reason = _reasons(model, code, posterior, probabilities, terms, evidence(scores[cells]) >= 0.5)
        without = code >= len(model.tree)
        blocked = [
            _found_without(model, j, np.delete(terms[without], j, axis=2), min_probability)
            for j in range(len(model.channels))
        ]
        yield cells, (code, probability, reason, probabilities, np.array(blocked))


def _deepest(model: TypeModel, posterior: NDArray, least: float) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Return the code of each cell's deepest type, or of ambiguous or unassigned, and probabilities with subtypes."""
    n, probabilities = len(model.tree), posterior[:, :-1] @ model.within
    code = np.where(posterior[:, -1] < 0.5, n, n + 1).astype(np.int16)
    # Subtypes come after their parent, and of two types that exclude each other one at most is above one half.
    for i, probability in enumerate(probabilities.T):
        code[probability > least] = i
    return code, probabilities


def _found_without(model: TypeModel, channel: int, terms: NDArray, least: float) -> int:
    """Count the cells that get a type by the terms of all other channels, but none that this one defines."""
    code, _ = _deepest(model, model.posterior(terms), least)
    defined = [(model.channels[channel], True) in cell_type.added for cell_type in model.tree]
    return int(np.count_nonzero(~np.array([*defined, True, True])[code]))


def _reasons(
    model: TypeModel, code: NDArray, posterior: NDArray, probabilities: NDArray, terms: NDArray, positive: NDArray
) -> NDArray[np.object_]:
    """Say which marker decided for a type and which spoke against it, what blocked it, or which types are possible."""
    tree, rows = model.tree, np.arange(len(code))
    # The type in question, the most probable part of it, and the most probable of what is no part of it.
    nearest = np.where(code < len(tree), code, posterior[:, :-1].argmax(axis=1))
    part = np.column_stack([model.within.T > 0, np.zeros(len(tree), bool)])[nearest]
    best, rival = (np.where(chosen, posterior, -1).argmax(axis=1) for chosen in (part, ~part))
    speaks = terms[rows, best] - terms[rows, rival]
    most, least = speaks.argmax(axis=1), speaks.argmin(axis=1)
    roots = [i for i, cell_type in enumerate(tree) if not cell_type.parents]
    order = np.argsort(-probabilities[:, roots], axis=1, kind="stable")
    reason = np.full(len(code), "no marker is positive", object)
    for i in rows[(code <= len(tree)) | positive.any(axis=1)]:
        decided, fault = (model.channels[j] + "-+"[int(positive[i, j])] for j in (most[i], least[i]))
        against, cell_type = speaks[i, least[i]] < -_SPEAKS, tree[nearest[i]]
        if code[i] < len(tree):
            reason[i] = f"{cell_type.signature}; decided by {decided}" + f", despite {fault}" * bool(against)
        elif code[i] > len(tree):
            reason[i] = f"nearest is {cell_type.name}, but {fault if against else 'its markers are too weak'}"
        else:
            likely = [roots[j] for j in order[i, :2] if probabilities[i, roots[j]] >= probabilities[i, roots].max() / 2]
            names = [f"{tree[j].name} ({tree[j].signature})" for j in likely]
            reason[i] = " or ".join(names) if len(names) > 1 else f"perhaps {names[0]}"
    return reason
