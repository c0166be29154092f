"""A whole run: it learns, stops and goes on exactly, keeps its best model, and refuses what cannot work."""

import csv
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import zarr
from safetensors.numpy import load_file
from small_training import CARD, EXACT, RECIPE
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import nimbus_sd as ns
from nimbus_sd.train import Selection, loop
from nimbus_sd.train.evaluate import count_calls, figures, mean_f1, region_scores

GIVEN = {"train": ["r0_cells", "r1_cells"], "validation": ["r2_cells"], "test": ["r3_cells"]}
CPU = {"accelerator": "cpu", "progress": False}


@pytest.fixture
def store(labelled, build):
    return build(labelled, split=GIVEN)


def weights(path):
    return {key: value.tobytes() for key, value in load_file(path).items()}


def log_of(folder) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def events_of(folder, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(one.step, one.value) for one in events.Scalars(name)]


def test_a_run_goes_on_exactly_where_it_was_stopped(store, tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    ns.train.train(store, whole, recipe=RECIPE, **CPU)
    step = loop.Run._train

    def stopped(self, batch):
        if self.step == 5:
            raise RuntimeError("the power is off")
        return step(self, batch)

    monkeypatch.setattr(loop.Run, "_train", stopped)
    with pytest.raises(RuntimeError, match="power is off"):
        ns.train.train(store, parts, recipe=RECIPE, **CPU)
    assert torch.load(parts / "last.ckpt", weights_only=True)["step"] == 4
    steps = []
    monkeypatch.setattr(loop.Run, "_train", lambda self, batch: (steps.append(self.step), step(self, batch))[1])
    ns.train.train(store, parts, recipe=RECIPE, **CPU)
    assert steps == [4, 5, 6, 7]
    ends = [torch.load(folder / "last.ckpt", weights_only=True) for folder in (whole, parts)]
    for name in ("network", "selector"):
        for key, value in ends[0][name].items():
            assert torch.equal(value, ends[1][name][key]) or value.isnan().any(), key
    assert weights(whole / "model.safetensors") == weights(parts / "model.safetensors")
    # The log is that of a run which was never stopped.
    assert log_of(whole) == log_of(parts)
    assert [row["phase"] for row in log_of(whole)] == ["naive", "naive", "robust", "robust"]
    assert float(log_of(whole)[1]["kept"]) == 1 > float(log_of(whole)[3]["kept"]) > 0
    # So are TensorBoard's figures, whose steps are there once each.
    for name in ("loss", "learning_rate", "kept", "validation_f1"):
        rows = [(int(row["step"]), pytest.approx(float(row[name]))) for row in log_of(parts)]
        assert events_of(parts, name) == rows == events_of(whole, name)
    # A finished run is not repeated.
    ns.train.train(store, parts, recipe=RECIPE, **CPU)
    assert steps == [4, 5, 6, 7]


def test_the_best_model_is_kept_with_its_card(store, tmp_path, monkeypatch):
    f1, kept = iter([0.3, 0.6, 0.5, 0.6]), []
    monkeypatch.setattr(loop.Run, "_validate", lambda self: (kept.append(self.plain.state_dict()), next(f1))[1])
    monkeypatch.setattr(
        loop, "save", lambda network, card, path, save=loop.save: (kept.append("saved"), save(network, card, path))[1]
    )
    path = ns.train.train(store, tmp_path / "run", recipe=RECIPE, license="CC-BY-4.0", **CPU)
    assert [one == "saved" for one in kept] == [False, True, False, True, False, False]
    card = ns.models.load(path).card
    assert card.figures == {"validation_f1": 0.6, "step": 4}
    assert (card.name, card.license, card.pixel_size, card.boundary) == ("run", "CC-BY-4.0", 1.0, "background")
    assert card.training["naive_steps"] == 4 and card.training["selection"]["quantile"] == 0.85


@pytest.mark.parametrize(
    ("naive", "robust", "steps"),
    [(100, 0, ["2", "4", "6"]), (4, 100, ["2", "4", "6", "8"]), (0, 100, ["2", "4", "6"])],
    ids=["naive only", "a naive phase first does not count", "robust only"],
)
def test_training_stops_where_f1_no_longer_rises(store, tmp_path, monkeypatch, naive, robust, steps):
    monkeypatch.setattr(loop.Run, "_validate", lambda self: 0.5)
    recipe = replace(RECIPE, naive_steps=naive, robust_steps=robust, patience=2)
    ns.train.train(store, tmp_path / "run", recipe=recipe, **CPU)
    assert [row["step"] for row in log_of(tmp_path / "run")] == steps


def test_a_pull_keeps_weights_near_the_start(store, tmp_path):
    first = ns.train.train(store, tmp_path / "first", recipe=RECIPE, **CPU)
    start, far = load_file(first), {}
    for pull in (0.0, 50.0):
        recipe = replace(RECIPE, pull=pull, weight_decay=0.0)
        ns.train.train(store, tmp_path / f"{pull}", recipe=recipe, model=first, **CPU)
        end = torch.load(tmp_path / f"{pull}" / "last.ckpt", weights_only=True)["network"]
        far[pull] = sum(
            float(np.square(end[key].numpy() - value).sum()) for key, value in start.items() if value.ndim == 4
        )
    assert 0 < far[50.0] < 0.5 * far[0.0]


def test_a_run_learns(labelled, build, tmp_path):
    """Bright cells are positive: forty steps suffice."""
    store = build(labelled, split=GIVEN, tile_size=24, overlap=8)
    settings = {"naive_steps": 40, "robust_steps": 0, "validate_every": 20, "batch_size": 4, "root_filters": 4}
    recipe = replace(RECIPE, **settings, augmentation=EXACT, boundary="cell")
    path = ns.train.train(store, tmp_path / "run", recipe=recipe, **CPU)
    assert ns.models.load(path).card.figures["validation_f1"] > 0.8
    losses = [float(row["loss"]) for row in log_of(tmp_path / "run")]
    assert losses[1] < 0.7 * losses[0]


def test_scores_are_those_of_predict(labelled, build, deep):
    """A region that is one tile: cells get nearly the scores of the main job, and are called by them."""
    card = replace(CARD, root_filters=2, depth=5)
    store = build(labelled, split=GIVEN, tile_size=32, overlap=0, model=card)
    factors = {
        c: float(np.mean([np.quantile(i.to_numpy()[n][i.to_numpy()[n] > 0], 0.999) for i in labelled.images.values()]))
        for n, c in enumerate(["DAPI", "CD3"])
    }
    adata = ns.predict(labelled, model=deep, pixel_size=0.5, tta=False, normalization=factors, progress=False)
    held = adata[(adata.obs["region"] == "r3_cells").to_numpy()]
    network = ns.models.load(deep).network
    found = region_scores(network, store, store.tiles("test"), 2, torch.device("cpu"))
    # Pixels of a cell count by how many of the image they hold there, and alike here, which matters in small cells.
    assert np.median(np.abs(found - held.layers["nimbus"])) < 0.02
    assert np.corrcoef(found.ravel(), held.layers["nimbus"].ravel())[0, 1] > 0.9
    counts = count_calls(network, store, "test", batch_size=2, device=torch.device("cpu"))
    table, labels = figures(counts, store), held.layers["silver"] > 0.5
    for number, channel in enumerate(store.regions[0].channels):
        outcome = 2 * labels[:, number] + (found[:, number] >= 0.5)
        assert counts[store.strata.index(("d", channel))].tolist() == np.bincount(outcome, minlength=4).tolist()
        assert table.loc[("d", channel), "cells"] == len(held)
    assert mean_f1(table) == pytest.approx(table["f1"].mean())


def test_f1_is_averaged_over_markers_then_data_sets(labelled, build):
    build(labelled, split=GIVEN)
    store = build(labelled, data_set="e", channels=["CD3"], split=GIVEN)
    counts = np.array([[5, 5, 5, 5], [5, 0, 0, 5], [9, 1, 9, 1]])
    table = figures(counts, store)
    f1 = [10 / 20, 1.0, 2 / 12]
    np.testing.assert_allclose(table["f1"], f1)
    assert mean_f1(table) == pytest.approx(((f1[0] + f1[1]) / 2 + f1[2]) / 2)


def test_a_loss_that_is_not_a_number_stops_the_run(store, tmp_path):
    order = loop.Order(len(store.tiles("train")), RECIPE.batch_size, 0)
    number, window, channel = store.tiles("train")[order(2)[0]]
    zarr.open_group(store.path, mode="r+")[f"0/{number}/image"][window, channel] = np.nan
    folder = tmp_path / "run"
    recipe = replace(RECIPE, augmentation=EXACT)
    region = store.regions[number]
    place = re.escape(f"d/{region.region}/{region.channels[channel]}, window {window}")
    with pytest.raises(FloatingPointError, match=rf"loss of step 3 is nan.*{place}.*last checkpoint is kept"):
        ns.train.train(store, folder, recipe=recipe, **CPU)
    state = torch.load(folder / "last.ckpt", weights_only=True)
    assert state["step"] == 2 and all(value.isfinite().all() for value in state["network"].values())
    ns.models.load(folder / "model.safetensors")


def test_a_network_without_finite_scores_stops_the_run(store, tmp_path):
    recipe = replace(RECIPE, learning_rate=1e10, naive_steps=1, robust_steps=0)
    with pytest.raises(FloatingPointError, match=r"After step 1 no cell .* has a finite score.*no checkpoint yet"):
        ns.train.train(store, tmp_path / "run", recipe=recipe, **CPU)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"metrics.csv", "tensorboard"}


def test_another_run_is_refused(store, tmp_path):
    ns.train.train(store, tmp_path / "run", recipe=RECIPE, **CPU)
    recipe = replace(RECIPE, selection=Selection(quantile=0.7))
    with pytest.raises(ValueError, match=r"another run: recipe.selection.quantile was 0.85, now 0.7"):
        ns.train.train(store, tmp_path / "run", recipe=recipe, **CPU)
    with pytest.raises(ValueError, match="seed was 0, now 1"):
        ns.train.train(store, tmp_path / "run", recipe=RECIPE, rng=1, **CPU)


def test_stores_that_do_not_fit_are_refused(labelled, build, store, tmp_path):
    with pytest.raises(ValueError, match=r"pixel size of 1.0, and model 'compact' takes 0.5"):
        ns.train.train(store, tmp_path / "run", recipe=RECIPE, model="compact", **CPU)
    with pytest.raises(ValueError, match="16 pixels wide; this network takes multiples of 16 of at least 32"):
        ns.train.train(store, tmp_path / "run", recipe=replace(RECIPE, depth=5), **CPU)
    without = build(labelled, "without", split={"train": [f"r{i}_cells" for i in range(4)]})
    with pytest.raises(ValueError, match="no judged cell in a region for validation"):
        ns.train.train(without, tmp_path / "run", recipe=RECIPE, **CPU)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "given, error, message",
    [
        ({"recipe": "LAPTOP"}, TypeError, r"`recipe` is 'LAPTOP'; it must be a .*Recipe"),
        ({"rng": np.random.default_rng(0)}, ValueError, r"rng is Generator.*whole number from 0 .*no generator"),
        ({"rng": -1}, ValueError, "rng is -1; it must be a whole number from 0"),
    ],
)
def test_what_no_run_can_be_of_is_refused(tmp_path, given, error, message):
    with pytest.raises(error, match=message):
        ns.train.train(tmp_path / "tiles", tmp_path / "run", **given)
    assert not list(tmp_path.iterdir())


def test_settings_are_of_their_kind():
    for settings, message in (
        ({"naive_steps": 4.0}, r"naive_steps is 4.0; it must be a whole number"),
        ({"batch_size": True}, "batch_size is True; it must be a whole number"),
        ({"learning_rate": "1e-3"}, "learning_rate is '1e-3'; it must be a number"),
        ({"selection": {"quantile": 0.7}}, "selection is .* it must be a Selection"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(RECIPE, **settings)
    assert replace(RECIPE, naive_steps=np.int64(4)).to_dict() == RECIPE.to_dict()


def test_licence_and_description_of_a_finished_run_can_be_changed(store, tmp_path):
    path = ns.train.train(store, tmp_path / "run", recipe=RECIPE, **CPU)
    before, card = path.read_bytes(), ns.models.load(path).card
    ns.train.train(store, tmp_path / "run", recipe=RECIPE, license="MIT", description="Ours.", rng=np.int64(0), **CPU)
    assert path.read_bytes() == before
    assert ns.models.load(path).card == replace(card, license="MIT", description="Ours.")


def test_a_marker_with_gold_is_judged_by_gold_alone(labelled, build):
    adata = labelled.tables["table"]
    adata.layers["gold"] = np.full(adata.shape, np.nan, np.float32)
    held = np.flatnonzero((adata.obs["region"] == "r3_cells").to_numpy())[:5]
    adata.layers["gold"][held, 1] = [0, 1, 0, 0, 1]
    store = build(labelled, split={"train": ["r0_cells", "r1_cells"], "test": ["r2_cells", "r3_cells"]})
    counts = count_calls(lambda x: x[:, :1], store, "test", batch_size=2, device=torch.device("cpu"))
    assert counts.sum(axis=1).tolist() == [(adata.obs["region"] == "r2_cells").sum(), 5]


def test_a_batch_must_be_shared_evenly(store, tmp_path):
    with pytest.raises(ValueError, match="batch_size is 0; it must be at least 1"):
        replace(RECIPE, batch_size=0)
    with pytest.raises(ValueError, match="naive_steps is 0"):
        replace(RECIPE, naive_steps=0, robust_steps=0)


def test_what_was_left_out_can_be_seen(store, tmp_path):
    ns.train.train(store, tmp_path / "run", recipe=RECIPE, **CPU)
    cells = ns.train.left_out(tmp_path / "run", store)
    assert set(cells["region"]) == {"r0_cells", "r1_cells"} and 0.5 < cells["kept"].mean() < 1
    # Of the cells that a threshold decides about, it is one loss below which all are kept.
    doubtful = cells[(cells["score"] > 0.1) & (cells["score"] < 0.9)]
    for _, own in doubtful.groupby("channel"):
        assert own.loc[own["kept"], "loss"].max() < own.loc[~own["kept"], "loss"].min()
    axes = ns.train.show_left_out(cells, store, n_cells=3, width=10)
    worst = cells[~cells["kept"]].nlargest(1, "loss").iloc[0]
    assert axes[0].get_title() == f"{worst.channel}: label {worst.label:g}, score {worst.score:.2f}"
    assert len(axes) == 3 and axes[0].images[0].get_array().shape[0] <= 10
    twice = pd.concat([cells, cells[~cells["kept"]].assign(window=0)], ignore_index=True)
    assert len(ns.train.show_left_out(twice, store, n_cells=3, width=10)) == 3
    with pytest.raises(ValueError, match="None of the"):
        ns.train.show_left_out(cells.assign(kept=True), store)
    with pytest.raises(FileNotFoundError, match="no run in"):
        ns.train.left_out(tmp_path, store)


def test_proofread_labels_are_always_believed_and_move_no_threshold(labelled, build, tmp_path, monkeypatch):
    adata = labelled.tables["table"]
    adata.layers["gold_training"] = np.full(adata.shape, np.nan, np.float32)
    adata.layers["gold_training"][:, 1] = 1 - adata.layers["silver"][:, 1]
    store = build(labelled, split=GIVEN)
    recipe = replace(RECIPE, selection=ns.train.Selection(quantile=0.3, sure=(0.0, 1.0)))
    learned, loss = [], loop.masked_loss

    def noting(logits, batch, keep, boundary):
        learned.append((keep[1:], batch.trusted[1:]))
        return loss(logits, batch, keep, boundary)

    monkeypatch.setattr(loop, "masked_loss", noting)
    ns.train.train(store, tmp_path / "run", recipe=recipe, **CPU)
    robust = learned[recipe.naive_steps :]
    keep, trusted = (torch.cat([one[i] for one in robust]) for i in (0, 1))
    assert trusted.any() and keep[trusted].float().mean() > 0.9 > keep[~trusted].float().mean()
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    threshold = state["selector"]["threshold"]
    assert torch.isfinite(threshold[0]).all() and torch.isnan(threshold[1]).all()
    cells = ns.train.left_out(tmp_path / "run", store).groupby("channel")["kept"].mean()
    assert cells["CD3"] == 1 > cells["DAPI"]


def test_before_the_robust_phase_nothing_was_selected(store, tmp_path):
    ns.train.train(store, tmp_path / "run", recipe=replace(RECIPE, robust_steps=0), **CPU)
    with pytest.raises(ValueError, match="has not reached its noise-robust phase"):
        ns.train.left_out(tmp_path / "run", store)


SCRIPT = """
import sys
from small_training import RECIPE
import nimbus_sd as ns
if __name__ == "__main__":
    ns.train.train(sys.argv[1], sys.argv[2], recipe=RECIPE, accelerator="cpu", devices=2, progress=False)
"""


@pytest.mark.slow
def test_two_devices_share_batches_thresholds_and_f1(store, tmp_path):
    """Two processes stand for two GPUs; what is written is one model, and its checkpoint goes on on one device."""
    (tmp_path / "script.py").write_text(SCRIPT)
    paths = [str(Path(ns.__file__).parents[1]), str(Path(__file__).parents[1] / "helpers")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "script.py", str(store.path), str(tmp_path / "run")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert [row["step"] for row in log_of(tmp_path / "run")] == ["2", "4", "6", "8"]
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert state["step"] == 8 and state["selector"]["threshold"].isfinite().all()
    # A finished run is recognised by one device too, and its best F1 is that of the model on all regions.
    path = ns.train.train(store, tmp_path / "run", recipe=RECIPE, **CPU)
    model = ns.models.load(path)
    counts = count_calls(model.network, store, "validation", batch_size=2, device=torch.device("cpu"))
    assert mean_f1(figures(counts, store)) == pytest.approx(model.card.figures["validation_f1"], abs=1e-5)
