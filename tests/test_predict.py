"""Scores: what they are, and what they do not depend on."""

import dask.array as da
import numpy as np
import pytest

import nimbus_sd as ns

FACTORS = {"DAPI": 120.0, "CD3": 100.0, "CD20": 90.0}
# Float32 sums in another order; the scores of these networks differ by about 0.02 from cell to cell.
TOLERANCE = 1e-5


def predict(sdata, model, **settings):
    defaults = {"normalization": FACTORS, "tta": False, "precision": "float32", "device": "cpu", "progress": False}
    return ns.predict(sdata, model=model, **defaults | settings)


@pytest.fixture(scope="module")
def odd(tissue):
    return tissue((203, 157), 3, seed=1)


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize(
    "shape, pixel_size",
    [((192, 128), 0.5), ((203, 157), 0.38), ((203, 157), 0.5), ((157, 203), 1.0), ((101, 57), 1.7)],
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


def test_expression_area_and_position_are_those_of_the_pixels(odd, make_sdata, deep):
    image, labels = odd
    adata = predict(make_sdata(image, labels), deep, pixel_size=0.5, tile_size=16)
    ids = adata.obs["instance_id"].to_numpy()
    np.testing.assert_array_equal(ids, np.unique(labels[labels > 0]))
    for row in (0, len(ids) // 2, len(ids) - 1):
        own = labels == ids[row]
        np.testing.assert_allclose(adata.layers["integrated_expression"][row], image[:, own].mean(axis=1), rtol=1e-6)
        assert adata.obs["area"].iloc[row] == pytest.approx(own.sum() * 0.25)
        y, x = np.nonzero(own)
        np.testing.assert_allclose(adata.obsm["spatial"][row], [x.mean() + 0.5, y.mean() + 0.5], rtol=1e-12)
    np.testing.assert_array_equal(adata.X, adata.layers["integrated_expression"])


@pytest.mark.parametrize("pixel_size, sizes", [(0.38, (16, 48)), (0.5, (48, 100)), (1.0, (48, 100)), (1.7, (100,))])
def test_tile_size_does_not_matter(odd, make_sdata, deep, pixel_size, sizes, no_warning):
    sdata = make_sdata(*odd)
    whole = predict(sdata, deep, pixel_size=pixel_size).layers["nimbus"].copy()
    for tile_size in sizes:
        tiled = predict(sdata, deep, pixel_size=pixel_size, tile_size=tile_size)
        np.testing.assert_allclose(tiled.layers["nimbus"], whole, atol=TOLERANCE)


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 1},
        {"batch_size": 3},
        {"batch_size": 1, "tta": True},
        {"batch_size": 3, "tta": True, "tile_size": 48},
        {"tta": True, "tile_size": 100},
    ],
    ids=str,
)
def test_batch_size_does_not_matter(odd, make_sdata, deep, settings):
    image, labels = odd
    sdata = make_sdata(image[:2], labels)
    plain = predict(sdata, deep, pixel_size=0.5, tta=settings.get("tta", False)).layers["nimbus"].copy()
    other = predict(sdata, deep, pixel_size=0.5, **{"tta": False} | settings).layers["nimbus"]
    np.testing.assert_allclose(other, plain, atol=TOLERANCE)


@pytest.mark.parametrize("chunks", [(1, 203, 157), (3, 17, 157), (2, 64, 50)])
def test_chunks_do_not_matter(odd, make_sdata, deep, chunks):
    image, labels = odd
    plain = predict(make_sdata(image, labels), deep, pixel_size=0.5, tile_size=48, normalization=None)
    lazy = make_sdata(da.from_array(image, chunks), da.from_array(labels, chunks[1:]))
    chunked = predict(lazy, deep, pixel_size=0.5, tile_size=48, normalization=None)
    np.testing.assert_array_equal(chunked.layers["nimbus"], plain.layers["nimbus"])
    np.testing.assert_array_equal(chunked.varm["nimbus_normalization"], plain.varm["nimbus_normalization"])


@pytest.mark.parametrize("normalization", [FACTORS, None], ids=["given", "measured"])
def test_other_channels_do_not_matter(odd, make_sdata, deep, normalization):
    everything = predict(make_sdata(*odd), deep, pixel_size=0.5, normalization=normalization)
    for channels in (["CD3"], ["CD20", "DAPI"]):
        some = predict(make_sdata(*odd), deep, pixel_size=0.5, normalization=normalization, channels=channels)
        assert list(some.var_names) == channels
        np.testing.assert_allclose(some.layers["nimbus"], everything[:, channels].layers["nimbus"], atol=TOLERANCE)


@pytest.mark.parametrize("tta", [False, True])
def test_the_same_call_gives_the_same_bytes(odd, make_sdata, deep, tta):
    first, second = (
        predict(make_sdata(*odd), deep, pixel_size=0.5, tile_size=48, tta=tta, normalization=None) for _ in range(2)
    )
    assert first.layers["nimbus"].tobytes() == second.layers["nimbus"].tobytes()
    assert first.varm["nimbus_normalization"].equals(second.varm["nimbus_normalization"])


@pytest.mark.parametrize("dtype", ["uint8", "int16", ">u2", "int32", "uint64", "float16", "float32", "float64"])
def test_the_type_of_the_pixels_does_not_matter(tissue, make_sdata, deep, dtype):
    image, labels = tissue((60, 70), 2)
    image = np.minimum(image, 250)
    plain = predict(make_sdata(image, labels), deep, pixel_size=0.5, normalization=None)
    other = predict(make_sdata(image.astype(dtype), labels), deep, pixel_size=0.5, normalization=None)
    # Factors of floats are within 5e-5.
    np.testing.assert_allclose(other.layers["nimbus"], plain.layers["nimbus"], atol=1e-4)
    np.testing.assert_array_equal(other.layers["integrated_expression"], plain.layers["integrated_expression"])


@pytest.mark.filterwarnings("ignore:The normalisation of .* rests on a handful")
def test_yes_or_no_pixels(tissue, make_sdata, deep):
    image, labels = tissue((60, 70), 1)
    adata = predict(make_sdata(image > 50, labels), deep, pixel_size=0.5, normalization=None)
    assert adata.varm["nimbus_normalization"].loc["DAPI", "factor"] == 1
    assert np.isfinite(adata.layers["nimbus"]).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (90, 1), (2, 3), (5, 250), (40, 31)])
@pytest.mark.parametrize("pixel_size", [0.38, 1.7])
@pytest.mark.filterwarnings("ignore:.*so small that no pixel is left", "ignore:With a pixel size of")
def test_images_of_any_size(make_sdata, naive_scores, deep, deep_network, shape, pixel_size):
    rng = np.random.default_rng(5)
    image = rng.integers(1, 250, (1, *shape)).astype(np.uint8)
    labels = np.ones(shape, np.int32)
    labels[:, shape[1] // 2 + 1 :] = 7
    for tta in (False, True):
        adata = predict(make_sdata(image, labels), deep, pixel_size=pixel_size, tta=tta, tile_size=64)
        expected = naive_scores(deep_network, image, labels, [120.0], pixel_size, tta)
        np.testing.assert_allclose(adata.layers["nimbus"], expected, atol=TOLERANCE)


@pytest.mark.filterwarnings("ignore:With a pixel size of")
def test_one_pixel_cells_and_a_cell_that_fills_the_image(make_sdata, naive_scores, deep, deep_network):
    rng = np.random.default_rng(6)
    image = rng.integers(1, 250, (1, 48, 64)).astype(np.uint8)
    labels = np.arange(1, 48 * 64 + 1).reshape(48, 64)
    with pytest.warns(UserWarning, match="3072 of 3072 cells are so small"):
        adata = predict(make_sdata(image, labels), deep, pixel_size=0.5)
    expected = naive_scores(deep_network, image, labels, [120.0], 0.5)
    np.testing.assert_allclose(adata.layers["nimbus"], expected, atol=TOLERANCE)
    whole = predict(make_sdata(image, np.ones_like(labels)), deep, pixel_size=0.5)
    # The mean of all pixels, two by two of which share a score.
    expected = naive_scores(deep_network, image, np.ones_like(labels), [120.0], 0.5)
    np.testing.assert_allclose(whole.layers["nimbus"], expected, atol=TOLERANCE)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "uint32", "int64", "uint64", ">i4"])
def test_the_type_of_the_labels_does_not_matter(tissue, make_sdata, small, dtype):
    image, labels = tissue((60, 60), 1)
    labels = np.where(labels > 0, np.searchsorted(np.unique(labels), labels), 0)
    assert labels.max() < 128
    plain = predict(make_sdata(image, labels), small, pixel_size=0.5)
    other = predict(make_sdata(image, labels.astype(dtype)), small, pixel_size=0.5)
    np.testing.assert_array_equal(other.layers["nimbus"], plain.layers["nimbus"])


@pytest.mark.filterwarnings("ignore:This processor emulates bfloat16")
def test_bfloat16_is_within_a_hundredth(odd, make_sdata, deep):
    exact, rounded = (
        predict(make_sdata(*odd), deep, pixel_size=0.5, precision=precision).layers["nimbus"]
        for precision in ("float32", "bfloat16")
    )
    assert 0 < np.abs(rounded - exact).max() < 0.01
