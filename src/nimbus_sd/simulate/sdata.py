"""Simulated tissue as a SpatialData, with cell types and the truth of every cell and marker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nimbus_sd import keys
from nimbus_sd.simulate.detector import Detector, expose
from nimbus_sd.simulate.marker import Marker, stain
from nimbus_sd.simulate.masks import Segmentation, segment
from nimbus_sd.simulate.tissue import Tissue, draw_tissue, smooth_field
from nimbus_sd.simulate.truth import truth

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

_GREY_LEVELS = 4000


def simulate(
    panel: Mapping[str, tuple[Marker, Detector]],
    types: Mapping[str, tuple[float, tuple[str, ...]]],
    *,
    n_regions: int = 1,
    shape: tuple[int, int] = (512, 512),
    pixel_size: float = 0.5,
    radius: float = 5.0,
    segmentation: Segmentation | None = None,
    rng: int | np.random.Generator = 0,
) -> SpatialData:
    """Simulate regions of one tissue: cell types decide who is positive, markers and detectors what it looks like.

    Parameters
    ----------
    panel
        Marker name -> how it stains and how its image is taken. A marker that no type names is drawn by its own
        prevalence and clustering.
    types
        Cell type -> its relative frequency and the markers that its cells express.
    n_regions
        Number of fields of view, named ``fov1``, ``fov2``, ...
    shape
        Height and width of each, in pixels.
    pixel_size
        In um.
    radius
        Median cell radius in um.
    segmentation
        What the masks show; whole cells by default.
    rng
        Seed or generator.

    Returns
    -------
    SpatialData
        ``images["fov1"]`` (c, y, x) uint16 and ``labels["fov1_labels"]`` for each region, in coordinate systems
        ``fov1`` (pixels) and ``fov1_um``; ``tables["table"]`` with one row per segmented cell:

        - ``layers["gold"]``: 1 positive, 0 negative, 0.5 undetermined (not visible in the image, or two cells merged)
        - ``obs["cell_type"]``: the type that was drawn
        - ``X``: mean intensity

    Raises
    ------
    ValueError
        If there is no marker, no cell type or no region to draw.
    KeyError
        If a type expresses a marker that is not in the panel.

    Examples
    --------
    >>> panel = {"CD3": (Marker("membrane", 0.3), Detector())}
    >>> sdata = simulate(panel, {"T cell": (1, ("CD3",)), "other": (2, ())}, shape=(128, 128))
    >>> sorted(sdata.tables["table"].obs["cell_type"].unique())
    ['T cell', 'other']
    """
    from spatialdata import SpatialData

    _check(panel, types, n_regions)
    rng = np.random.default_rng(rng)
    segmentation = Segmentation() if segmentation is None else segmentation
    images, masks, tables = {}, {}, []
    for number in range(n_regions):
        name = f"fov{number + 1}"
        tissue = draw_tissue(shape, pixel_size, rng, radius=radius, density=0.95)
        labels, cells = segment(tissue, segmentation, rng)
        type_of = _assign_types(tissue, types, rng)
        channels, known = [], []
        for marker_name, (marker, detector) in panel.items():
            stained = stain(tissue, marker, rng, _positive(marker_name, types, type_of))
            light = expose(stained.own + stained.rest, tissue, detector, rng)
            levels = light * (detector.gain if detector.counting else _GREY_LEVELS)
            channels.append(np.clip(np.rint(levels), 0, 65535).astype(np.uint16))
            known.append(truth(stained, tissue, detector, cells)[1:])
        images[name], masks[f"{name}_labels"] = _elements(name, np.stack(channels), list(panel), labels, pixel_size)
        kinds = np.array(list(types), dtype=object)[type_of[cells[1:, 0]]]
        tables.append(_rows(f"{name}_labels", np.stack(channels), labels, np.stack(known, axis=1), kinds))
    return SpatialData(images=images, labels=masks, tables={"table": _table(tables, list(panel))})


def _check(panel: Mapping[str, object], types: Mapping[str, tuple[float, tuple[str, ...]]], n_regions: int) -> None:
    if not panel or not types or n_regions < 1:
        raise ValueError(
            "At least one marker, one cell type and one region are needed; `panel` has "
            f"{len(panel)}, `types` has {len(types)}, and `n_regions` is {n_regions}."
        )
    if unknown := sorted({marker for _, markers in types.values() for marker in markers} - set(panel)):
        raise KeyError(f"`types` names {unknown}, but the panel has only {list(panel)}.")


def _assign_types(
    tissue: Tissue, types: Mapping[str, tuple[float, tuple[str, ...]]], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Give each cell a type: neighbours are often alike, as each type prefers places of its own."""
    row, col = (tissue.centre / tissue.pixel_size).astype(int).T
    at = (np.clip(row, 0, tissue.shape[0] - 1), np.clip(col, 0, tissue.shape[1] - 1))
    liking = [
        np.log(share) + 1.2 * smooth_field(rng, tissue.shape, 50 / tissue.pixel_size)[at] + rng.gumbel(0, 1, len(row))
        for share, _ in types.values()
    ]
    return np.argmax(liking, axis=0)


def _positive(
    marker: str, types: Mapping[str, tuple[float, tuple[str, ...]]], type_of: NDArray[np.int64]
) -> NDArray[np.bool_] | None:
    expressing = np.array([marker in markers for _, markers in types.values()])
    if not expressing.any():
        return None
    positive: NDArray[np.bool_] = expressing[type_of]
    positive[0] = False
    return positive


def _elements(name: str, image: NDArray, channels: list[str], labels: NDArray, pixel_size: float) -> tuple:
    from spatialdata.models import Image2DModel, Labels2DModel
    from spatialdata.transformations import Identity, Scale

    places = {name: Identity(), f"{name}_um": Scale([pixel_size, pixel_size], axes=("y", "x"))}
    return (
        Image2DModel.parse(
            image, dims=("c", "y", "x"), c_coords=channels, transformations=dict(places), chunks=(1, 1024, 1024)
        ),
        Labels2DModel.parse(labels, dims=("y", "x"), transformations=dict(places)),
    )


def _rows(
    region: str, image: NDArray, labels: NDArray, known: NDArray[np.float32], kinds: NDArray
) -> tuple[pd.DataFrame, NDArray[np.float32], NDArray[np.float32]]:
    """Annotation, mean intensity and truth of a region's cells."""
    area = np.bincount(labels.ravel())[1:]
    mean = np.stack([np.bincount(labels.ravel(), channel.ravel())[1:] / area for channel in image], axis=1)
    ids = np.arange(1, len(area) + 1)
    obs = pd.DataFrame({keys.REGION: region, keys.INSTANCE: ids, "cell_type": kinds})
    return obs.set_index(f"{region}_" + ids.astype(str).astype(object)), mean.astype(np.float32), known


def _table(tables: list[tuple[pd.DataFrame, NDArray, NDArray]], channels: list[str]) -> AnnData:
    from anndata import AnnData
    from spatialdata.models import TableModel

    obs = pd.concat([rows for rows, _, _ in tables])
    obs[[keys.REGION, "cell_type"]] = obs[[keys.REGION, "cell_type"]].astype("category")
    adata = AnnData(
        np.concatenate([mean for _, mean, _ in tables]),
        obs=obs,
        var=pd.DataFrame(index=pd.Index(channels)),
        layers={keys.GOLD: np.concatenate([known for _, _, known in tables])},
    )
    return TableModel.parse(
        adata, region=list(obs[keys.REGION].cat.categories), region_key=keys.REGION, instance_key=keys.INSTANCE
    )
