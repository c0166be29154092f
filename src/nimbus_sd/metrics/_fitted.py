"""A layer that was fitted to the truth of some regions looks too good there."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from anndata import AnnData


def warn_if_fitted(adata: AnnData, name: str, cells: NDArray[np.bool_], *, stacklevel: int = 3) -> None:
    """Warn if cells that a layer is judged on are of regions that `tl.calibrate` fitted it on.

    Parameters
    ----------
    adata
        The table.
    name
        The layer.
    cells
        Shape (n_obs,): which are judged.
    stacklevel
        Of the warning; 3 is the caller of the function that calls this one.
    """
    entry = adata.uns.get(name)
    if not isinstance(entry, Mapping) or "fitted_on" not in entry:
        return
    region = adata.obs[str(entry["params"]["region_key"])].astype(str).to_numpy()
    fitted = [str(one) for one in entry["fitted_on"]]
    share = np.isin(region[cells], fitted).mean() if cells.any() else 0.0
    if share > 0:
        warnings.warn(
            f"Layer {name!r} was fitted on the truth of region(s) {', '.join(map(repr, fitted))}, and {share:.0%} of "
            "the cells that it is judged on are there: it looks better than it is. Judge it on the other regions.",
            UserWarning,
            stacklevel=stacklevel,
        )
