"""From a model of the zoo and some labelled regions to a model for data like these."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
from lightning.fabric import Fabric

from nimbus_sd import keys
from nimbus_sd._disk import put_folder, settle
from nimbus_sd.models import Card, Model, load
from nimbus_sd.train._settings import seed_of
from nimbus_sd.train.build import build_store
from nimbus_sd.train.checkpoint import read_checkpoint
from nimbus_sd.train.evaluate import count_calls, figures
from nimbus_sd.train.recipe import FINE_TUNE, Recipe, check_recipe
from nimbus_sd.train.run import check_labelled, train
from nimbus_sd.train.splits import TEST, VALIDATION
from nimbus_sd.train.store import Store

if TYPE_CHECKING:
    from spatialdata import SpatialData

_METRICS = ("precision", "recall", "f1")


class FineTuned(NamedTuple):
    """What :func:`fine_tune` gives: the model's path, and figures on held-out regions before and after."""

    model: Path
    report: pd.DataFrame


def fine_tune(
    sdata: SpatialData,
    folder: str | Path,
    *,
    model: str | Path = "compact",
    data_set: str = "fine-tuning",
    image_key: str | Sequence[str] | None = None,
    labels_key: str | Sequence[str] | None = None,
    table_key: str = "table",
    labels: str = keys.SILVER,
    channels: Sequence[str] | None = None,
    pixel_size: float | Mapping[str, float] | None = None,
    normalization: Mapping[str, float] | pd.Series | pd.DataFrame | None = None,
    split: Sequence[float] | Mapping[str, Sequence[str]] = (0.6, 0.2, 0.2),
    split_by: str | None = None,
    recipe: Recipe = FINE_TUNE,
    tile_size: int = 256,
    license: str | None = None,
    description: str = "",
    rng: int = 0,
    accelerator: str = "auto",
    precision: str = "auto",
    progress: bool = True,
) -> FineTuned:
    """Go on training a model on regions of a SpatialData, and say whether it helped on others.

    Small steps, a pull towards the start (L2-SP; Li et al. 2018) and an early stop keep what the model knows. The
    start itself is the first candidate, so the result is never worse on the validation regions.

    Parameters
    ----------
    sdata
        Images, labels, and a table with ``layers["silver"]`` or ``layers["gold_training"]`` (see
        :func:`build_store`). Regions with ``layers["gold"]`` are held out, and judged by it.
    folder
        Of the run, see :func:`train`; the tiles are in ``tiles.zarr``, written anew by each call that the run goes on
        with. The same call goes on where it was stopped.
    model
        The start: ``"compact"``, ``"nimbus"``, or a path.
    data_set
        Name of the data, for the card.
    image_key, labels_key, table_key, labels, channels, pixel_size, normalization, split, split_by, tile_size
        As for :func:`build_store`. At least three independent regions are needed.
    recipe
        All settings of training.
    license
        Of the new model; that of the start by default.
    description
        For the new model's card. By default it says of which model it is.
    rng
        Seed of the split and of training.
    accelerator, precision, progress
        As for :func:`train`.

    Returns
    -------
    model
        Path for ``nimbus_sd.predict(sdata, model=...)``; its card holds data, settings, figures and the licence.
    report
        DataFrame with a row per marker and ``"mean"``, on the held-out regions: ``truth``, ``cells``, ``positives``,
        and ``precision``, ``recall``, ``f1``, each ``_before`` and ``_after``. Where a marker has evaluation gold,
        ``truth`` is ``"gold"`` and only regions with some count; else it is ``"silver"``, the labels for training.

    Raises
    ------
    KeyError, TypeError, ValueError, FloatingPointError, ImportError
        As :func:`build_store` and :func:`train`; also if no region is held out. A run of another call is left as it is.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> tuned = ns.train.fine_tune(sdata, "runs/mine", pixel_size=0.5)  # doctest: +SKIP
    >>> tuned.report.loc["mean", ["f1_before", "f1_after"]]  # doctest: +SKIP
    >>> adata = ns.predict(sdata, model=tuned.model)  # doctest: +SKIP
    """
    start, folder = load(model), Path(folder)
    if isinstance(split, Mapping):
        for name, use in ((TEST, "say whether fine-tuning helped"), (VALIDATION, "choose the checkpoint")):
            if not split.get(name):
                raise ValueError(f"`split` holds out no region for {name!r}, so nobody could {use}.")
    check_recipe(recipe)
    rng = seed_of(rng)
    tiles, new, old = (folder / name for name in ("tiles.zarr", "tiles.zarr.new", "tiles.zarr.old"))
    # Of a call that was stopped.
    settle(new, tiles, old)
    if tiles.exists():
        # Something else of that name is not replaced.
        Store(tiles)
    try:
        store = build_store(
            new,
            sdata,
            data_set=data_set,
            image_key=image_key,
            labels_key=labels_key,
            table_key=table_key,
            labels=labels,
            channels=channels,
            pixel_size=pixel_size,
            normalization=normalization,
            model=start.card,
            tile_size=tile_size,
            split=split,
            split_by=split_by,
            rng=rng,
            progress=progress,
        )
        _check_held_out(store)
        check_labelled(store)
        # `train` does not go on with other tiles, and those of the run would be lost by then.
        read_checkpoint(folder / "last.ckpt", {"store": store.described()})
        put_folder(new, tiles, old)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    store = Store(tiles)
    path = train(
        store,
        folder,
        recipe=recipe,
        model=model,
        license=license,
        description=description or f"{start.card.name}, fine-tuned by nimbus_sd.",
        rng=rng,
        accelerator=accelerator,
        precision=precision,
        progress=progress,
    )
    report = _compare(start, load(path), store, recipe.batch_size, accelerator)
    _note(path, report)
    return FineTuned(path, report)


def _check_held_out(store: Store) -> None:
    content = store.to_frame()
    held = content[content["split"] == TEST]
    if not held["judged"].sum():
        raise ValueError(
            f"No cell is judged in the held-out regions {sorted(held['region'].unique())}, so nobody could say whether "
            "fine-tuning helped. Label cells of them, or name labelled regions: "
            "`split={'train': [...], 'validation': [...], 'test': [...]}`."
        )


def _compare(start: Model, tuned: Model, store: Store, batch_size: int, accelerator: str) -> pd.DataFrame:
    """Judge both models on the regions that were held out."""
    device = Fabric(accelerator=accelerator, devices=1).device
    tables = []
    for one in (start, tuned):
        network = one.network.to(device)
        counts = count_calls(network, store, TEST, batch_size=batch_size, device=device)
        tables.append(figures(counts, store).droplevel("data_set"))
        network.cpu()
    before, after = tables
    report = before[["cells", "positives"]].copy()
    for name in _METRICS:
        report[f"{name}_before"], report[f"{name}_after"] = before[name], after[name]
    mean = report.mean()
    mean[["cells", "positives"]] = report[["cells", "positives"]].sum()
    report.loc["mean"] = mean
    report = report.astype({"cells": int, "positives": int})
    markers = {store.strata[number][1] for number in store.gold_strata(TEST)}
    truth = ["gold" if name in markers else "silver" for name in report.index[:-1]]
    report.insert(0, "truth", [*truth, " and ".join(sorted(set(truth)))])
    return report


def _note(path: Path, report: pd.DataFrame) -> None:
    """Write the means into the model's card."""
    described = path.with_suffix(".json")
    card = Card.read(described)
    mean = report.loc["mean"]
    found = {
        f"held_out_{key}": round(float(mean[key]), 6) for key in ("f1_before", "f1_after") if mean[key] == mean[key]
    }
    replace(card, figures={**card.figures, **found}).write(described)
