"""A layer that was fitted to labels of some cells looks too good there."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from anndata import AnnData


def warn_if_fitted(adata: AnnData, name: str, cells: NDArray[np.bool_], *, stacklevel: int = 3) -> None:
    """Warn if cells that a layer is judged on are some that it, or a layer that it was made from, was fitted on.

    `tl.calibrate` is fitted on whole regions, `tl.adapt` on cells.

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
    for source, entry in _history(adata, name):
        if "fitted_on" in entry:
            regions = [str(one) for one in entry["fitted_on"]]
            fitted = adata.obs[str(entry["params"]["region_key"])].astype(str).isin(regions).to_numpy()
            what, others = f"the truth of region(s) {', '.join(map(repr, regions))}", "regions"
        elif "fitted_cells" in entry and entry["fitted_cells"] in adata.obs:
            fitted = adata.obs[entry["fitted_cells"]].to_numpy(bool)
            what, others = f"the cells of obs[{entry['fitted_cells']!r}]", "cells"
        else:
            continue
        share = fitted[cells].mean() if cells.any() else 0.0
        if share > 0:
            warnings.warn(
                f"Layer {source!r} was fitted on {what}, and {share:.0%} of the cells that it is judged on are there: "
                f"it looks better than it is. Judge it on the other {others}.",
                UserWarning,
                stacklevel=stacklevel,
            )


def _history(adata: AnnData, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield how a layer was made, then how the layer that it was made from was made, and so on."""
    seen = set()
    while name not in seen and isinstance(entry := adata.uns.get(name), Mapping):
        yield name, entry
        seen.add(name)
        params = entry.get("params")
        name = str(params.get("layer")) if isinstance(params, Mapping) else name
