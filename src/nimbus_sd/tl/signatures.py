"""Signatures of cell types: the table that comes with the package, and the check of any."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from nimbus_sd.tl._signature_panel import Missing, checked_table, on_panel
from nimbus_sd.tl._signature_table import Signatures


def signatures() -> pd.DataFrame:
    """Return the signatures of 28 immune, epithelial and stromal cell types by 28 markers, each with a source.

    They are few, human and not tied to a tissue: a place to start from, to be cut down to and extended for the tissue
    at hand. They ask for what tells a type from its siblings, no more.

    Returns
    -------
    DataFrame
        Types x (``parent``, ``source``, markers), all texts: ``"+"`` positive, ``"-"`` negative, ``""`` any, and
        ``""`` for the parent of a root.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> table = ns.tl.signatures()
    >>> table.loc["CD8 T cell", ["parent", "CD8", "CD4"]].to_list()
    ['T cell', '+', '-']
    """
    return checked_table(None)


def check_signatures(
    signatures: Signatures, channels: Iterable[str] | None = None, *, missing: Missing = "error"
) -> pd.DataFrame:
    """Check signatures before they are used, and show what :func:`cell_types` makes of them.

    Found are: types or markers that are there twice, signs that are none, unknown parents, parents that go in a circle,
    types that contradict an ancestor, and types that no marker separates: those that ask for nothing of their own, and
    those that ask for all that a competing type (a sibling, or one of an ancestor) asks for, so that each of their
    cells is the other one, too.

    Parameters
    ----------
    signatures
        A DataFrame or the path of a CSV file, as for :func:`cell_types`.
    channels
        Names of a panel's channels, such as ``adata.var_names``, to find the markers in. None leaves them as they are.
    missing
        As for :func:`cell_types`.

    Returns
    -------
    DataFrame
        Types x (``parent``, ``source``, markers), all texts: ``"+"`` positive, ``"-"`` negative, ``""`` any; with
        ``channels``, the types that the panel can tell and the markers under its names.

    Raises
    ------
    KeyError
        If markers have no channel; the nearest names are given.
    ValueError
        Lists all that is wrong, or the markers that could mean several channels.

    Warns
    -----
    UserWarning
        Names markers that are missing, if they are to be skipped, and what is left out with them.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> table = ns.tl.signatures().loc[["Immune cell", "T cell", "CD8 T cell"]]
    >>> ns.tl.check_signatures(table, ["PTPRC", "CD3e", "CD8A", "CD4"]).columns.to_list()
    ['parent', 'source', 'PTPRC', 'CD3e', 'CD4', 'CD8A']
    """
    table = checked_table(signatures)
    return table if channels is None else on_panel(table, [str(name) for name in channels], missing)
