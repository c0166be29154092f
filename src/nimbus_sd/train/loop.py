"""The loop of a training run, on one device or on several."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from math import cos, isnan, pi
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from nimbus_sd.models import Card, UNet, save
from nimbus_sd.train.augment import Augment
from nimbus_sd.train.checkpoint import Log, read_checkpoint, write_checkpoint
from nimbus_sd.train.evaluate import count_calls, figures, mean_f1
from nimbus_sd.train.objective import cell_figures, known_cells, masked_loss
from nimbus_sd.train.recipe import Recipe
from nimbus_sd.train.select import Selector, judged
from nimbus_sd.train.splits import TRAIN, VALIDATION
from nimbus_sd.train.store import Store
from nimbus_sd.train.tiles import Order, StoredBatch, read_batches, to_device

logger = logging.getLogger("nimbus_sd")


class Run:
    """A run: all of its state, and the steps that change it.

    Parameters
    ----------
    store, recipe, folder
        As for :func:`nimbus_sd.train.train`; ``recipe.boundary`` is set.
    network
        At the start. It is trained in place.
    card
        Of the models that are written.
    inputs
        What tells this run from others, as JSON can hold it.
    seed
        Of everything that is drawn.
    settings
        For :class:`lightning.fabric.Fabric`.
    """

    def __init__(
        self,
        store: Store,
        network: UNet,
        card: Card,
        recipe: Recipe,
        folder: Path,
        inputs: Mapping[str, Any],
        seed: int,
        settings: Mapping[str, Any],
    ) -> None:
        self.store, self.card, self.recipe, self.folder = store, card, recipe, folder
        self.inputs, self.seed = inputs, seed
        precision = settings["precision"]
        if precision == "auto":
            precision = "bf16-mixed" if torch.cuda.is_available() and settings["accelerator"] != "cpu" else "32-true"
        if str(precision).startswith("16"):
            # Its losses overflow now and then, as a matter of course; here that would be an error.
            raise ValueError(f"precision={precision!r} is not supported; use 'bf16-mixed' or '32-true'.")
        self.fabric = Fabric(**{**settings, "precision": precision})
        self.fabric.launch()
        if recipe.batch_size % self.fabric.world_size:
            raise ValueError(
                f"A batch of {recipe.batch_size} tiles cannot be shared by {self.fabric.world_size} devices evenly."
            )
        # Faster on processors, and on GPUs in half precision.
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
        self.plain = network
        self.network, self.optimizer = self.fabric.setup(network, optimizer)
        self.start = [value.detach().clone() for value in network.parameters()]
        self.selector = Selector(recipe.selection, len(store.strata))
        self.augment = Augment(recipe.augmentation, seed)
        self.step, self.best, self.best_step = 0, -1.0, 0
        self.tiles = store.tiles(TRAIN)
        self.order = Order(len(self.tiles), recipe.batch_size, seed)

    def fit(self, *, progress: bool) -> Path:
        """Go through all steps from the folder's checkpoint on; return the path of the best model."""
        path, last = self.folder / "model.safetensors", self.folder / "last.ckpt"
        if (state := read_checkpoint(last, self.inputs)) is not None:
            self._restore(state)
            self._describe(path.with_suffix(".json"))
        recipe, main = self.recipe, self.fabric.is_global_zero
        log = Log(self.folder, self.step) if main else None
        if not self.step and self.inputs["start"]:
            # Whoever starts with a model wants one that is better.
            self._judge(path)
        sums, bar = np.zeros(3), tqdm(total=recipe.steps, initial=self.step, disable=not (progress and main))
        for batch in read_batches(self.store, self._plan()) if not self._over() else ():
            sums += self._train(to_device(batch, self.fabric.device))
            bar.update()
            if self.step % recipe.validate_every and self.step < recipe.steps:
                continue
            f1 = self._judge(path)
            if log is not None:
                write_checkpoint(last, self._state(), self.inputs)
                log.write(self.step, self._phase(self.step - 1), **self._means(sums), validation_f1=f1)
            bar.set_postfix(f1=f"{f1:.3f}")
            sums[:] = 0
            if self._over():
                break
        bar.close()
        if log is not None:
            log.close()
        self.fabric.barrier()
        logger.info("validation F1 %.3f after %d steps: %s", self.best, self.best_step, path)
        return path

    def _plan(self) -> Any:
        """Tiles of each step that is left."""
        rank, ranks = self.fabric.global_rank, self.fabric.world_size
        return (self.tiles[self.order(step, rank, ranks)] for step in range(self.step, self.recipe.steps))

    def _over(self) -> bool:
        """Whether all steps are done, or F1 has not risen for too long."""
        patience, naive = self.recipe.patience, self.recipe.naive_steps if self.recipe.robust_steps else 0
        # A model to start with first gets worse where it is to believe wrong labels.
        since = self.step - max(self.best_step, naive)
        stale = patience is not None and since >= patience * self.recipe.validate_every
        return self.step >= self.recipe.steps or stale

    def _phase(self, step: int) -> str:
        return "naive" if step < self.recipe.naive_steps else "robust"

    def _train(self, batch: StoredBatch) -> NDArray[np.float64]:
        """Take a step; return loss, share of the judged cells that were kept, and 1."""
        keep = known = known_cells(batch)
        if self._phase(self.step) == "robust":
            keep = self._select(batch)
        shown = self.augment(batch, self.step, self.fabric.global_rank)
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.network.train()
        loss = masked_loss(self.network(shown.inputs), shown, keep, str(self.recipe.boundary))
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        norm = self.fabric.clip_gradients(
            self.network, self.optimizer, max_norm=self.recipe.clip, error_if_nonfinite=False
        )
        self._check_finite(loss, norm)
        self.optimizer.step()
        self._pull()
        self.step += 1
        return np.array([float(loss.detach()), float(keep.sum() / known.sum().clamp(min=1)), 1.0])

    @torch.no_grad()
    def _select(self, batch: StoredBatch) -> Tensor:
        """Say which cells are learned from, by the network as it is and the tiles as they are."""
        self.network.eval()
        cells = cell_figures(self._look(batch.inputs), batch, str(self.recipe.boundary))
        labels = torch.where(known_cells(batch, cells.areas), batch.labels, torch.nan)
        step = self.step - self.recipe.naive_steps
        # Proofread labels are believed, and say nothing about how wrong the others are.
        doubted = torch.where(batch.trusted, torch.nan, labels)
        self.selector.update(cells.losses, doubted, batch.tile, batch.stratum, step, self._gather)
        kept = self.selector.keep(cells.losses, cells.scores, doubted, batch.stratum[batch.tile])
        return kept | (batch.trusted & judged(labels))

    def _look(self, inputs: Tensor) -> Tensor:
        """Return logits, on this device alone: others may have fewer regions, and would be waited for."""
        with self.fabric.autocast():
            return self.plain(inputs)  # type: ignore[no-any-return]

    def _gather(self, one: Tensor) -> Tensor:
        return one[None] if self.fabric.world_size == 1 else self.fabric.all_gather(one)  # type: ignore[return-value]

    def _learning_rate(self) -> float:
        return self.recipe.learning_rate * (1 + cos(pi * self.step / self.recipe.steps)) / 2

    @torch.no_grad()
    def _pull(self) -> None:
        """Draw the weights to those of the start, apart from Adam's scales, as AdamW decays them."""
        if self.recipe.pull:
            weights = [value.data for value in self.plain.parameters()]
            torch._foreach_lerp_(weights, self.start, min(1.0, self._learning_rate() * self.recipe.pull))

    def _check_finite(self, loss: Tensor, norm: Tensor | None) -> None:
        """Stop before weights are changed by a loss that is none."""
        total = loss.detach() + (0 if norm is None else norm.detach())
        if self.fabric.world_size > 1:
            total = self.fabric.all_reduce(total, reduce_op="sum")  # type: ignore[assignment]
        if bool(torch.isfinite(total)):
            return
        regions, names = self.store.regions, []
        for number, window, channel in self.tiles[self.order(self.step)]:
            one = regions[number]
            names.append(f"{one.data_set}/{one.region}/{one.channels[channel]}, window {window}")
        raise FloatingPointError(
            f"The loss of step {self.step + 1} is {float(loss.detach()):g} and the norm of its gradient "
            f"{float('nan' if norm is None else norm):g}, in the batch of {'; '.join(names)}. {self._kept}; the "
            "step was not taken. Look at these tiles, or train with a smaller learning rate."
        )

    @property
    def _kept(self) -> str:
        there = (self.folder / "last.ckpt").exists()
        return "The last checkpoint is kept" if there else "There is no checkpoint yet"

    def _judge(self, path: Path) -> float:
        """Validate, and keep the model if it is the best so far."""
        f1 = self._validate()
        if isnan(f1):
            raise FloatingPointError(
                f"After step {self.step} no cell for validation that is labelled positive has a finite score: the "
                f"weights are out of bounds. {self._kept}. Train with a smaller learning rate, in another folder."
            )
        if f1 > self.best:
            self.best, self.best_step = f1, self.step
            if self.fabric.is_global_zero:
                found = {"validation_f1": round(f1, 6), "step": self.step}
                save(self.plain, replace(self.card, figures=found), path)
        return f1

    def _validate(self) -> float:
        self.network.eval()
        counts = count_calls(
            self._look,
            self.store,
            VALIDATION,
            batch_size=self.recipe.batch_size,
            device=self.fabric.device,
            rank=self.fabric.global_rank,
            ranks=self.fabric.world_size,
        )
        if self.fabric.world_size > 1:
            shared = torch.from_numpy(counts).to(self.fabric.device)
            counts = self.fabric.all_reduce(shared, reduce_op="sum").cpu().numpy()  # type: ignore[union-attr]
        return mean_f1(figures(counts, self.store))

    def _means(self, sums: NDArray[np.float64]) -> dict[str, float]:
        loss, kept, steps = sums
        return {"loss": loss / steps, "kept": kept / steps, "learning_rate": self._learning_rate()}

    def _state(self) -> dict[str, Any]:
        """All that the next step depends on; tiles and their augmentation follow from the step's number."""
        return {
            "step": self.step,
            "best": self.best,
            "best_step": self.best_step,
            "network": self.plain.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "selector": self.selector.state_dict(),
        }

    def _describe(self, path: Path) -> None:
        """Make licence and description of the best model so far those of this call."""
        if self.fabric.is_global_zero and path.exists():
            replace(Card.read(path), license=self.card.license, description=self.card.description).write(path)

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.step, self.best, self.best_step = state["step"], state["best"], state["best_step"]
        self.plain.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.selector.load_state_dict(state["selector"])
