"""The loss, and a fit that can be stopped and goes on."""

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn import functional

import nimbus_sd.train.fit as fitting
from nimbus_sd.models import UNet
from nimbus_sd.train.fit import Fit, cell_scores, fit, loss
from nimbus_sd.train.stream import Batch, SimulatedTiles, collate

CELLS = torch.tensor([[[1, 1, 0], [2, 2, 2], [0, 3, 3]], [[4, 0, 0], [4, 4, 5], [5, 5, 5]]])


def batch(labels: list[float], cells: torch.Tensor = CELLS) -> Batch:
    # Cells 1 to 3 lie in the first tile, 4 and 5 in the second.
    return Batch(torch.zeros(2, 2, 3, 3), cells, torch.tensor([0.5, *labels]), torch.tensor([0, 0, 0, 0, 1, 1]))


def random_logits(seed: int = 0, **settings) -> torch.Tensor:
    return torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(seed), **settings)


def test_cell_scores_are_the_mean_confidence_of_each_cell():
    logits = random_logits()
    scores, areas = cell_scores(logits, CELLS, 7)
    confidence, cells = torch.sigmoid(logits[:, 0]).numpy(), CELLS.numpy()
    for cell in range(6):
        assert scores[cell] == pytest.approx(confidence[cells == cell].mean(), rel=1e-6)
        assert areas[cell] == (cells == cell).sum()
    # One that covers no pixel.
    assert scores[6] == areas[6] == 0


def test_the_loss_is_that_of_cells_and_half_of_pixels():
    labels = [1.0, 0.0, 1.0, 0.0, 0.0]
    logits = random_logits()
    scores, _ = cell_scores(logits, CELLS, 6)
    # Two positive cells and a negative one in the first tile, two negative ones in the second.
    rarity = np.sqrt([3 / 4, 3 / 2, 3 / 4, 1 / 2, 1 / 2])
    # The three cells of one tile count as the root of three, the two of the other as the root of two.
    share = torch.tensor(rarity / np.sqrt([3, 3, 3, 2, 2]), dtype=torch.float32)
    per_cell = functional.binary_cross_entropy(scores[1:], torch.tensor(labels), reduction="none")
    of_cells = (per_cell * share).sum() / share.sum()
    weight = torch.tensor([0.05, *rarity], dtype=torch.float32)[CELLS]
    target = torch.tensor([0.0, *labels])[CELLS]
    per_pixel = functional.binary_cross_entropy_with_logits(logits[:, 0], target, reduction="none")
    expected = of_cells + 0.5 * (per_pixel * weight).sum() / weight.sum()
    torch.testing.assert_close(loss(logits, batch(labels)), expected)


def test_a_rare_state_counts_more_but_not_without_bound():
    def cost_of_a_miss(n: int) -> float:
        """Loss by one wrong cell of its own state, over that by one of the n others."""
        cells = torch.arange(1, n + 2).reshape(1, 1, -1)
        labels = torch.tensor([0.5, 1.0, *[0.0] * n])
        tile = Batch(torch.zeros(1, 2, 1, n + 1), cells, labels, torch.zeros(n + 2, dtype=torch.int64))
        right = torch.where(labels[1:] > 0, 4.0, -4.0)[None, None, None]
        wrong = [right.clone() for _ in range(2)]
        wrong[0][..., 0] *= -1
        wrong[1][..., 1] *= -1
        miss, call = (float(loss(logits, tile) - loss(right, tile)) for logits in wrong)
        return miss / call

    assert cost_of_a_miss(1) == pytest.approx(1, rel=1e-4)
    assert cost_of_a_miss(9) == pytest.approx(3, rel=1e-4)
    assert cost_of_a_miss(2000) == pytest.approx(3 * np.sqrt(2), rel=0.01)


def test_the_loss_falls_as_scores_come_close_to_the_labels():
    labels = [1.0, 0.0, 1.0, 0.0, 1.0]
    right = torch.where(torch.tensor([0.0, *labels])[CELLS] > 0, 6.0, -6.0)[:, None]
    assert loss(right, batch(labels)) < 0.01 < loss(0.1 * right, batch(labels)) < loss(-right, batch(labels))


def test_undetermined_cells_do_not_count():
    labels = [1.0, 0.5, 0.0, 0.5, 1.0]
    logits = random_logits()
    other = logits.clone()
    undetermined = ((CELLS == 2) | (CELLS == 4))[:, None]
    other[undetermined] = 9.0
    torch.testing.assert_close(loss(other, batch(labels)), loss(logits, batch(labels)), rtol=0, atol=0)
    logits.requires_grad_()
    loss(logits, batch(labels)).backward()
    assert not logits.grad[undetermined].any()
    assert (logits.grad[~undetermined] != 0).all()


@pytest.mark.parametrize("labels", [[1.0, 0.5, 0.0, 1.0, 0.0], [0.5] * 5], ids=["some known", "none known"])
def test_gradients_are_finite_and_those_of_the_loss(labels):
    logits = random_logits(dtype=torch.float64)
    value = loss(logits, batch(labels))
    assert torch.isfinite(value)
    logits.requires_grad_()
    loss(logits, batch(labels)).backward()
    # Two-sided differences; the loss is computed in float32, so by a step that is not too small.
    step = 1e-2
    for index in [(0, 0, 0, 0), (0, 0, 0, 2), (0, 0, 1, 1), (1, 0, 2, 2)]:
        shift = torch.zeros_like(logits)
        shift[index] = step
        with torch.no_grad():
            slope = (loss(logits + shift, batch(labels)) - loss(logits - shift, batch(labels))) / (2 * step)
        assert logits.grad[index].item() == pytest.approx(slope.item(), abs=2e-4)


def test_confident_and_wrong_stays_finite():
    logits = torch.full((2, 1, 3, 3), 200.0, requires_grad=True)
    value = loss(logits, batch([0.0] * 5))
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(logits.grad).all()


def small_network(seed: int = 0) -> UNet:
    torch.manual_seed(seed)
    return UNet(2, 3)


def weights(network: UNet) -> np.ndarray:
    return torch.cat([value.flatten().float() for value in network.state_dict().values()]).numpy()


def trained(network: UNet, folder, steps: int = 4, seed: int = 0) -> UNet:
    tiles = SimulatedTiles(seed, size=32)
    return fit(network, folder, tiles, steps=steps, batch_size=2, workers=0, progress=False)


# Of Lightning, about our choices: no worker in a test, few steps, a folder that is there.
pytestmark = pytest.mark.filterwarnings("ignore", "error:.*loss.*:UserWarning")


@pytest.fixture(scope="module")
def short_run(tmp_path_factory):
    """Four steps: folder, network, and its weights before."""
    folder = tmp_path_factory.mktemp("short")
    network = small_network()
    before = weights(network)
    return folder, trained(network, folder), before


def test_a_fit_trains_in_place_and_leaves_a_checkpoint(short_run):
    folder, network, before = short_run
    assert not network.training and next(network.parameters()).device.type == "cpu"
    after = weights(network)
    assert np.isfinite(after).all() and not np.array_equal(after, before)
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 4
    with torch.no_grad():
        assert network(torch.zeros(1, 2, 32, 32)).shape == (1, 1, 32, 32)


def test_the_weights_are_the_averaged_ones(short_run, tmp_path, monkeypatch):
    _, network, _ = short_run
    after_steps = []
    record = lambda module, *_: after_steps.append(weights(module.network))  # noqa: E731
    monkeypatch.setattr(Fit, "on_train_batch_end", record)
    again = trained(small_network(), tmp_path)
    average = after_steps[0]
    for values in after_steps[1:]:
        average = 0.995 * average + 0.005 * values
    assert len(after_steps) == 4
    floats = np.abs(after_steps[-1] - after_steps[0]) < 0.5
    np.testing.assert_allclose(weights(again)[floats], average[floats], atol=1e-6)
    assert np.abs(after_steps[-1] - average)[floats].max() > 1e-4
    np.testing.assert_array_equal(weights(again), weights(network))


def test_another_seed_trains_another_network(short_run, tmp_path):
    _, network, _ = short_run
    assert not np.array_equal(weights(trained(small_network(), tmp_path, seed=1)), weights(network))


def test_a_finished_fit_is_not_repeated(short_run):
    folder, network, _ = short_run
    again = trained(small_network(seed=9), folder)
    np.testing.assert_array_equal(weights(again), weights(network))


class Failing(UNet):
    """Stops a run in its third step."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls == 3:
            raise RuntimeError("the power is off")
        return super().forward(inputs)


def test_a_stopped_fit_goes_on(tmp_path, monkeypatch):
    # Checkpoints every other step instead of every 100.
    every_other = {"every_n_train_steps": 2}
    monkeypatch.setattr(fitting, "ModelCheckpoint", lambda *args, **kw: ModelCheckpoint(*args, **kw | every_other))
    torch.manual_seed(0)
    with pytest.raises(RuntimeError, match="the power is off"):
        trained(Failing(2, 3), tmp_path, steps=4)
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert state["global_step"] == 2
    seeds, steps = [], []
    draw, step = SimulatedTiles.__iter__, Fit.training_step
    monkeypatch.setattr(SimulatedTiles, "__iter__", lambda self: (seeds.append(self.seed), draw(self))[1])
    monkeypatch.setattr(Fit, "training_step", lambda *args: (steps.append(args[0].global_step), step(*args))[1])
    network = trained(small_network(seed=9), tmp_path, steps=4)
    # New tiles, and only the steps that were missing.
    assert seeds == [2] and steps == [2, 3]
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 4
    assert np.isfinite(weights(network)).all() and not network.training


def test_a_run_of_another_length_cannot_go_on(short_run):
    folder, _, _ = short_run
    with pytest.raises(ValueError, match=r"run of 4 steps.*steps=4, or start one of 5"):
        trained(small_network(), folder, steps=5)


def test_enough_steps_lower_the_loss():
    """A network learns one batch by heart."""
    network = small_network()
    tiles = [tile for tile, _ in zip(SimulatedTiles(0, 32), range(4), strict=False)]
    one = collate(tiles)
    schedule = Fit(network, 40, learning_rate=1e-2).configure_optimizers()
    values = []
    for _ in range(40):
        schedule["optimizer"].zero_grad()
        value = loss(network(one.inputs), one)
        value.backward()
        schedule["optimizer"].step()
        schedule["lr_scheduler"]["scheduler"].step()
        values.append(value.item())
    assert values[-1] < 0.8 * values[0]
