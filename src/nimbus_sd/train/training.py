"""The two ways to start a run: train a network on a store of tiles, or fine-tune a model and say whether it helped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.fabric import Fabric

from nimbus_sd.models import Card, Model, UNet, load
from nimbus_sd.train.objective import count_calls, figures
from nimbus_sd.train.recipe import Recipe
from nimbus_sd.train.run import fit
from nimbus_sd.train.store import TEST, TRAIN, VALIDATION, Store, StoreOrPath

_FORM = ("root_filters", "depth", "padding", "patch")
_NORMALIZATION = ("pixel_size", "rule", "quantile")


def train(
    store: StoreOrPath,
    folder: str | Path,
    *,
    recipe: Recipe | None = None,
    model: str | Path | None = None,
    license: str | None = None,
    description: str = "",
    rng: int = 0,
    accelerator: str = "auto",
    devices: int | str = 1,
    precision: str = "auto",
    progress: bool = True,
) -> Path:
    """Train a network on noisy labels, first believing all of them, then selecting (Rumberger et al., "Training").

    The checkpoint with the highest F1 on the validation regions, at a score of 0.5, averaged over markers and then
    over data sets, becomes the model. The same call on the same folder goes on where a run was stopped, in the very
    state that it was in at its last validation, on the same kind of device.

    Parameters
    ----------
    store
        Tiles of one or many data sets, from :func:`build_store`, or the store's path.
    folder
        Of the run: ``last.ckpt`` (its state at the last validation), ``model.safetensors`` and ``model.json`` (the best
        model so far and its card), ``metrics.csv``, and ``tensorboard/``.
    recipe
        All settings. None takes ``Recipe.laptop()``.
    model
        Start with the weights of this model, as for `nimbus_sd.predict`; the store must be built for it. None starts
        with random weights.
    license, description
        For the card, also of a finished run. The licence is that of the start by default, else not stated.
    rng
        Seed of the first weights, the order of tiles and their augmentation: an integer, as resuming needs it.
    accelerator, devices, precision
        As for :class:`lightning.fabric.Fabric`; by default one GPU in ``"bf16-mixed"``, else the CPU in ``"32-true"``.
        Several devices share a batch; Lightning runs the calling script once for each, so build the store in another.
    progress
        Show a progress bar.

    Returns
    -------
    Path of the model: ``folder/model.safetensors``, for ``nimbus_sd.predict(sdata, model=...)``.

    Raises
    ------
    ValueError
        The store has no tiles to train on or to validate with, or was built for another model or size of tiles; the
        folder is of a run of other inputs.
    FloatingPointError
        The loss or its gradient is not finite; the message names the tiles. The last checkpoint stays.
    ImportError
        Lightning, kornia or TensorBoard is not installed.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> path = ns.train.train("tiles.zarr", "runs/first")  # doctest: +SKIP
    >>> adata = ns.predict(sdata, model=path)  # doctest: +SKIP
    """
    recipe = Recipe.laptop() if recipe is None else recipe
    if not isinstance(recipe, Recipe):
        raise TypeError(f"`recipe` is {recipe!r}; it must be a `nimbus_sd.train.Recipe`, such as `Recipe.laptop()`.")
    if not isinstance(rng, int | np.integer) or isinstance(rng, bool) or not 0 <= rng < 2**63:
        raise ValueError(f"rng is {rng!r}; pass an integer from 0 to 2**63 - 1: resuming needs the seed.")
    store, folder, seed = store if isinstance(store, Store) else Store(store), Path(folder), int(rng)
    start = _new_model(store, recipe, seed) if model is None else load(model)
    _check(store, start)
    folder.mkdir(parents=True, exist_ok=True)
    boundary, base = recipe.boundary or start.card.boundary, "random weights" if model is None else start.card.name
    recipe = replace(recipe, boundary=boundary, **{name: getattr(start.card, name) for name in _FORM})
    card = replace(
        start.card,
        name=folder.resolve().name,
        license=license or start.card.license,
        description=description or f"Trained by nimbus_sd from {base}.",
        trained_on=f"{_describe_labels(store)}. Started with {base}.",
        source="nimbus_sd.train",
        boundary=boundary,
        training=recipe.to_dict() | {"seed": seed, "start": start.card.sha256},
        figures={},
        ranges={},
        revision=None,
    )
    inputs = {"recipe": recipe.to_dict(), "store": store.described(), "start": start.card.sha256, "seed": seed}
    fabric = _launch(accelerator, devices, precision, recipe.batch_size)
    return fit(store, Model(card, start.network), recipe, folder, inputs, fabric, progress)


def fine_tune(
    store: StoreOrPath,
    folder: str | Path,
    *,
    model: str | Path = "compact",
    recipe: Recipe | None = None,
    license: str | None = None,
    description: str = "",
    rng: int = 0,
    accelerator: str = "auto",
    devices: int | str = 1,
    precision: str = "auto",
    progress: bool = True,
) -> tuple[Path, pd.DataFrame]:
    """Go on training a model on regions like yours, and say whether it helped on others that were held out.

    Small steps, a pull towards the start (L2-SP; Li et al. 2018) and an early stop keep what the model knows. The
    start itself is the first candidate, so the result is never worse on the validation regions.

    Parameters
    ----------
    store
        From :func:`build_store` with ``model=`` the start. Its regions for testing are those held out.
    folder
        Of the run, see :func:`train`. The same call goes on where it was stopped.
    model
        The start: ``"compact"``, ``"nimbus"``, or a path.
    recipe
        All settings. None takes ``Recipe.fine_tune()``.
    license, description, rng, accelerator, devices, precision, progress
        As for :func:`train`.

    Returns
    -------
    model
        Path for ``nimbus_sd.predict(sdata, model=...)``; its card holds data, settings, figures and the licence.
    report
        DataFrame with a row per marker and ``"mean"``, on the held-out regions: ``truth``, ``cells``, ``positives``,
        and ``precision``, ``recall``, ``f1``, each ``_before`` and ``_after``. ``truth`` is ``"gold"`` where a marker
        has evaluation gold, and only regions with some count; else ``"silver"``, the labels for training.

    Raises
    ------
    ValueError
        No region with a judged cell is held out; or as :func:`train`.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> store = ns.train.build_store("tiles.zarr", sdata, data_set="mine", model="compact")  # doctest: +SKIP
    >>> path, report = ns.train.fine_tune(store, "runs/mine")  # doctest: +SKIP
    >>> report.loc["mean", ["f1_before", "f1_after"]]  # doctest: +SKIP
    >>> adata = ns.predict(sdata, model=path)  # doctest: +SKIP
    """
    store, start = store if isinstance(store, Store) else Store(store), load(model)
    recipe = Recipe.fine_tune() if recipe is None else recipe
    if not len(store.tiles(TEST)):
        held_out = sorted(region.region for region in store.regions if region.split == TEST)
        what = f"No cell is judged in the held-out regions {held_out} of {store.path}, to say if fine-tuning helped"
        raise ValueError(f"{what}. Label cells of them, or build the store with labelled regions for 'test'.")
    run: Any = {"accelerator": accelerator, "devices": devices, "precision": precision, "progress": progress}
    text = description or f"{start.card.name}, fine-tuned by nimbus_sd."
    path = train(store, folder, recipe=recipe, model=model, license=license, description=text, rng=rng, **run)
    tuned = load(path)
    report = _compare(start, tuned, store, recipe.batch_size, accelerator)
    means = report.loc["mean", ["f1_before", "f1_after"]].astype(float).round(6).dropna().add_prefix("held_out_")
    replace(tuned.card, figures={**tuned.card.figures, **means}).write(path.with_suffix(".json"))
    return path, report


def _compare(start: Model, tuned: Model, store: Store, batch_size: int, accelerator: str) -> pd.DataFrame:
    """Judge both models on the regions that were held out."""
    device = Fabric(accelerator=accelerator, devices=1).device
    before, after = (
        figures(count_calls(model.network.to(device), store, TEST, batch_size, device), store)
        for model in (start, tuned)
    )
    report = before[["cells", "positives"]].copy()
    for name in ("precision", "recall", "f1"):
        report[f"{name}_before"], report[f"{name}_after"] = before[name], after[name]
    gold = {store.strata[number] for number in store.gold_strata(TEST)}
    truth = ["gold" if stratum in gold else "silver" for stratum in report.index]
    mean = report.groupby(level="data_set").mean().mean()
    mean[["cells", "positives"]] = report[["cells", "positives"]].sum()
    # Data sets may have markers of one name.
    names = [name if len(store.data_sets) == 1 else f"{data_set}: {name}" for data_set, name in report.index]
    report = pd.concat([report.set_axis(names), mean.to_frame("mean").T]).rename_axis("channel")
    report = report.astype({"cells": int, "positives": int})
    report.insert(0, "truth", [*truth, " and ".join(sorted(set(truth)))])
    return report


def _new_model(store: Store, recipe: Recipe, seed: int) -> Model:
    """Make a network of random weights, and its card."""
    values: dict[str, Any] = {name: getattr(recipe, name) for name in _FORM}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = UNet(**values)
    values |= {name: getattr(store.settings, name) for name in _NORMALIZATION}
    values |= dict.fromkeys(("description", "trained_on", "source"), "")
    return Model(Card(name="new", tta=True, license="not stated", **values), network)


def _launch(accelerator: str, devices: int | str, precision: str, batch_size: int) -> Fabric:
    """Start the processes of a run, one for each device."""
    if precision == "auto":
        precision = "bf16-mixed" if torch.cuda.is_available() and accelerator != "cpu" else "32-true"
    if str(precision).startswith("16"):
        # Its losses overflow now and then, as a matter of course; here that would be an error.
        raise ValueError(f"precision={precision!r} is not supported; use 'bf16-mixed' or '32-true'.")
    fabric = Fabric(accelerator=accelerator, devices=devices, precision=precision)  # type: ignore[arg-type]
    fabric.launch()
    if batch_size % fabric.world_size:
        raise ValueError(f"A batch of {batch_size} tiles cannot be shared by {fabric.world_size} devices evenly.")
    return fabric


def _check(store: Store, start: Model) -> None:
    """Refuse what cannot be trained, before anything is written."""
    size, stride, content = store.settings.tile_size, start.network.stride, store.to_frame()
    for name in _NORMALIZATION:
        if (stored := getattr(store.settings, name)) != (needed := getattr(start.card, name)):
            built = f"The store {store.path} was built for a {name} of {stored!r}"
            raise ValueError(f"{built}, and model {start.card.name!r} takes {needed!r}; build one with it as `model`.")
    if size % stride or size < 2 * stride:
        rule = f"this network takes multiples of {stride} of at least {2 * stride}"
        advice = "Build the store with another `tile_size`, or change the recipe's depth or patch."
        raise ValueError(f"The store's tiles are {size} pixels wide; {rule}. {advice}")
    for split in (TRAIN, VALIDATION):
        n_judged, n_positive = content.loc[content["split"] == split, ["judged", "positive"]].sum()
        if not n_positive:
            what, regions = "positive" if n_judged else "judged", content.groupby("split")["region"].nunique().to_dict()
            lacking = f"The store {store.path} has no {what} cell in a region for {split}"
            raise ValueError(f"{lacking}; there are regions for {regions}. Add a data set, or use another `split`.")


def _describe_labels(store: Store) -> str:
    """Say what the labels for training are of, data set by data set."""
    texts = []
    for data_set in store.data_sets:
        regions = [r for r in store.regions if r.data_set == data_set and r.split == TRAIN]
        if not regions:
            continue
        judged = np.array([region.judged for region in regions])
        channels: list[int] = np.flatnonzero(judged.sum(axis=0)).tolist()
        proofread = sum(int((r.trusted(n) & (r.truth(n) != 0.5)).sum()) for r in regions for n in channels)
        names = ", ".join(regions[0].channels[n] for n in channels)
        labels = f"{judged.sum()} labels of {names} ({proofread} proofread, {judged.sum() - proofread} not)"
        texts.append(f"Data set {data_set}: {len(regions)} regions, {labels}")
    return "; ".join(texts)
