"""Every fault of Nimbus-Inference 0.0.5 that was shown by experiment, tried on us. One test per fault, named after it.

Faults of its trainer are tested with our training, those of its download of weights and of its eight views in
tests/models; that intensities are clipped, and every parameter matters, in test_predict.py; labels
above 2**31 in test_predict_table.py and tests/pixels/test_sums.py.
"""

import tracemalloc

import dask.array as da
import numpy as np
import pytest
from scoring import predict


@pytest.mark.filterwarnings("ignore:.*so small that no pixel is left")
def test_sides_not_a_multiple_of_16_stretch_nothing(tissue, make_sdata, deep):
    """Cells far from the cut keep their score, to the last digits, wherever the image ends."""
    image, labels = tissue((256, 224), 1, seed=3)
    whole = predict(make_sdata(image, labels), deep, pixel_size=1.0)
    for cut in (1, 15, 31):
        part = predict(make_sdata(image[:, :-cut, :-cut], labels[:-cut, :-cut]), deep, pixel_size=1.0)
        # The network reaches at most 107 pixels, the padding at most 31 more.
        far = (part.obsm["spatial"] < np.array([224, 256]) - 140).all(axis=1)
        assert far.sum() > 20
        names = part.obs_names[far]
        np.testing.assert_allclose(part[names].layers["nimbus"], whole[names].layers["nimbus"], atol=1e-5)


def test_normalisation_takes_every_image_and_nothing_random(tissue, make_sdata, small, tmp_path, monkeypatch):
    """Twelve images, the last of them far brighter: two runs agree, and the bright one counts. No file is left."""
    monkeypatch.chdir(tmp_path)
    fovs = [tissue((40, 40), 1, seed=i) for i in range(12)]
    images = {f"f{i:02}": image * (50 if i == 11 else 1) for i, (image, _) in enumerate(fovs)}
    labels = {f"f{i:02}_cells": cells for i, (_, cells) in enumerate(fovs)}
    runs = [predict(make_sdata(images, labels), small, normalization=None) for _ in range(2)]
    factor = runs[0].varm["nimbus_normalization"].loc["DAPI", "factor"]
    alone = [np.quantile(image[image > 0], 0.999) for image in images.values()]
    assert factor == pytest.approx(np.mean(alone), rel=1e-12)
    np.testing.assert_array_equal(runs[0].layers["nimbus"], runs[1].layers["nimbus"])
    # New data do not get old factors.
    darker = predict(make_sdata({"f00": images["f00"]}, {"f00_cells": labels["f00_cells"]}), small, normalization=None)
    assert darker.varm["nimbus_normalization"].loc["DAPI", "factor"] == pytest.approx(alone[0], rel=1e-12)
    assert not list(tmp_path.iterdir())


def test_images_of_similar_names_keep_their_own_pixels(tissue, make_sdata, small):
    """Names that are parts of each other, and equal ids in all of them."""
    names = ["fov", "fov_1", "fov_10", "1_fov"]
    fovs = {name: tissue((40, 40), 1, seed=i) for i, name in enumerate(names)}
    labels = {name: np.minimum(cells, 1) for name, (_, cells) in fovs.items()}
    of_all = {n: i for n, (i, _) in fovs.items()}, {f"{n}_cells": cells for n, cells in labels.items()}
    together = predict(make_sdata(*of_all), small)
    for name in names:
        alone = predict(make_sdata({name: fovs[name][0]}, {f"{name}_cells": labels[name]}), small)
        (row,) = np.flatnonzero(together.obs["region"] == f"{name}_cells")
        assert together.obs_names[row] == f"{name}_cells_1"
        np.testing.assert_array_equal(together.layers["nimbus"][row], alone.layers["nimbus"][0])
    assert len(np.unique(together.layers["nimbus"])) == 4


def test_a_slide_is_not_loaded(make_sdata, small):
    """16 channels of 5000 x 5000 pixels: of 800 MB a fraction is in memory, and no chunk far from the cells is read."""
    shape, side = (16, 5000, 5000), 1000
    names = tuple(f"c{i}" for i in range(shape[0]))
    read = set()

    def block(block_info=None):
        read.add(block_info[None]["chunk-location"][1:])
        return np.full((1, side, side), 7, np.uint16)

    chunks = ((1,) * shape[0], (side,) * 5, (side,) * 5)
    image = da.map_blocks(block, chunks=chunks, dtype=np.uint16, meta=np.zeros((0, 0, 0), np.uint16))
    labels = da.zeros(shape[1:], dtype=np.int32, chunks=side)
    labels[4500:4520, 3500:3520] = 1
    sdata = make_sdata(image, labels, names)
    tracemalloc.start()
    adata = predict(sdata, small, normalization=dict.fromkeys(names, 200.0), tile_size=256)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert adata.shape == (1, 16) and np.isfinite(adata.layers["nimbus"]).all()
    assert peak < np.prod(shape) * 2 / 3
    # To see that no channel is empty, the corner; then the tile with the cell.
    assert {(y, x) for y, x in read if y > 2 or x > 2} <= {(3, 2), (3, 3), (4, 2), (4, 3)}
