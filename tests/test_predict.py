"""Scores: what they are, and what they do not depend on."""

from functools import partial

import dask.array as da
import numpy as np
import pytest
import scoring
from scoring import FACTORS

predict = partial(scoring.predict, precision="float32", device="cpu")
# Float32 sums in another order; the scores of these networks differ by about 0.02 from cell to cell.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def odd(tissue):
    return tissue((203, 157), 3, seed=1)


@pytest.mark.parametrize(
    "shape, pixel_size, tta",
    [
        ((192, 128), 0.5, False),
        ((103, 77), 0.38, True),
        ((103, 77), 0.5, False),
        ((77, 103), 1.0, True),
        ((101, 57), 1.7, False),
    ],
)
def test_scores_are_those_of_a_naive_reference(
    tissue, make_sdata, naive_scores, deep, deep_network, shape, pixel_size, tta, no_warning
):
    image, labels = tissue(shape, 3, seed=2)
    adata = predict(make_sdata(image, labels), deep, pixel_size=pixel_size, tta=tta)
    expected = naive_scores(deep_network, image, labels, FACTORS.values(), pixel_size, tta)
    assert expected.std(axis=0).min() > 0.005
    np.testing.assert_allclose(adata.layers["nimbus"], expected, atol=TOLERANCE)
    assert adata.layers["nimbus"].dtype == np.float32


def test_expression_area_and_position_are_those_of_the_pixels(odd, make_sdata, small):
    image, labels = odd
    adata = predict(make_sdata(image, labels), small, tile_size=16)
    ids = adata.obs["instance_id"].to_numpy()
    np.testing.assert_array_equal(ids, np.unique(labels[labels > 0]))
    for row in (0, len(ids) // 2, len(ids) - 1):
        cell = labels == ids[row]
        np.testing.assert_allclose(adata.layers["integrated_expression"][row], image[:, cell].mean(axis=1), rtol=1e-6)
        assert adata.obs["area"].iloc[row] == pytest.approx(cell.sum() * 0.25)
        y, x = np.nonzero(cell)
        np.testing.assert_allclose(adata.obsm["spatial"][row], [x.mean() + 0.5, y.mean() + 0.5], rtol=1e-12)
    np.testing.assert_array_equal(adata.X, adata.layers["integrated_expression"])


@pytest.mark.parametrize(
    "settings, tiling",
    [
        ({"pixel_size": 0.38}, {"tile_size": 16}),
        ({"pixel_size": 0.5}, {"tile_size": 100, "batch_size": 1}),
        ({"pixel_size": 0.5, "tta": True}, {"tile_size": 48, "batch_size": 3}),
        ({"pixel_size": 1.0}, {"tile_size": 48, "batch_size": 3}),
        ({"pixel_size": 1.7}, {"tile_size": 100}),
    ],
    ids=str,
)
def test_tile_and_batch_size_do_not_matter(odd, make_sdata, deep, settings, tiling, no_warning):
    image, labels = odd
    sdata = make_sdata(image[:2], labels)
    whole = predict(sdata, deep, **settings).layers["nimbus"].copy()
    np.testing.assert_allclose(predict(sdata, deep, **settings, **tiling).layers["nimbus"], whole, atol=TOLERANCE)


def test_chunks_do_not_matter_and_the_same_call_gives_the_same_bytes(odd, make_sdata, small):
    image, labels = odd
    settings = {"tile_size": 48, "normalization": None, "tta": True}
    plain = predict(make_sdata(image, labels), small, **settings)
    for chunks in ((3, 17, 157), (2, 64, 50)):
        lazy = make_sdata(da.from_array(image, chunks), da.from_array(labels, chunks[1:]))
        chunked = predict(lazy, small, **settings)
        assert chunked.layers["nimbus"].tobytes() == plain.layers["nimbus"].tobytes()
        assert chunked.varm["nimbus_normalization"].equals(plain.varm["nimbus_normalization"])


@pytest.mark.parametrize("normalization", [FACTORS, None], ids=["given", "measured"])
def test_other_channels_do_not_matter(odd, make_sdata, small, normalization):
    everything = predict(make_sdata(*odd), small, normalization=normalization)
    for channels in (["CD3"], ["CD20", "DAPI"]):
        some = predict(make_sdata(*odd), small, normalization=normalization, channels=channels)
        assert list(some.var_names) == channels
        np.testing.assert_allclose(some.layers["nimbus"], everything[:, channels].layers["nimbus"], atol=TOLERANCE)


@pytest.mark.filterwarnings("ignore:The normalisation of .* rests on a handful")
def test_the_types_of_pixels_and_labels_do_not_matter(tissue, make_sdata, small):
    image, labels = tissue((60, 70), 2)
    image = np.minimum(image, 250)
    labels = np.searchsorted(np.unique(labels), labels)
    assert labels.max() < 128
    plain = predict(make_sdata(image, labels), small, normalization=None)
    pixels = ["uint8", "int16", ">u2", "int32", "uint64", "float16", "float32", "float64"]
    ids = ["uint8", "int16", "uint16", "uint32", "int32", "uint64", ">i4", "uint8"]
    for of_pixels, of_ids in zip(pixels, ids, strict=True):
        other = predict(make_sdata(image.astype(of_pixels), labels.astype(of_ids)), small, normalization=None)
        # Factors of floats are within 5e-5.
        np.testing.assert_allclose(other.layers["nimbus"], plain.layers["nimbus"], atol=1e-4)
        np.testing.assert_array_equal(other.layers["integrated_expression"], plain.layers["integrated_expression"])
    yes_or_no = predict(make_sdata(image > 50, labels), small, normalization=None)
    assert (yes_or_no.varm["nimbus_normalization"]["factor"] == 1).all() and np.isfinite(
        yes_or_no.layers["nimbus"]
    ).all()


@pytest.mark.parametrize("pixel_size", [0.5, 1.0])
def test_the_same_pixels_cut_into_smaller_ones_give_the_same_scores(odd, make_sdata, deep, pixel_size):
    """Cells lose a boundary of one model pixel, however fine the image is; the model's are 1 um wide."""
    whole = predict(make_sdata(*odd), deep, pixel_size=pixel_size).layers["nimbus"]
    for times in (2, 3):
        image, labels = (pixels.repeat(times, -2).repeat(times, -1) for pixels in odd)
        fine = predict(make_sdata(image, labels), deep, pixel_size=pixel_size / times, tile_size=48)
        np.testing.assert_allclose(fine.layers["nimbus"], whole, atol=TOLERANCE)


@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (90, 1), (2, 3), (5, 250), (40, 31)])
@pytest.mark.filterwarnings("ignore:.*so small that no pixel is left", "ignore:With a pixel size of")
def test_images_of_any_size(make_sdata, naive_scores, deep, deep_network, shape):
    image = np.random.default_rng(5).integers(1, 250, (1, *shape)).astype(np.uint8)
    labels = np.ones(shape, np.int32)
    labels[:, shape[1] // 2 + 1 :] = 7
    for pixel_size, tta in ((0.38, True), (1.7, False)):
        adata = predict(make_sdata(image, labels), deep, pixel_size=pixel_size, tta=tta, tile_size=64)
        expected = naive_scores(deep_network, image, labels, [120.0], pixel_size, tta)
        np.testing.assert_allclose(adata.layers["nimbus"], expected, atol=TOLERANCE)
