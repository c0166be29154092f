"""What the bundled model is made from: the judgements by eye, and labels, tiles and loss that rest on them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from benchmark_module import ROOT, module

HERE = ROOT / "tools" / "compact"
DATA = ROOT.parent / "shared" / "data"
TEXT = {"field": str, "state": str}


@pytest.fixture(scope="module")
def scripts():
    pytest.importorskip("lightning")
    return {name: module(name, "tools/compact") for name in ("corpus", "silver", "tiles", "fit", "tables", "ranges")}


@pytest.fixture(scope="module")
def tables():
    return {name: pd.read_csv(HERE / f"{name}.csv", dtype=TEXT) for name in ("gold", "gold_training")}


def test_gold_is_sure_only_where_both_passes_agree(scripts, tables):
    gold = tables["gold"]
    agree = (gold["first"] == gold["second"]) & (gold["first"] != "u")
    assert (gold["state"] == gold["first"].where(agree, "u")).all()
    assert set(gold.loc[gold["state"] != "u", "dataset"]) == set(scripts["corpus"].PIXEL_SIZE)


def test_no_judged_cell_is_both_for_training_and_for_judging(scripts, tables):
    gold, training = tables["gold"], tables["gold_training"]
    for dataset, names in scripts["corpus"].HELD_OUT.items():
        assert set(gold.loc[gold["dataset"] == dataset, "field"]) <= set(names)
        assert not set(training.loc[training["dataset"] == dataset, "field"]) & set(names)
    keys, cut = ["dataset", "field", "label"], scripts["corpus"].CUT
    judged, taught = (table.loc[table["dataset"].isin(cut), keys].drop_duplicates() for table in (gold, training))
    assert len(judged.merge(taught)) == 0
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is not here")
    for dataset in cut:
        (field,) = scripts["corpus"].fields(DATA, dataset)
        outside = set(field.cells[field.held_out])
        assert set(gold.loc[gold["dataset"] == dataset, "label"]) <= outside
        assert not set(training.loc[training["dataset"] == dataset, "label"]) & outside


@pytest.fixture
def field(scripts, tmp_path):
    """Four cells of 6 x 6 pixels in a row, in two channels that exclude each other; the last is held out."""
    labels = np.zeros((20, 40), np.uint16)
    for k in range(4):
        labels[6:12, 4 + 7 * k : 10 + 7 * k] = k + 1
    levels = np.array([[0, 100, 30, 0, 90], [0, 90, 2, 80, 5]])
    tifffile.imwrite(
        tmp_path / "image.ome.tif",
        levels[:, labels].astype(np.uint16),
        metadata={"axes": "CYX", "Channel": {"Name": ["CD3", "CD20"]}},
        ome=True,
    )
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    made = scripts["corpus"].Field("codex_lymphoid", "field", tmp_path)
    assert made.held_out.tolist() == [False, False, False, True]
    return made


@pytest.fixture
def two_gates():
    rows = {"channel": ["CD3", "CD20"], "lower": [10.0, 10.0], "upper": [25.0, 25.0], "quality": ["good", "fair"]}
    return pd.DataFrame(rows).set_index("channel")


def judged(*rows):
    return pd.DataFrame(rows, columns=["channel", "label", "state"])


def test_gates_do_not_teach_the_mistakes_of_the_mean(scripts, field, two_gates):
    found = scripts["silver"].silver(field, two_gates, judged())
    # The first cell is above both gates of markers that exclude each other: the dimmer one is undetermined.
    # The second is above the gate of CD3, but its neighbour is three times as bright.
    np.testing.assert_array_equal(found.states[:, 0], [1, 0.5, 0, np.nan])
    np.testing.assert_array_equal(found.states[:, 1], [0.5, 0, 1, np.nan])
    np.testing.assert_allclose(found.weights[:, 1], scripts["silver"].WEIGHT["fair"])
    # A channel without a clear picture gives no positive cell.
    states = scripts["silver"].silver(field, two_gates.assign(quality="exclude"), judged()).states
    assert not (states == 1).any() and states[2, 0] == 0


def test_a_cell_judged_by_eye_has_its_state_whatever_the_gates_say(scripts, field, two_gates):
    found = scripts["silver"].silver(field, two_gates, judged(("CD3", 2, "1"), ("CD20", 3, "u"), ("CD3", 4, "1")))
    assert found.states[1, 0] == 1 and found.weights[1, 0] == scripts["silver"].JUDGED
    assert found.states[2, 1] == 0.5
    assert np.isnan(found.states[3]).all()


def write_source(scripts, folder, states):
    """A field of 240 x 240 pixels with cells of 12 x 12, whose label is its column."""
    labels = np.zeros((240, 240), np.int32)
    number = np.arange(400).reshape(20, 20) + 1
    labels[:] = np.kron(number, np.ones((12, 12), np.int32))
    inner = np.zeros_like(labels, bool)
    inner[1::12], inner[:, 1::12] = True, True
    for name in ("arrays", "silver"):
        (folder / name).mkdir()
    np.save(folder / "arrays" / "codex_lymphoid__field__image.npy", np.where(states[labels - 1] == 1, 50, 5)[None])
    np.save(folder / "arrays" / "codex_lymphoid__field__labels.npy", np.where(inner, 0, labels))
    weights = np.ones((400, 1), np.float32)
    np.savez(folder / "silver" / "codex_lymphoid__field.npz", states=states[:, None], weights=weights)
    args = (folder / "arrays", folder / "silver", {"CD3": 100.0}, {"field": ["CD3"]})
    return scripts["tiles"].Source("codex_lymphoid", *args)


def test_a_tile_shows_each_cell_with_its_own_label(scripts, tmp_path):
    states = np.random.default_rng(0).choice([0.0, 0.5, 1.0], 400).astype(np.float32)
    source = write_source(scripts, tmp_path, states)
    rng = np.random.default_rng(1)
    for _ in range(20):
        tile = source.draw(rng)
        assert tile.image.shape == tile.interior.shape == tile.cells.shape == (192, 192)
        assert tile.image.min() >= 0 and tile.image.max() <= 1
        inside = tile.interior & (tile.cells > 0)
        bright = np.bincount(tile.cells[inside], tile.image[inside], len(tile.labels))
        size = np.bincount(tile.cells[inside], minlength=len(tile.labels))
        large = size > 20
        mean = bright[large] / size[large]
        truth = tile.labels[large]
        assert mean[truth == 1].mean() > 2 * mean[truth == 0].mean()


def test_batches_depend_on_seed_and_step_only(scripts, tmp_path):
    tiles = scripts["tiles"]
    source = write_source(scripts, tmp_path, np.tile([0.0, 1.0], 200).astype(np.float32))

    def third(start):
        stream = tiles.batches([source], source, 2, seed=3, step=start)
        return [next(stream) for _ in range(3 - start)][-1]

    first, other = third(0), third(2)
    torch.testing.assert_close(first.inputs, other.inputs)
    torch.testing.assert_close(first.labels, other.labels)
    assert (first.labels[first.cells] != 0.5).any() and int(first.cells.max()) == len(first.labels) - 1


def batch(scripts, labels, trusted):
    cells = torch.arange(4).reshape(1, 2, 2)
    cells = cells.repeat_interleave(8, 1).repeat_interleave(8, 2)
    n = torch.tensor([0.0, 1.0, 1.0, 1.0])
    inputs = torch.zeros(1, 2, 16, 16)
    return scripts["tiles"].Batch(inputs, cells, torch.tensor(labels), n, torch.zeros(4, dtype=torch.int64), trusted)


def test_an_undetermined_cell_teaches_nothing(scripts):
    trusted = torch.zeros(4, dtype=torch.bool)
    logits = torch.zeros(1, 1, 16, 16, requires_grad=True)
    scripts["fit"].loss(logits, batch(scripts, [0.5, 1.0, 0.5, 0.0], trusted), robust=False).backward()
    moved = logits.grad[0, 0, ::8, ::8].flatten()
    assert moved[1] < 0 < moved[3] and moved[2] == 0


def test_a_contradicted_silver_label_is_left_out_but_not_one_judged_by_eye(scripts):
    logits = torch.full((1, 1, 16, 16), -6.0)
    wrong = batch(scripts, [0.5, 1.0, 0.5, 0.0], torch.zeros(4, dtype=torch.bool))
    seen = replace(wrong, trusted=torch.tensor([False, True, False, False]))
    loss = scripts["fit"].loss
    assert loss(logits, wrong, robust=True) < 0.1 < 1 < loss(logits, seen, robust=True)
    assert loss(logits, wrong, robust=False) > 1


def test_figures_by_hand(scripts):
    columns = {"state": list("1100u"), "score": [0.9, 0.4, 0.6, 0.1, 0.9], "mean": [5.0, 4.0, 1.0, 1.0, 9.0]}
    table = pd.DataFrame({"dataset": "d", "channel": "c", **columns})
    rules = scripts["tables"].RULES
    calls = {rule + scale: [True, True, True, False, True] for rule in rules for scale in ("", " of arcsinh")}
    table = table.assign(**calls)
    row = scripts["tables"].measure(table, {"net": "score"}).iloc[0]
    assert row["net: F1"] == pytest.approx(0.5) and row["net: best F1"] == pytest.approx(0.8)
    assert row["net: AUROC"] == 0.75 and row["mean: AUROC"] == 1 and row["mean: otsu"] == pytest.approx(0.8)
    assert (row["cells"], row["positive"], row["net: false positives"], row["net: misses"]) == (4, 2, 1, 1)


def test_calibration_error_weighs_both_classes_alike(scripts):
    error = scripts["tables"].calibration_error
    truth = np.array([True] * 10 + [False] * 90)
    assert error(truth, np.where(truth, 1.0, 0.0)) == pytest.approx(0)
    # Half of either class by weight at a score of 0.5 is calibrated, at 0.8 it is off by 0.3.
    assert error(truth, np.full(100, 0.5)) == pytest.approx(0)
    assert error(truth, np.full(100, 0.8)) == pytest.approx(0.3)


def test_limits_speak_against_bright_and_flat_images_only(scripts):
    rows = {"median": [0.1, 0.2], "q10": [0.0, 0.1], "q99": [0.5, 0.6], "cv": [0.5, 4.0], "zeros": [0.0, 0.9]}
    found = scripts["ranges"].limits(pd.DataFrame(rows))
    assert {name: limit["low"] for name, limit in found.items()} == {"median": 0, "q10": 0, "q99": 0, "cv": 0.605}
    assert found["median"]["high"] == 0.2 and found["cv"]["high"] == 1000
