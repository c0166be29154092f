"""The main job: a SpatialData in, a score per cell and marker out."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from nimbus_sd import engine, keys
from nimbus_sd.models import Scorer, load
from nimbus_sd.spatial import WRITING, check_cells, check_keys, find_regions, write_table
from nimbus_sd.tl import flags_of, need_a_look

if TYPE_CHECKING:
    import torch
    from anndata import AnnData
    from distributed import Client
    from spatialdata import SpatialData

logger = logging.getLogger("nimbus_sd")

# Tiles are counted in tenths: a large one takes minutes.
_BAR = "{l_bar}{bar}| {n:.1f}/{total} [{elapsed}<{remaining}]"


def predict(
    sdata: SpatialData,
    image_key: str | Sequence[str] | None = None,
    labels_key: str | Sequence[str] | None = None,
    *,
    shapes_key: str | Sequence[str] | None = None,
    table_key: str = "table",
    key_added: str = keys.NIMBUS,
    model: str | Path = "compact",
    channels: Sequence[str] | None = None,
    pixel_size: float | Mapping[str, float] | None = None,
    grow: float = 0.0,
    normalization: Mapping[str, float] | pd.Series | pd.DataFrame | None = None,
    tta: bool | None = None,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    tile_size: int | None = None,
    batch_size: int | None = None,
    save_maps: bool = False,
    device: str | torch.device = "auto",
    checkpoint: str | Path | None = None,
    client: Client | None = None,
    progress: bool = True,
) -> AnnData:
    """Score the confidence that a cell is positive, for every cell and marker.

    A U-Net sees one channel and the cell mask at a time (Rumberger et al., "Nimbus model design" and "Model
    inference"), and its per-pixel confidence is averaged over each cell. No store on disk changes, and the table stays
    as it is until everything is computed.

    Parameters
    ----------
    sdata
        Images (c, y, x) and labels (y, x), in memory or lazy, of any size.
    image_key, labels_key
        Names of an image and its cell labels, or lists of equal length for many regions. None takes each labels
        element with the one image that shares a coordinate system with it. Labels may cover a part of the image, moved
        by whole pixels, such as a mask for each core of a tissue microarray.
    shapes_key
        Names of shapes (polygons or circles) that are the cells, in place of ``labels_key``, under any affine
        transformation. A pixel belongs to the shape that holds its centre; where shapes overlap, to the first. The
        table annotates the shapes, with their index as ``obs["instance_id"]``.
    table_key
        Table to create, or to join on region and instance id: its rows, order and other content stay.
    key_added
        Name of the layer of scores.
    model
        ``"compact"`` (bundled, trained on real and simulated tissue), ``"nimbus"`` (published weights, fetched from the
        Hugging Face hub once), a ``.safetensors`` file with its card beside it, or a ``.pt`` state dict in the
        published layout.
    channels
        Names of the channels to score. None scores all.
    pixel_size
        um per image pixel, or a mapping from image to it. None takes the element's own unit where it has one, else
        0.5 with a warning.
    grow
        Distance in um by which cells grow, without overlapping: about 2 for masks of nuclei, which miss the membrane.
        Noted in ``uns``, so that later functions measure and show the grown cells.
    normalization
        Factor per channel (mapping, Series, or DataFrame with a column ``"factor"``, as ``predict`` leaves it in
        ``varm``), by which intensities are divided before they are clipped to [0, 1]. None measures it by the
        model's rule, in all regions together and without sampling, from every pixel that the rule counts
        (``"compact"``: those in cells).
    tta
        Average the eight views of the square's symmetry (slower). None follows the model's card.
    precision
        ``"float32"``, ``"bfloat16"`` or ``"auto"``: float32 so far, as bfloat16 changes scores by over 0.01.
    tile_size
        Side of a tile's core in model pixels. Scores do not depend on it.
    batch_size
        Number of images that pass the network at once. Scores do not depend on it.
    save_maps
        Add a lazy image ``<image>_<key_added>`` of per-pixel confidence to ``sdata``, in memory; it is computed when
        read or written.
    device
        ``"auto"`` or a torch device; with a client, that of the workers.
    checkpoint
        A folder where finished tiles are kept. Repeating an interrupted call resumes there and gives bit-identical
        results. It may be deleted afterwards.
    client
        A :class:`distributed.Client` whose workers compute the tiles, one at a time on each device. None uses the
        active one, or works on this machine if there is none. Images and labels should lie in a Zarr
        store that all workers reach: those in memory travel to each of them.
    progress
        Show progress bars.

    Returns
    -------
    AnnData
        Also set as ``sdata.tables[table_key]``, cells x channels:

        - ``layers[key_added]``: scores, float32 in [0, 1], NaN where not scored
        - ``layers["integrated_expression"]``: mean intensity per cell, float32; ``X`` of a new table is the same
        - ``obs["region"]``, ``obs["instance_id"]``: the labels element and the cell's label in it (or shapes and index)
        - ``obs["area"]``: in um^2, and ``obsm["spatial"]``: x, y in image pixels, unless there already
        - ``varm[f"{key_added}_normalization"]``: the factor, and what the model's rule gives for each region alone
        - ``uns[key_added]``: model, its description, sha256 and revision, settings, version, ranges of the images that
          it was trained on (where its card tells them)

    Raises
    ------
    KeyError, TypeError, ValueError
        An argument is not as above, image and labels do not fit, labels are a binary mask or a map of classes, no
        region has a cell, or the checkpoint is of other inputs (it says which).
    OSError
        Pixels cannot be read (a damaged chunk, a store that went away, a worker that sees other ones), or the
        checkpoint cannot be written or is in use.
    ConnectionError
        The published model has never been fetched and the hub cannot be reached; the cluster was closed.
    MemoryError
        The device's memory is too small for one tile of one channel.
    KeyboardInterrupt
        The user stopped it; the message says how to go on.

    Warns
    -----
    UserWarning
        Names channels that are empty, rest on a handful of pixels, or hold NaN, infinite, enormous (above 1e30) or
        negative pixels; regions without a cell, whose mask does not fit the image, or on another scale than the others;
        cells too small for the model to see; markers that need a look (:func:`nimbus_sd.tl.call_positive`), if its card
        says what the model was trained on; labels that cover many separate parts; a pixel size that was assumed or
        makes cells implausibly small or large.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> sdata = ns.datasets.example()
    >>> adata = ns.predict(sdata, channels=["CD3", "CD20"], progress=False)
    >>> adata.layers["nimbus"].shape[1]
    8
    """
    if shapes_key is not None and labels_key is not None:
        raise ValueError("`labels_key` and `shapes_key` both say what the cells are; pass one of them.")
    cells = labels_key if shapes_key is None else shapes_key
    regions = find_regions(sdata, image_key, cells, channels=channels, pixel_size=pixel_size, grow=grow)
    channels = regions[0].channels
    check_keys(sdata, table_key, key_added, channels, regions)
    check_cells(sdata, table_key, regions)
    new_images = engine.map_keys(sdata, regions, key_added, table_key) if save_maps else []
    client = engine.find_client(client)
    loaded = load(model)
    here = device if client is None else "auto"
    scorer = Scorer(loaded, device=here, precision=precision, tta=tta, batch_size=batch_size)
    tile_size = engine.find_tile_size(tile_size, scorer.card, regions)
    store = engine.Memory() if checkpoint is None else engine.Checkpoint(checkpoint)

    bad = engine.BadPixels()
    with engine.add_resume_hint(store):
        engine.check_masks(regions)
        engine.check_cell_size(regions)
        engine.check_reach(regions)
        factors = engine.find_factors(regions, normalization, scorer.card, bad, progress)
    in_use = factors["factor"].to_numpy(np.float64)
    plan = engine.Plan(regions, in_use, scorer.card, tile_size, identify=checkpoint is not None)
    run = engine.find_runner(client, loaded, scorer, device)
    # Measuring the factors has already counted the bad pixels.
    counted = bad if normalization is not None else engine.BadPixels()
    with (
        store.opened(engine.describe_inputs(plan, scorer)),
        tqdm(total=len(plan.tiles), desc="Scores", unit="tile", bar_format=_BAR, disable=not progress) as bar,
    ):
        results = engine.score(plan, run, store, bad=counted, on_share=bar.update)
    engine.check_pixels(bad)
    engine.check_cells(results)
    if normalization is not None:
        engine.check_scales(results)
    pairs = zip(new_images, regions, strict=False)
    maps = {key: engine.score_map(region, in_use, scorer, tile_size) for key, region in pairs}

    made = engine.provenance(scorer, regions, given=normalization is not None)
    with WRITING:
        adata = write_table(sdata, results, table_key=table_key, key_added=key_added, factors=factors, provenance=made)
    sdata.images.update(maps)
    # Without the ranges of its training nothing is known of a model, nor of what it makes of any image.
    flags = flags_of(adata[:, channels], key_added) if scorer.card.ranges else [""] * len(channels)
    if worst := need_a_look(channels, flags, 3):
        count = sum(flag.startswith(("stop", "look")) for flag in flags)
        where = "`tl.call_positive` and `pl.report` name all; docs/flags.md says what to do"
        warnings.warn(f"{count} of {len(channels)} markers need a look, such as {worst}. {where}.", stacklevel=2)
    logger.info("added layers[%r]: scores of %d cells in %d channels", key_added, adata.n_obs, len(channels))
    return adata
