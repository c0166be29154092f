"""From the regions of a SpatialData to a store of tiles, read and normalised as inference does."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from nimbus_sd import keys
from nimbus_sd.engine import BadPixels, check_cell_size, check_pixels, find_factors
from nimbus_sd.labels import evaluation_regions
from nimbus_sd.models import PUBLISHED, Card, load
from nimbus_sd.spatial import Region, find_regions
from nimbus_sd.train.cell_labels import CellLabels, cell_labels, labels_table
from nimbus_sd.train.splits import assign_splits
from nimbus_sd.train.store import Store, StoreSettings
from nimbus_sd.train.together import groups_of, joined, marks_of
from nimbus_sd.train.write import write_region

if TYPE_CHECKING:
    from spatialdata import SpatialData

logger = logging.getLogger("nimbus_sd")


def build_store(
    path: str | Path,
    sdata: SpatialData,
    *,
    data_set: str,
    image_key: str | Sequence[str] | None = None,
    labels_key: str | Sequence[str] | None = None,
    table_key: str = "table",
    labels: str = keys.SILVER,
    channels: Sequence[str] | None = None,
    pixel_size: float | Mapping[str, float] | None = None,
    normalization: Mapping[str, float] | pd.Series | pd.DataFrame | None = None,
    model: str | Path | Card = PUBLISHED,
    tile_size: int = 512,
    overlap: int = 16,
    split: Sequence[float] | Mapping[str, Sequence[str]] = (0.8, 0.1, 0.1),
    split_by: str | None = None,
    rng: int | np.random.Generator = 0,
    progress: bool = True,
) -> Store:
    """Cut the labelled regions of a data set into tiles for training, and add them to a store on disk.

    Images are read, normalised and brought to the model's grid by the code that `nimbus_sd.predict` uses, a window at
    a time. Tiles without positive cells are kept (Rumberger et al., "Training details").

    No region, image or patient is in two splits of a store. A region is recognised in another data set, whatever its
    name there, by the pixels of its masks or of a channel (1024 x 1024 in its middle), and by an equal value of
    `split_by` where both data sets gave one. It goes to the split that it has there; a mapping that says otherwise is
    an error.

    Parameters
    ----------
    path
        Folder of the store (Zarr v3). It is made where it does not exist; another data set is added otherwise.
    sdata
        Images (c, y, x), labels (y, x), and a table with layers of labels, cells x channels: 1, 0.75, 0.5, 0.25, 0;
        NaN = not judged.
    data_set
        Name of the data set. Normalisation, thresholds of the noise-robust selection and averages of F1 are by it.
    image_key, labels_key, pixel_size, normalization
        As for `nimbus_sd.predict`.
    table_key
        The table with labels.
    labels
        Layer to train on. ``layers["gold_training"]`` goes before it where it says something, and is enough where the
        layer is the default one and does not exist. ``layers["gold"]`` is
        evaluation gold: a region with some is for testing, and so is one that `labels.draw_regions` drew.
    channels
        Channels to take. None takes those with a label that says positive or negative.
    model
        A card, or a model as for `nimbus_sd.predict`: its pixel size and rule of normalisation are those of the tiles.
        By default the published model's.
    tile_size, overlap
        Side of a tile, and what neighbours share at least, in model pixels. Regions that are smaller are mirrored, and
        nothing is learned from what is outside.
    split
        Shares of regions for training, validation and test, or a mapping from ``"train"``, ``"validation"`` and
        ``"test"`` to labels elements. Regions of one image stay together, and so do equal ones. By shares, regions
        without a label that says positive or negative are left out; the log names them.
    split_by
        Column of ``obs``, such as ``"patient"``: regions that share its value stay together too, in all data sets.
    rng
        Seed or generator of the split.
    progress
        Show progress bars.

    Returns
    -------
    Store
        Also on disk. If the call is stopped, the data set is not there and is written anew by the next call.

    Raises
    ------
    KeyError
        An element, channel, table, layer or column does not exist.
    ValueError
        The store has other settings, or this data set already; labels are outside of the code; no cell of a channel is
        labelled positive or negative; by shares, a split would be empty (a mapping may leave one out, and `train` says
        if it needs it); a region, or what it belongs to, would be in two splits of the store; or as
        `nimbus_sd.predict`.
    OSError
        Pixels cannot be read, or the store not be written.

    Examples
    --------
    >>> import tempfile
    >>> import nimbus_sd as ns
    >>> sdata = ns.datasets.example()
    >>> adata = sdata.tables["table"]
    >>> adata.layers["silver"] = adata.layers.pop("gold")
    >>> split = {"train": ["fov1_labels"], "validation": ["fov2_labels"]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = ns.train.build_store(
    ...         f"{folder}/tiles", sdata, data_set="example", channels=["CD3"], split=split, progress=False
    ...     )
    ...     len(store.tiles("train"))
    1
    """
    card = model if isinstance(model, Card) else load(model).card
    settings = StoreSettings(tile_size, overlap, card.pixel_size, card.rule, card.quantile)
    store = Store.create(path, settings)
    store.check_new(data_set)
    regions = find_regions(sdata, image_key, labels_key, channels=channels, pixel_size=pixel_size)
    table = labels_table(sdata, table_key, labels, regions)
    found = {region.labels_key: cell_labels(table, region, labels) for region in regions}
    if channels is None:
        judged = _judged(regions[0].channels, found.values())
        images, masks = zip(*((region.image_key, region.labels_key) for region in regions), strict=True)
        regions = find_regions(sdata, list(images), list(masks), channels=judged, pixel_size=pixel_size)
        found = {region.labels_key: cell_labels(table, region, labels) for region in regions}
    check_cell_size(regions)
    groups = groups_of(table, regions, split_by)
    # Also those that were drawn for it and wait for an annotator.
    evaluation = set(evaluation_regions(table)) & set(found)
    own = regions if isinstance(split, Mapping) else _labelled(regions, found, evaluation)
    marks = {region.labels_key: marks_of(region) for region in own}
    if split_by is not None:
        marks = {key: found | {f"group {groups[key]}"} for key, found in marks.items()}
    together = joined({key: groups[key] for key in marks}, marks)
    there = {key: store.places(found) for key, found in marks.items()}
    splits = assign_splits(together, evaluation, split, rng, there)

    bad = BadPixels()
    # Of all regions, as inference measures them.
    factors = find_factors(regions, normalization, card, bad, progress)
    in_use = factors["factor"].to_numpy(np.float64)
    # Pixels that were counted once, all of them, are not counted again.
    counted = BadPixels() if normalization is None else bad
    with store.new_data_set(data_set, regions[0].channels, in_use) as group:
        for region in tqdm(own, desc="Regions", disable=not progress):
            node = group.create_group(str(len(list(group.group_keys()))))
            write_region(node, region, found[region.labels_key], in_use, card, settings, counted)
            key = region.labels_key
            places = {"split": splits[key], "group": together[key], "marks": sorted(marks[key])}
            node.attrs.update({"region": key, "image": region.image_key} | places)
    check_pixels(bad)
    counts = pd.Series(splits).value_counts().to_dict()
    logger.info("added data set %r to %s: regions %s, channels %s", data_set, path, counts, regions[0].channels)
    return store


def _judged(channels: Sequence[str], found: Any) -> list[str]:
    known = np.zeros(len(channels), bool)
    for one in found:
        known |= one.informative
    if not known.any():
        raise ValueError(
            f"No cell is labelled positive or negative in any of the channels {list(channels)}: nothing to train on."
        )
    return [channel for channel, there in zip(channels, known, strict=True) if there]


def _labelled(regions: Sequence[Region], found: Mapping[str, CellLabels], evaluation: set[str]) -> list[Region]:
    """Leave out regions that say nothing: each would take the place of one that does in a split by shares."""
    own = [one for one in regions if found[one.labels_key].informative.any() or one.labels_key in evaluation]
    if not own:
        _judged(regions[0].channels, found.values())
    if without := [one.labels_key for one in regions if one not in own]:
        logger.info("left out %d regions without a label: %s", len(without), ", ".join(without))
    return own
