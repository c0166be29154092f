"""From the regions of a SpatialData to a store of tiles, read and normalised as inference does."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from itertools import compress
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.cluster.hierarchy import DisjointSet
from spatialdata import SpatialData
from tqdm.auto import tqdm

from nimbus_sd import keys
from nimbus_sd._table import judged, obs_columns, region_column
from nimbus_sd.engine import BadPixels, check_cell_size, check_pixels, find_factors
from nimbus_sd.labels import evaluation_regions, read_labels
from nimbus_sd.models import PUBLISHED, Card, load
from nimbus_sd.spatial import Region, check_rows, existing_table, find_regions, rows_of
from nimbus_sd.train.store import SPLITS, Labels, Store, StoreSettings, new_data_set, open_store, write_region

logger = logging.getLogger("nimbus_sd")

_OVERLAP: Final = 16
# Side of a region's middle, by whose pixels it is recognised; most images are not larger.
_MIDDLE: Final = 1024


@dataclass(frozen=True)
class Split:
    """Which regions train, choose the checkpoint, and test: whole regions, never tiles.

    Parameters
    ----------
    regions
        Shares of regions for training, validation and test, not counting those without a label that says positive or
        negative; or labels elements by ``"train"``, ``"validation"`` and ``"test"``, which may lack one.
    by
        Column of ``obs``, such as ``"patient"``: regions that share its value stay together, in all data sets of a
        store. Regions of one image always do.
    rng
        Seed or generator of the draw by shares.

    Examples
    --------
    >>> split = Split((0.6, 0.2, 0.2), by="patient", rng=1)
    """

    regions: Sequence[float] | Mapping[str, Sequence[str]] = (0.8, 0.1, 0.1)
    by: str | None = None
    rng: int | np.random.Generator = 0


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
    tile_size: int | tuple[int, int] = 512,
    split: Split | Sequence[float] | Mapping[str, Sequence[str]] = (0.8, 0.1, 0.1),
    progress: bool = True,
) -> Store:
    """Cut the labelled regions of a data set into tiles for training, and add them to a store on disk.

    Images are read, normalised and brought to the model's grid by the code of `nimbus_sd.predict`, a window at a time.
    Tiles without positive cells are kept (Rumberger et al., "Training details").

    No region, image or patient is in two splits of a store. A region is recognised in another data set by the pixels
    of its masks or of a channel (1024 x 1024 in its middle), and by an equal value of ``Split.by`` where both data sets
    gave one. It goes to the split that it has there; a mapping that says otherwise is an error.

    Parameters
    ----------
    path
        Folder of the store (Zarr v3). A data set is added to a store that exists.
    sdata
        Images (c, y, x), labels (y, x), and a table with layers of labels, cells x channels: 1, 0.75, 0.5, 0.25, 0;
        NaN = not judged.
    data_set
        Name of the data set. Normalisation, thresholds of the noise-robust selection and averages of F1 are by it.
    image_key, labels_key, pixel_size, normalization
        As for `nimbus_sd.predict`.
    table_key, labels
        The table with labels, and the layer to train on. ``layers["gold_training"]`` takes precedence where it is not
        NaN, and is enough where ``layers["silver"]`` does not exist. ``layers["gold"]`` is evaluation gold: a region
        with some is for testing, and so is one that `labels.draw_regions` drew.
    channels
        Channels to take. None takes those with a label that says positive or negative.
    model
        A card, or a model as for `nimbus_sd.predict`, by default the published one: the tiles have its pixel size and
        normalisation.
    tile_size
        Side of a tile in model pixels; or side and the least overlap of neighbours, which is 16 otherwise. Smaller
        regions are mirrored, and nothing is learned from what is outside.
    split
        A :class:`Split`, or only its ``regions``: three shares, or a mapping.
    progress
        Show progress bars.

    Returns
    -------
    The store, also on disk. If the call is stopped, the data set is not in it, and the next call writes it anew.

    Raises
    ------
    KeyError
        An element, channel, table, layer or column does not exist.
    ValueError
        The store has other settings, or this data set already; no cell is labelled positive or negative; a split would
        be empty; a region would be in two splits; or as `nimbus_sd.predict`.

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
    split = split if isinstance(split, Split) else Split(split)
    side, overlap = tile_size if isinstance(tile_size, tuple | list) else (tile_size, _OVERLAP)
    settings = StoreSettings(side, overlap, card.pixel_size, card.rule, card.quantile)
    store = open_store(path, settings)
    if not isinstance(data_set, str) or not data_set:
        raise ValueError(f"`data_set` is {data_set!r}; give it a name.")
    if data_set in store.data_sets:
        raise ValueError(f"{path} has data set {data_set!r} already; use another name, or another path.")
    find = partial(find_regions, sdata, image_key, labels_key, pixel_size=pixel_size)
    regions = find(channels=channels)
    table, cells = _read_labels(sdata, table_key, labels, regions)
    informative = {key: (judged(c.training) | judged(c.gold)).any(axis=0) for key, c in cells.items()}
    if not (in_use := np.any([*informative.values()], axis=0)).any():
        raise ValueError(f"No cell is labelled positive or negative in any of the channels {regions[0].channels}.")
    if channels is None:
        regions = find(channels=list(compress(regions[0].channels, in_use)))
        for key, c in cells.items():
            cells[key] = Labels(c.ids, c.training[:, in_use], c.gold[:, in_use], c.trusted[:, in_use])
    check_cell_size(regions)

    # Also those that were drawn for evaluation and wait for an annotator.
    evaluation = set(evaluation_regions(table)) & set(cells)
    groups, used = _groups(table, regions, split.by), regions
    if not isinstance(split.regions, Mapping):
        # A region without labels would take the place of one that has some in a split by shares.
        used = [r for r in regions if informative[r.labels_key].any() or r.labels_key in evaluation]
        if unlabelled := [region.labels_key for region in regions if region not in used]:
            logger.info("left out %d regions without a label: %s", len(unlabelled), ", ".join(unlabelled))
    marks = {region.labels_key: _marks(region) for region in used}
    if split.by is not None:
        marks = {key: {*digests, f"group {groups[key]}"} for key, digests in marks.items()}
    groups = _merge_groups({key: groups[key] for key in marks}, marks)
    in_store = {
        key: {r.split: f"region {r.region!r} of data set {r.data_set!r}" for r in store.regions if {*r.marks} & digests}
        for key, digests in marks.items()
    }
    splits = assign_splits(split, groups, evaluation, in_store)

    bad = BadPixels()
    # Of all regions, as inference measures them.
    factors = find_factors(regions, normalization, card, bad, progress)["factor"].to_numpy(np.float64)
    # Measuring has counted all bad pixels once.
    counted = BadPixels() if normalization is None else bad
    with new_data_set(store, data_set, regions[0].channels, factors) as group:
        for number, region in enumerate(tqdm(used, desc="Regions", disable=not progress)):
            key, node = region.labels_key, group.create_group(str(number))
            content = write_region(node, region, cells[key], factors, card, settings, counted)
            place = {"split": splits[key], "group": groups[key], "marks": sorted(marks[key])}
            node.attrs.update({**content, "region": key, "image": region.image_key, **place})
    check_pixels(bad)
    counts = pd.Series(splits).value_counts().to_dict()
    logger.info("added data set %r to %s: regions %s, channels %s", data_set, path, counts, regions[0].channels)
    return Store(path)


def _read_labels(
    sdata: SpatialData, table_key: str, labels: str, regions: Sequence[Region]
) -> tuple[AnnData, dict[str, Labels]]:
    """Read the labels of each region's cells; channels that the table lacks are not judged."""
    table = existing_table(sdata, table_key, [])
    for_evaluation = "layers['gold'] is for evaluation, and nothing is trained on it. Labels that may be trained on "
    for_evaluation += "belong into layers['gold_training'], NaN in other cells; regions with gold are tested."
    if labels == keys.GOLD:
        raise ValueError(for_evaluation)
    if labels not in table.layers:
        if labels != keys.SILVER or keys.GOLD_TRAINING not in table.layers:
            names = sorted(key for key in table.layers if key)
            hint = for_evaluation if keys.GOLD in table.layers else "Name the layer with `labels`."
            raise KeyError(
                f"Table {table_key!r} has no layers[{labels!r}], no labels to train on; it has {names}. {hint}"
            )
        logger.info("table %r has no layers[%r]: trained on layers['gold_training'] alone", table_key, labels)
    check_rows(table, f"Table {table_key!r}", regions, "Pass the table of these regions as `table_key`", some=True)
    none = np.full(table.shape, np.nan, np.float32)
    wanted = (labels, keys.GOLD_TRAINING, keys.GOLD)
    layers = [read_labels(table, name) if name in table.layers else none for name in wanted]
    columns, cells = table.var_names.get_indexer(regions[0].channels), {}
    for region in regions:
        rows, ids = rows_of(table, region)
        training, proofread, gold = (np.where(columns >= 0, layer[rows][:, columns], np.nan) for layer in layers)
        trusted = np.isfinite(proofread)
        cells[region.labels_key] = Labels(ids, np.where(trusted, proofread, training), gold, trusted)
    return table, cells


def _groups(table: AnnData, regions: Sequence[Region], by: str | None) -> dict[str, str]:
    """Say what each region shares with others: its image, or the value of a column, such as its patient."""
    images = {region.labels_key: region.image_key for region in regions}
    if by is None:
        return images
    column, region_of_cell, groups = obs_columns(table, by)[by], region_column(table), {}
    for key in images:
        values = column[region_of_cell == key].dropna().astype(str).unique()
        if len(values) != 1:
            raise ValueError(f"Region {key!r} has {len(values)} values of obs[{by!r}], not one: {sorted(values)[:5]}.")
        groups[key] = str(values[0])
    if len({(images[key], groups[key]) for key in images}) > len(set(images.values())):
        raise ValueError(f"An image has regions of several values of obs[{by!r}].")
    return groups


def _marks(region: Region) -> set[str]:
    """Return SHA-256 of the masks and of each channel in the middle of a region, unless they are constant there.

    Two regions that share one are of the same tissue, whatever their names: pixels of two images are never equal.
    """
    rows, cols = (slice(max(0, (n - _MIDDLE) // 2), min(n, (n + _MIDDLE) // 2)) for n in region.shape)
    channels = (region.read_image([number], rows, cols) for number in range(len(region.channels)))
    layers = (region.read_labels(rows, cols), *channels)
    return {sha256(np.ascontiguousarray(layer, np.float64).data).hexdigest() for layer in layers if np.ptp(layer)}


def _merge_groups(groups: Mapping[str, str], marks: Mapping[str, set[str]]) -> dict[str, str]:
    """Merge groups whose regions share a mark, under the name of the first."""
    linked: DisjointSet = DisjointSet()
    for region, group in groups.items():
        # No mark is a tuple, so none is taken for a group.
        linked.add((group,))
        for mark in marks[region]:
            linked.add(mark)
            linked.merge((group,), mark)
    names: dict[str | tuple[str], str] = {}
    return {region: names.setdefault(linked[group,], group) for region, group in groups.items()}


def assign_splits(
    split: Split, groups: Mapping[str, str], evaluation: set[str], in_store: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    """Give each region, whose group is in one split, its split; groups of ``evaluation`` are for testing.

    ``in_store`` says, by region and split, where the same pixels or the same patient are in that split already.
    """
    if isinstance(split.regions, Mapping):
        splits = _given_splits(split.regions, groups, evaluation)
    else:
        taken = {groups[region]: name for region, places in in_store.items() for name in places}
        splits = _drawn_splits(split, groups, taken | {groups[region]: "test" for region in evaluation})
    for region, name, where in ((region, *place) for region, places in in_store.items() for place in places.items()):
        if name != splits[region]:
            shared = f"it has pixels, or a value of `Split.by`, of {where}, which is for {name} in this store"
            advice = "Put it there too, leave it out, or use another store."
            raise ValueError(f"Region {region!r} would be for {splits[region]}, but {shared}. {advice}")
    return splits


def _drawn_splits(split: Split, groups: Mapping[str, str], taken: Mapping[str, str]) -> dict[str, str]:
    """Draw by shares, where some groups have their split already."""
    shares = np.asarray(split.regions, float)
    if not (shares.shape == (3,) and (shares > 0).all() and abs(shares.sum() - 1) <= 1e-6):
        raise ValueError(f"`split` is {split.regions!r}; give three shares above 0 that sum to 1, or a mapping.")
    free = sorted(set(groups.values()) - set(taken))
    np.random.default_rng(split.rng).shuffle(free)
    n, places = len(taken) + len(free), list(taken.values())
    n_validation, n_test = (
        max(0, max(1, round(share * n)) - places.count(name))
        for share, name in zip(shares[1:], SPLITS[1:], strict=True)
    )
    n_train = 0 if "train" in places else 1
    if len(free) < n_train + n_validation + n_test:
        known = f"Of {n} independent groups of regions (by image or `Split.by`), {len(taken)} have their split already"
        needed = f"{n_train} for training, {n_validation} for validation, {n_test} for testing"
        advice = "Add regions, name those of each split in a mapping, or label into layers['gold_training']."
        raise ValueError(f"{known} (evaluation, or as in this store); of the others is needed: {needed}. {advice}")
    order = ["test"] * n_test + ["validation"] * n_validation + ["train"] * len(free)
    place = {**taken, **dict(zip(free, order, strict=False))}
    return {region: place[group] for region, group in groups.items()}


def _given_splits(
    split: Mapping[str, Sequence[str]], groups: Mapping[str, str], evaluation: set[str]
) -> dict[str, str]:
    """Check a split that the user gave."""
    if wrong := [name for name, regions in split.items() if name not in SPLITS or isinstance(regions, str)]:
        raise ValueError(f"`split` has {wrong}; give lists of regions by the names {', '.join(SPLITS)}.")
    count = Counter(region for regions in split.values() for region in set(regions))
    if wrong := sorted(region for region in {*count, *groups} if count[region] != 1 or region not in groups):
        stated = [f"{key!r} is {f'in {count[key]} splits' if key in groups else 'no region'}" for key in wrong]
        raise ValueError(f"`split` must name each of {sorted(groups)} in one split, but {', '.join(stated)}.")
    splits = {region: name for name, regions in split.items() for region in regions}
    if wrong := sorted(region for region in evaluation if splits[region] != "test"):
        raise ValueError(f"Region(s) {wrong} are for evaluation (drawn, or with gold); put them in 'test'.")
    # Of each group and split once, so that a group in several splits occurs several times.
    times = Counter(group for group, _ in {(group, splits[region]) for region, group in groups.items()})
    if torn := sorted(group for group, number in times.items() if number > 1):
        raise ValueError(f"`split` tears apart what belongs together (image, `Split.by`, or the same pixels): {torn}.")
    return splits
