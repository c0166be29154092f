"""Cell types from positivity: what a table of signatures says of each cell's scores."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd.tl._inputs import scored_matrix
from nimbus_sd.tl._results import AMBIGUOUS, UNASSIGNED, check_key_added, log_overwritten
from nimbus_sd.tl._scored_tree import check_limit, panel_signatures, scored_tree
from nimbus_sd.tl._signature_panel import Missing
from nimbus_sd.tl._signature_table import Signatures, markers_of
from nimbus_sd.tl._type_calls import call_types, type_names

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger("nimbus_sd")

_TOOL = "cell_types"


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

    The scores are taken as probabilities that the cell is positive, independent of each other. A cell fits a type
    if it has all the signs that the type and its ancestors ask for, so with probability

        P(fits) = product of s over positive markers x product of (1 - s) over negative ones.

    It *is* of the type if it fits it and none of the types that compete with it, the siblings of the type and of its
    ancestors; that probability is exact, however the signatures overlap. So for each cell the probabilities of the
    roots, of fitting none and of fitting several add up to 1, and those of subtypes to no more than their parent's. The
    cell gets the deepest type whose probability is above ``min_probability``; there is one at most. If not even a root
    has that, the cell is ``"unassigned"`` if it more probably fits none than any, else ``"ambiguous"``: it fits several
    that exclude each other, or the scores do not say which one.

    Scores are probabilities as far as they are calibrated (:func:`calibrate`). Those of :func:`nimbus_sd.predict` are
    rather too careful, so that cells stay at a parent; the layer of :func:`call_positive` takes its thresholds as sure.
    Mistakes that all markers of a cell share, as in segmentation, are not independent: then the probabilities of deep
    types are too high.

    The paper left 5.34 % of the cells unassigned, by clustering scores and merging by hand (Rumberger et al., "Nimbus
    improves unsupervised clustering", Fig. 5d and e).

    Parameters
    ----------
    adata
        Cells x channels.
    signatures
        A DataFrame or the path of a CSV file (UTF-8) with a row for each type: its name first (the index), a column
        ``parent``, and a column for each marker: ``+`` or ``positive``, ``-`` or ``negative``, empty or ``any``. A
        column ``source`` is ignored. A type has the signs of its ancestors, too. None takes :func:`signatures`. Markers
        are found under their synonyms, and whatever their case, blanks and hyphens.
    layer
        Layer of scores in [0, 1]; calls (0 and 1) do as well.
    min_probability
        A type must be more probable than this, in [0.5, 1).
    missing
        ``"error"`` refuses signatures with markers that no channel is of. ``"skip"`` does without: types with such a
        positive marker of their own are left out, and their subtypes move up, without being asked for it; a negative
        one is not asked. Channels that have no score in any cell are done without in the same way, whatever is given.
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
          ``share``, of all types and of cells without), ``unassigned``, ``ambiguous`` (shares of the scored cells)
          and ``not_scored`` (number of cells)

    Raises
    ------
    KeyError
        If the layer does not exist, or a marker has no channel; the nearest names are given.
    ValueError
        If signatures contradict themselves (see :func:`check_signatures`), names could mean several channels, scores
        are outside [0, 1], ``min_probability`` or ``missing`` is out of range, or ``key_added`` holds something else.

    Warns
    -----
    UserWarning
        Names markers without scores and what is left out with them; says how many cells lack a score.

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
    check_limit("min_probability", min_probability)
    columns = [key_added, f"{key_added}_probability", f"{key_added}_reason"]
    earlier = check_key_added(adata, key_added, _TOOL, [("obs", column) for column in columns])
    told = panel_signatures(adata, signatures, missing)
    scores, used, channels = scored_matrix(adata, layer, markers_of(told))
    tree = scored_tree(told, scores, channels, layer)

    code = np.empty(len(scores), np.int16)
    probability = np.empty(len(scores), np.float32)
    reason = np.empty(len(scores), object)
    for called in call_types(scores, channels, tree, min_probability):
        code[called.cells], probability[called.cells] = called.code, called.probability
        reason[called.cells] = called.reason

    names = type_names(tree)
    cells = np.bincount(code % len(names), minlength=len(names))
    present = [name for name, number in zip(names, cells, strict=True) if number]
    adata.obs[columns[0]] = pd.Categorical(_spread(np.array(names, object)[code], used), categories=present)
    adata.obs[columns[1]] = _spread(probability, used)
    adata.obs[columns[2]] = pd.Categorical(_spread(reason, used))
    share = cells / len(scores)
    adata.uns[key_added] = {
        "tool": _TOOL,
        "params": {
            "layer": layer,
            "min_probability": float(min_probability),
            "missing": missing,
            "signatures": _origin(signatures),
        },
        "types": pd.DataFrame(
            {
                "parent": [*(one.parent for one in tree), "", ""],
                "signature": [*(one.signature for one in tree), "", ""],
                "cells": cells,
                "share": share,
            },
            index=names,
        ),
        AMBIGUOUS: float(share[-2]),
        UNASSIGNED: float(share[-1]),
        "not_scored": int((~used).sum()),
    }
    log_overwritten(earlier, _TOOL)
    logger.info(
        "added obs[%r]: %d types, %.2f %% of %d cells unassigned, %.2f %% ambiguous",
        key_added,
        len(set(present) - {AMBIGUOUS, UNASSIGNED}),
        100 * share[-1],
        len(scores),
        100 * share[-2],
    )


def _spread(values: NDArray, used: NDArray[np.bool_]) -> NDArray:
    """Put values of the scored cells among all cells, the others missing."""
    everywhere = np.full(len(used), np.nan if values.dtype.kind == "f" else None, values.dtype)
    everywhere[used] = values
    return everywhere


def _origin(signatures: Signatures) -> str:
    if signatures is None:
        return "nimbus_sd.tl.signatures()"
    return "DataFrame" if isinstance(signatures, pd.DataFrame) else str(Path(signatures))
