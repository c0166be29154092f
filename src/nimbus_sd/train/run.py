"""The training run: from a store of tiles to a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nimbus_sd.models import Card, Model, UNet, load
from nimbus_sd.train._settings import seed_of
from nimbus_sd.train.loop import Run
from nimbus_sd.train.recipe import LAPTOP, Recipe, check_recipe
from nimbus_sd.train.splits import TRAIN, VALIDATION
from nimbus_sd.train.store import Store


def train(
    store: Store | str | Path,
    folder: str | Path,
    *,
    recipe: Recipe = LAPTOP,
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
        Of the run: ``last.ckpt`` (all of its state, at the last validation), ``model.safetensors`` and ``model.json``
        (the best model so far and its card), ``metrics.csv``, and ``tensorboard/``.
    recipe
        All settings: ``PAPER``, ``LAPTOP``, or one of your own.
    model
        Start with the weights of this model, as for `nimbus_sd.predict`; the store must be built for it. None starts
        with random weights.
    license, description
        For the card, also of a run that goes on or is finished. The licence is that of the start by default, else not
        stated.
    rng
        Seed of the first weights, the order of tiles and their augmentation: a whole number of at least 0.
    accelerator, devices, precision
        As for :class:`lightning.fabric.Fabric`. By default one GPU if there is one, in ``"bf16-mixed"``, else the CPU,
        in ``"32-true"``. Several devices share a batch; Lightning runs the calling script once for each of them, so
        build the store in another script.
    progress
        Show a progress bar.

    Returns
    -------
    Path of the model: ``folder/model.safetensors``, for ``nimbus_sd.predict(sdata, model=...)``.

    Raises
    ------
    TypeError
        The recipe is none.
    ValueError
        No tiles to train on or to validate with; the store was built for another pixel size or normalisation than the
        start's, or its tiles do not fit the network; the folder is of a run of other inputs.
    FloatingPointError
        The loss or its gradient is not finite; the message names the tiles. The weights of that step are not used, and
        the checkpoint before it stays.
    ImportError
        Lightning, kornia or TensorBoard is not installed.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> path = ns.train.train("tiles.zarr", "runs/first", recipe=ns.train.LAPTOP)  # doctest: +SKIP
    >>> adata = ns.predict(sdata, model=path)  # doctest: +SKIP
    """
    check_recipe(recipe)
    rng = seed_of(rng)
    store = store if isinstance(store, Store) else Store(store)
    start = None if model is None else load(model)
    network, card = _start(store, start, recipe, rng)
    _check(store, network, card)
    check_labelled(store)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    boundary = recipe.boundary or card.boundary
    form = {name: getattr(card, name) for name in ("root_filters", "depth", "padding", "patch")}
    recipe = replace(recipe, boundary=boundary, **form)
    base = f"{card.name}" if start else "random weights"
    card = replace(
        card,
        name=folder.resolve().name,
        license=license or card.license,
        description=description or f"Trained by nimbus_sd from {base}.",
        trained_on=f"{_trained_on(store)}. Started with {base}.",
        source="nimbus_sd.train",
        boundary=boundary,
        training=recipe.to_dict() | {"seed": rng, "start": card.sha256 if start else None},
        figures={},
        ranges={},
        revision=None,
    )
    inputs = {"recipe": recipe.to_dict(), "store": store.described(), "start": start and start.card.sha256, "seed": rng}
    settings = {"accelerator": accelerator, "devices": devices, "precision": precision}
    return Run(store, network, card, recipe, folder, inputs, rng, settings).fit(progress=progress)


def _start(store: Store, start: Model | None, recipe: Recipe, seed: int) -> tuple[UNet, Card]:
    """Return the network before the first step, and what is known of it."""
    if start is not None:
        return start.network, start.card
    settings: dict[str, Any] = {"root_filters": recipe.root_filters, "depth": recipe.depth}
    settings |= {"padding": recipe.padding, "patch": recipe.patch}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = UNet(**settings)
    tiles = store.settings
    return network, Card(
        name="new",
        **settings,
        pixel_size=tiles.pixel_size,
        rule=tiles.rule,  # type: ignore[arg-type]
        quantile=tiles.quantile,
        tta=True,
        license="not stated",
        description="",
        trained_on="",
        source="",
    )


def _check(store: Store, network: UNet, card: Card) -> None:
    """Refuse what cannot be trained, before anything is written."""
    tiles, size = store.settings, store.settings.tile_size
    for what, there, wanted in (
        ("pixel size", tiles.pixel_size, card.pixel_size),
        ("rule of normalisation", tiles.rule, card.rule),
        ("quantile of normalisation", tiles.quantile, card.quantile),
    ):
        if there != wanted:
            raise ValueError(
                f"The store {store.path} was built for a {what} of {there!r}, and model {card.name!r} takes "
                f"{wanted!r}. Build a store with `model=` the model that you start with."
            )
    if size % network.stride or size < 2 * network.stride:
        raise ValueError(
            f"The store's tiles are {size} pixels wide; this network takes multiples of {network.stride} of at least "
            f"{2 * network.stride}. Build the store with another `tile_size`, or change the recipe's depth or patch."
        )


def check_labelled(store: Store) -> None:
    """Refuse tiles without a cell to learn from, or to choose the checkpoint by."""
    content = store.to_frame()
    for split in (TRAIN, VALIDATION):
        own = content[content["split"] == split]
        if not own["judged"].sum():
            raise ValueError(
                f"The store {store.path} has no judged cell in a region for {split}; its regions by split are "
                f"{content.groupby('split')['region'].nunique().to_dict()}. Add a data set, or build it with another "
                "`split`."
            )
        if not own["positive"].sum():
            raise ValueError(f"No cell is positive in the regions for {split}: there is no F1. Use another `split`.")


def _trained_on(store: Store) -> str:
    """Say what the labels for training are of, data set by data set."""
    found = []
    for data_set in store.data_sets:
        own = [one for one in store.regions if one.data_set == data_set and one.split == TRAIN]
        if not own:
            continue
        judged = np.array([one.judged for one in own])
        channels: list[int] = np.flatnonzero(judged.sum(axis=0)).tolist()
        proofread = sum(int((one.trusted(n) & (one.truth(n) != 0.5)).sum()) for one in own for n in channels)
        names = ", ".join(own[0].channels[n] for n in channels)
        labels = f"{judged.sum()} labels of {names} ({proofread} proofread, {judged.sum() - proofread} not)"
        found.append(f"Data set {data_set}: {len(own)} regions, {labels}")
    return "; ".join(found)
