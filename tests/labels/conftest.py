"""A small table of two regions with ids that have gaps, and an assignment matrix."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from spatialdata.models import TableModel

CHANNELS = ("CD3", "CD20", "Ki 67/x")


def table_of(cells: dict[str, list[int]], channels=CHANNELS, **layers) -> AnnData:
    rows = [(region, cell) for region, ids in cells.items() for cell in ids]
    obs = pd.DataFrame(rows, columns=["region", "instance_id"], index=[f"c{i}" for i in range(len(rows))])
    adata = AnnData(
        np.zeros((len(rows), len(channels)), np.float32),
        obs=obs.astype({"region": "category"}),
        var=pd.DataFrame(index=list(channels)),
        layers=layers,
    )
    return TableModel.parse(adata, region=sorted(cells), region_key="region", instance_key="instance_id")


@pytest.fixture(name="table_of")
def _table_of():
    return table_of


@pytest.fixture
def adata() -> AnnData:
    """Six cells of two regions, with the same ids in both; the last one has no type."""
    adata = table_of({"a": [1, 5, 2**40], "b": [1, 5, 9]})
    adata.obs["cell_type"] = pd.Categorical(["T", "B", "other", "T", "B", None])
    return adata


@pytest.fixture
def matrix() -> pd.DataFrame:
    return pd.DataFrame([(1, 0, 0.5), (0, 1, 0.5), (0, 0, 0.5)], ["T", "B", "other"], list(CHANNELS))
