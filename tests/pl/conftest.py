"""A small image with cells whose scores are known, and figures that are closed again."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from spatialdata.models import TableModel

matplotlib.use("Agg")

IDS = (3, 8, 2**40, 11)
SCORES = (0.25, 1.0, 0.5, np.nan)


def annotated(ids, regions, channels=("DAPI", "CD3"), **layers) -> AnnData:
    obs = pd.DataFrame({"region": pd.Categorical(regions), "instance_id": np.array(ids, np.int64)})
    obs.index = [f"cell{i}" for i in range(len(ids))]
    values = np.zeros((len(ids), len(channels)), np.float32)
    adata = AnnData(values, obs=obs, var=pd.DataFrame(index=list(channels)), layers=layers)
    return TableModel.parse(adata, region=sorted(set(regions)), region_key="region", instance_key="instance_id")


@pytest.fixture
def annotate():
    """Build a table of given cells."""
    return annotated


@pytest.fixture
def labels() -> np.ndarray:
    """Four cells of 10 x 10 with gaps in their ids, and a fifth without a row, on 30 x 40."""
    drawn = np.zeros((30, 40), np.int64)
    drawn[0:10, 0:10], drawn[0:10, 10:20], drawn[10:20, 0:10], drawn[10:20, 20:30] = IDS
    drawn[20:30, 30:40] = 5
    return drawn


@pytest.fixture
def sdata(make_sdata, labels):
    """The cells above, rows in another order, with scores of CD3; and a second field of view with the same ids.

    Clusters: cells 3 and 8 are "p", 2**40 is "q", 11 is in none.
    """
    image = np.random.default_rng(0).integers(1, 100, (2, 30, 40)).astype(np.uint16)
    built = make_sdata({"a": image, "b": image[:, ::-1]}, {"a_cells": labels, "b_cells": labels}, ("DAPI", "CD3"))
    order = [2, 0, 3, 1]
    scores = np.stack([np.full(8, 0.1), [*np.array(SCORES)[order], *[0.9] * 4]], axis=1).astype(np.float32)
    ids = [*np.array(IDS)[order], *IDS]
    table = annotated(ids, ["a_cells"] * 4 + ["b_cells"] * 4, nimbus=scores, gold=(scores > 0.4) * 1.0)
    table.obs["cluster"] = pd.Categorical([{3: "p", 8: "p", 2**40: "q", 11: None}[i] for i in ids])
    built.tables["table"] = table
    return built


@pytest.fixture
def assert_same():
    """Two tables hold the same."""

    def check(found: AnnData, expected: AnnData) -> None:
        pd.testing.assert_frame_equal(found.obs, expected.obs)
        pd.testing.assert_frame_equal(found.var, expected.var)
        for slot in ("layers", "obsm", "varm"):
            ours, theirs = getattr(found, slot), getattr(expected, slot)
            np.testing.assert_equal(*({key: np.asarray(x[key]) for key in x} for x in (ours, theirs)))
        assert repr(found.uns) == repr(expected.uns)

    return check


@pytest.fixture(autouse=True)
def close_figures():
    import matplotlib.pyplot as plt

    # Also those that tests of other folders left.
    plt.close("all")
    yield
    plt.close("all")
