"""The network against the published layout and its reference instance."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from nimbus_sd.models import Scorer, UNet, load


def test_same_scores_as_the_published_implementation(reference):
    state = torch.load(reference / "unet_root8_random.pt", weights_only=True, map_location="cpu")
    io, model = np.load(reference / "unet_root8_io.npz"), load(reference / "unet_root8_random.pt")
    assert list(model.network.state_dict()) == list(state) and (model.card.root_filters, model.card.depth) == (8, 5)
    with torch.inference_mode():
        scores = model.network(torch.from_numpy(io["input"])).sigmoid().numpy()
    scorer = Scorer(model, device="cpu", tta=False)
    folded = [scorer(image[None], interior) for image, interior in io["input"]]
    # Logits of this instance reach 100 and change by 100 from pixel to pixel. The reference's own rounding is
    # 2.3e-5 at worst against float64, and 3e-7 on average.
    for given in (scores, folded):
        difference = np.abs(given - io["output"])
        assert difference.max() < 6e-5 and difference.mean() < 1e-6


def test_published_size_and_names():
    with torch.device("meta"):
        network = UNet(64, 5)
    state = network.state_dict()
    assert sum(p.numel() for p in network.parameters()) == 35_607_809
    assert sum(b.numel() for b in network.buffers()) == 11_794
    expected = {
        "contracting_layers.6.bn_2.running_var": (512,),
        "bottle_neck.conv2d_1.weight": (1024, 1024, 3, 3),
        "expanding_layers.0.upconv.weight": (1024, 512, 2, 2),
        "expanding_layers.11.bn_1.num_batches_tracked": (),
    }
    assert {key: tuple(state[key].shape) for key in expected} == expected and len(state) == 154


@pytest.mark.parametrize(("root_filters", "depth", "patch"), [(1, 2, 1), (2, 5, 1), (3, 3, 2), (2, 2, 3)])
def test_shape_gradient_and_architecture(root_filters, depth, patch, tmp_path):
    network = UNet(root_filters, depth, "zeros", patch)
    stride = network.stride
    assert stride == patch * 2 ** (depth - 1)
    logits = network(torch.rand(2, 2, 2 * stride, 3 * stride))
    assert logits.shape == (2, 1, 2 * stride, 3 * stride)
    logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    torch.save(network.state_dict(), tmp_path / "x.pt")
    card = load(tmp_path / "x.pt").card
    assert (card.root_filters, card.depth, card.patch) == (root_filters, depth, patch)


def test_patches_give_the_first_level_every_pixel():
    """With weights that average a patch and repeat the answer it is the plain network on an image of half the size."""
    torch.manual_seed(0)
    plain, patched = UNet(3, 3).eval(), UNet(3, 3, patch=2).eval()
    state, first = dict(plain.state_dict()), "contracting_layers.0.conv2d_0.weight"
    state[first] = state[first].repeat_interleave(4, 1) / 4
    for last in ("final_conv.weight", "final_conv.bias"):
        state[last] = state[last].repeat_interleave(4, 0)
    patched.load_state_dict(state)
    x = torch.rand(1, 2, 32, 48)
    with torch.inference_mode():
        expected = plain(functional.avg_pool2d(x, 2)).repeat_interleave(2, 2).repeat_interleave(2, 3)
        torch.testing.assert_close(patched(x), expected, rtol=1e-4, atol=1e-5)


def test_padding_matters_at_the_edge_only_within_reach():
    torch.manual_seed(0)
    reflect, zeros = UNet(2, 2, "reflect").eval(), UNet(2, 2, "zeros").eval()
    zeros.load_state_dict(reflect.state_dict())
    x = torch.rand(1, 2, 64, 64)
    with torch.inference_mode():
        difference = (reflect(x) - zeros(x)).abs()[0, 0]
    assert difference[0].max() > 1e-3
    # Reach of depth 2: 6 * 2 - 4 pixels plus the pooling phase.
    assert difference[9:-9, 9:-9].max() < 1e-6


@pytest.mark.parametrize("shape", [(1, 2, 8, 15), (1, 2, 4, 8), (1, 3, 8, 8), (2, 8, 8)])
def test_other_shapes_are_refused(network, shape):
    with pytest.raises(ValueError, match="multiples of 4 and at least 8"):
        network(torch.zeros(shape))


@pytest.mark.parametrize("wrong", [{"root_filters": 0}, {"depth": 9}, {"padding": "same"}, {"patch": 0}], ids=str)
def test_other_parameters_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        UNet(**wrong)
