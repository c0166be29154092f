"""Cell types from positivity: the type of each cell, and suggestions for clusters."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd._table import clusters_of
from nimbus_sd.tl._inputs import check_number, scored_matrix
from nimbus_sd.tl._results import AMBIGUOUS, UNASSIGNED, check_key_added, log_overwritten
from nimbus_sd.tl.signatures import CellType, Missing, Rule, Signatures, checked_table, markers_of, on_panel, type_tree

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger("nimbus_sd")

#: The probability of each cell, (cells,), that it follows a rule.
Follows: TypeAlias = Mapping[Rule, NDArray]

#: Cells at a time: arrays of this length stay in the processor's cache.
_CELLS = 1 << 15
_MIN_OTHERS = 0.05


def cell_types(
    adata: AnnData,
    signatures: Signatures = None,
    *,
    layer: str = keys.NIMBUS,
    min_probability: float = 0.5,
    missing: Missing = "error",
    key_added: str = "cell_type_nimbus",
) -> None:
    """Give each cell the deepest type of a signature tree that its scores support, with a probability and a reason.

    Scores are taken as independent probabilities that the cell is positive. A cell fits a type if it has all signs
    that the type and its ancestors ask for, so with probability

        P(fits) = product of s over positive markers x product of (1 - s) over negative ones.

    It *is* of the type if it fits the type and none that competes with it, the siblings of the type and of its
    ancestors; that probability is exact, however the signatures overlap. The cell gets the deepest type whose
    probability is above ``min_probability``; there is one at most. If not even a root has that, the cell is
    ``"unassigned"`` if it more probably fits none than any, else ``"ambiguous"``: several fit, or it is unsure which.

    Scores are probabilities as far as they are calibrated (:func:`calibrate`). Those of :func:`nimbus_sd.predict` tend
    to be too cautious, so that cells stay at a parent; the layer of :func:`call_positive` takes its thresholds as
    certain. Errors that a cell's markers share, as in segmentation, make the probabilities of deep types too high.
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
        - ``obs[f"{key_added}_reason"]``: categorical, the signs that the type asks for (``"CD45+ CD3+ CD8+ CD4-"``),
          the nearest type and what speaks against it (unassigned), or the types in question (ambiguous)
        - ``uns[key_added]``: ``tool``, ``params``, ``types`` (DataFrame types x ``parent``, ``signature``, ``cells``,
          ``share``), ``unassigned``, ``ambiguous`` (shares of the scored cells) and ``not_scored`` (number of cells)

    Raises
    ------
    KeyError
        If a marker has no channel.
    ValueError
        If signatures contradict themselves (see :func:`check_signatures`).

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> adata = ns.datasets.example().tables["table"]
    >>> table = ns.tl.signatures().loc[["Immune cell", "T cell", "B cell", "Epithelial cell"]]
    >>> ns.tl.cell_types(adata, table, layer="gold")
    >>> adata.obs["cell_type_nimbus"].cat.categories.to_list()
    ['Immune cell', 'T cell', 'B cell', 'Epithelial cell', 'ambiguous', 'unassigned']
    >>> adata.obs["cell_type_nimbus_reason"].iloc[0]
    'CD45+ CD3+'
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
    for cells, follows in blocks(scores, channels):
        at = rows[cells]
        code[at], probability[at], reason[at], _ = _call_types(tree, follows, min_probability)

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
    }
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
    missing: Missing = "error",
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
    for cells, follows in blocks(scores, channels):
        code, *_, probabilities = _call_types(tree, follows, min_probability)
        np.add.at(counts, (row[cells], code), 1)
        for i, probability in enumerate(probabilities):
            expected[:, i] += np.bincount(row[cells], probability, len(counts))

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


def _call_types(tree: Sequence[CellType], follows: Follows, min_probability: float) -> tuple[NDArray, ...]:
    """Return each cell's code, its probability and the reason (cells,), and all probabilities (types, cells)."""
    probabilities = type_probabilities(tree, follows)
    ambiguous, unassigned = len(tree), len(tree) + 1
    code = np.full(probabilities.shape[1], unassigned, np.int16)
    probability = np.zeros(len(code), np.float32)
    code_of = {"": unassigned} | {cell_type.name: i for i, cell_type in enumerate(tree)}
    for i, cell_type in enumerate(tree):
        # Above one half, at most one of a type's subtypes is possible, so their order does not matter.
        deeper = (code == code_of[cell_type.parent]) & (probabilities[i] > min_probability)
        code[deeper] = i
        probability[deeper] = probabilities[i, deeper]
    reason = np.array([*(cell_type.signature for cell_type in tree), "", ""], object)[code]
    if (without := np.flatnonzero(code == unassigned)).size:
        follows = {rule: values[without] for rule, values in follows.items()}
        roots = [cell_type for cell_type in tree if not cell_type.parents]
        none = none_of([frozenset(root.rules) for root in roots], follows)
        code[without] = np.where(none < 0.5, ambiguous, unassigned)
        probability[without] = np.maximum(none, 1 - none)
        reason[without] = np.where(none < 0.5, _candidates(roots, follows), _nearest(tree, follows))
    return code, probability, reason, probabilities


def _candidates(roots: Sequence[CellType], follows: Follows) -> NDArray[np.object_]:
    """Name the root that fits best, and the second where it is at least half as probable."""
    fits = np.stack([np.prod([follows[rule] for rule in root.rules], axis=0) for root in roots])
    first, second = np.argsort(-fits, axis=0, kind="stable")[[0, min(1, len(roots) - 1)]]
    best, runner_up = (np.take_along_axis(fits, which[None], axis=0)[0] for which in (first, second))
    names = [f"{root.name} ({root.signature})" for root in roots]
    texts = np.array([[f"{a} or {b}" if a != b else f"perhaps {a}" for b in names] for a in names], object)
    return texts[first, np.where(runner_up >= best / 2, second, first)]


def _nearest(tree: Sequence[CellType], follows: Follows) -> NDArray[np.object_]:
    """Name the type whose rules disagree least with the scores, and the rule that disagrees most."""
    misfits = [
        # Of two types that miss as much, the one with more positive markers present says more.
        sum(1 - follows[rule] for rule in rules) - sum((follows[rule] for rule in rules if rule[1]), np.float32(0)) / 2
        for rules in (cell_type.rules for cell_type in tree)
    ]
    closest = np.stack(misfits).argmin(axis=0)
    reason = np.empty(len(closest), object)
    for i in np.unique(closest):
        cells = np.flatnonzero(closest == i)
        values = np.stack([follows[rule][cells] for rule in tree[i].rules])
        faults = [(f"{marker}{'-' if sign else '+'}", f"{marker} is unsure") for marker, sign in tree[i].rules]
        texts = np.array([[f"nearest is {tree[i].name}, but {fault}" for fault in pair] for pair in faults], object)
        reason[cells] = texts[values.argmin(axis=0), (values.min(axis=0) >= 0.5).astype(int)]
    if positive := {rule for cell_type in tree for rule in cell_type.rules if rule[1]}:
        reason[np.all([follows[rule] < 0.5 for rule in positive], axis=0)] = "no marker is positive"
    return reason


def blocks(scores: NDArray, channels: Sequence[str]) -> Iterator[tuple[slice, Follows]]:
    """Yield consecutive cells of a (cells, channels) matrix, with the probability that they follow each rule."""
    for start in range(0, len(scores), _CELLS):
        cells = slice(start, start + _CELLS)
        rows = list(zip(channels, np.ascontiguousarray(scores[cells].T), strict=True))
        yield cells, {(name, True): row for name, row in rows} | {(name, False): 1 - row for name, row in rows}


def type_probabilities(tree: Sequence[CellType], follows: Follows) -> NDArray[np.float32]:
    """Return the probability, (types, cells), that a cell follows a type's rules and those of no competing type.

    At most one of two competing types holds, and a subtype only where its parent does.
    """
    fits = {"": np.ones_like(next(iter(follows.values())))}
    probabilities = []
    for cell_type in tree:
        fit = fits[cell_type.parent]
        for rule in cell_type.added:
            fit = fit * follows[rule]
        fits[cell_type.name] = fit
        opposite = {(marker, not positive) for marker, positive in cell_type.rules}
        rivals = [other for other in tree if cell_type.competes_with(other) and opposite.isdisjoint(other.rules)]
        # What both types ask for is given already, and must not count twice.
        patterns = [frozenset(other.rules) - frozenset(cell_type.rules) for other in rivals]
        probabilities.append(fit * none_of(patterns, follows))
    return np.stack(probabilities)


def none_of(patterns: Iterable[frozenset[Rule]], follows: Follows) -> NDArray:
    """Return the probability that a cell follows none of some sets of rules.

    Exact for independent markers, however the patterns overlap: it is expanded over one marker after the other, first
    those of the shortest pattern; each intermediate set of patterns is evaluated once.
    """
    certain = np.ones_like(next(iter(follows.values())))
    answers: dict[frozenset[frozenset[Rule]], NDArray] = {frozenset(): certain}

    def answer(question: frozenset[frozenset[Rule]]) -> NDArray:
        if frozenset() in question:
            return np.zeros_like(certain)
        if question not in answers:
            uses = Counter(marker for pattern in question for marker, _ in pattern)
            shortest = min(question, key=lambda pattern: (len(pattern), sorted(pattern)))
            marker = max(sorted(marker for marker, _ in shortest), key=lambda name: uses[name])
            positive, negative = (
                answer(frozenset(part - {(marker, sign)} for part in question if (marker, not sign) not in part))
                for sign in (True, False)
            )
            answers[question] = positive * follows[marker, True] + negative * follows[marker, False]
        return answers[question]

    return answer(frozenset(patterns))
