"""Regions that a tool may learn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from nimbus_sd._table import as_list, region_column

if TYPE_CHECKING:
    from anndata import AnnData


def given_regions(
    adata: AnnData, regions: str | Sequence[str] | None, region_key: str | None
) -> tuple[pd.Series, list[str]]:
    """Return each cell's region, categories of text, and the regions that are named; None names all.

    Raises
    ------
    KeyError
        If the column or a region does not exist, or none is named.
    """
    column = region_column(adata, region_key).astype("category")
    region = column.cat.remove_unused_categories().cat.rename_categories(str)
    there = list(region.cat.categories)
    named = there if regions is None else [str(name) for name in as_list(regions)]
    if not named or (unknown := [name for name in named if name not in there]):
        problem = f"has no region(s) {unknown}; it" if named else "is to be used, but `regions` names none; it"
        raise KeyError(f"obs[{region.name!r}] {problem} has {there}.")
    return region, named
