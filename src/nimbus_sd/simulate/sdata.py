"""A simulated SpatialData: cell types, images, masks, and the truth of every cell and marker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd.simulate.detector import Detector, expose
from nimbus_sd.simulate.marker import Marker, stain
from nimbus_sd.simulate.segmentation import Segmentation, segment, truth
from nimbus_sd.simulate.tissue import Tissue, draw_tissue, smooth_field

if TYPE_CHECKING:
    from spatialdata import SpatialData

Types = Mapping[str, tuple[float, tuple[str, ...]]]

_GREY_LEVELS = 4000


def simulate(
    panel: Mapping[str, tuple[Marker, Detector]],
    types: Types,
    *,
    n_regions: int = 1,
    shape: tuple[int, int] = (512, 512),
    pixel_size: float = 0.5,
    radius: float = 5.0,
    segmentation: Segmentation | None = None,
    rng: int | Generator = 0,
) -> SpatialData:
    """Simulate regions of one tissue: cell types decide which cells are positive, markers and detectors how they look.

    Parameters
    ----------
    panel
        By name of a marker, how it stains and how its image is taken. Positive cells of a marker that no type
        expresses are drawn by its own prevalence and clustering.
    types
        By name of a cell type, its relative frequency and the markers that its cells express.
    n_regions, shape
        Number of fields of view, named ``fov1``, ``fov2``, ..., and height and width of each in pixels.
    pixel_size, radius
        Width of a pixel, and median radius of cells, in um.
    segmentation, rng
        What the masks show (whole cells by default), and a seed or generator.

    Returns
    -------
    SpatialData
        ``images["fov1"]`` (c, y, x) uint16 and ``labels["fov1_labels"]`` for each region, in coordinate systems
        ``fov1`` (pixels) and ``fov1_um``; ``tables["table"]`` with one row per segmented cell:

        - ``layers["gold"]``: 1 positive, 0 negative, 0.5 undetermined (not visible in the image, or two cells merged)
        - ``obs["cell_type"]``: the type that was drawn
        - ``X``: mean intensity

    Examples
    --------
    >>> panel = {"CD3": (Marker("membrane", 0.3), Detector())}
    >>> sdata = simulate(panel, {"T cell": (1, ("CD3",)), "other": (2, ())}, shape=(128, 128))
    >>> sorted(sdata.tables["table"].obs["cell_type"].unique())
    ['T cell', 'other']
    """
    from anndata import AnnData
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, Labels2DModel, TableModel
    from spatialdata.transformations import Identity, Scale

    if not panel or not types or n_regions < 1:
        given = f"{len(panel)} in `panel`, {len(types)} in `types`, and `n_regions` is {n_regions}"
        raise ValueError(f"At least one marker, one cell type and one region are needed; there are {given}.")
    if unknown := sorted({marker for _, markers in types.values() for marker in markers} - set(panel)):
        raise KeyError(f"`types` names {unknown}, but the panel has only {list(panel)}.")
    rng = np.random.default_rng(rng)
    images, masks, obs, means, gold, axes = {}, {}, [], [], [], ("c", "y", "x")
    for name in (f"fov{number + 1}" for number in range(n_regions)):
        tissue = draw_tissue(shape, pixel_size, rng, radius=radius, density=0.95)
        labels, owners = segment(tissue, segmentation or Segmentation(), rng)
        type_of = _assign_types(tissue, types, rng)
        channels, states = [], []
        for marker_name, (marker, detector) in panel.items():
            expressing = np.array([marker_name in markers for _, markers in types.values()])
            positive = expressing[type_of] & (np.arange(len(type_of)) > 0) if expressing.any() else None
            stained = stain(tissue, marker, rng, positive)
            light = expose(stained.signal, tissue, detector, rng)
            levels = light * (detector.gain if detector.counting else _GREY_LEVELS)
            channels.append(np.clip(np.rint(levels), 0, 65535).astype(np.uint16))
            states.append(truth(stained, tissue, detector, owners)[1:])
        places = {name: Identity(), f"{name}_um": Scale([pixel_size, pixel_size], axes=axes[1:])}
        images[name] = Image2DModel.parse(
            np.stack(channels), axes, c_coords=list(panel), transformations=dict(places), chunks=(1, 1024, 1024)
        )
        masks[f"{name}_labels"] = Labels2DModel.parse(labels, axes[1:], transformations=dict(places))
        area, ids = np.bincount(labels.ravel())[1:], np.arange(1, len(owners))
        kinds = np.array(list(types), dtype=object)[type_of[owners[1:, 0]]]
        rows = pd.DataFrame({keys.REGION: f"{name}_labels", keys.INSTANCE: ids, "cell_type": kinds})
        obs.append(rows.set_index(f"{name}_labels_" + ids.astype(str).astype(object)))
        means.append(np.stack([np.bincount(labels.ravel(), c.ravel())[1:] / area for c in channels], axis=1))
        gold.append(np.stack(states, axis=1))
    cells = pd.concat(obs).astype({keys.REGION: "category", "cell_type": "category"})
    mean, layers = np.concatenate(means).astype(np.float32), {keys.GOLD: np.concatenate(gold)}
    table = AnnData(mean, obs=cells, var=pd.DataFrame(index=pd.Index(list(panel))), layers=layers)
    present = list(table.obs[keys.REGION].cat.categories)
    table = TableModel.parse(table, region=present, region_key=keys.REGION, instance_key=keys.INSTANCE)
    return SpatialData(images=images, labels=masks, tables={"table": table})


def _assign_types(tissue: Tissue, types: Types, rng: Generator) -> NDArray[np.int64]:
    """Give each cell a type. Neighbours are often alike, as each type prefers places of its own."""
    preference = [
        np.log(share)
        + 1.2 * tissue.at_centres(smooth_field(rng, tissue.shape, 50 / tissue.pixel_size))
        + rng.gumbel(0, 1, tissue.n_cells + 1)
        for share, _ in types.values()
    ]
    return np.argmax(preference, axis=0)
