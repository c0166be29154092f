"""Labels and settings with which training takes a second."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import ndimage
from spatialdata import SpatialData
from spatialdata.models import TableModel

import nimbus_sd as ns
from nimbus_sd.train import Augmentation, Recipe

#: Half of the images' resolution.
CARD = replace(ns.models.PUBLISHED, root_filters=2, depth=3, pixel_size=1.0)
SMALL = {"root_filters": 2, "depth": 3, "naive_steps": 4, "robust_steps": 4, "batch_size": 2, "validate_every": 2}
RECIPE = Recipe(**SMALL, learning_rate=1e-2, augmentation=Augmentation(elastic=0, blur=0))
EXACT = Augmentation(0, 0, 0, 0, 0, 0, 0)
GIVEN = {"train": ["r0_cells", "r1_cells"], "validation": ["r2_cells"], "test": ["r3_cells"]}


def with_silver(sdata: SpatialData, channels: tuple[str, ...] = ("DAPI", "CD3")) -> SpatialData:
    """Add a table: a cell is positive where its mean is above that of the region's cells."""
    obs, labels = [], []
    for key in sdata.labels:
        masks = sdata.labels[key].to_numpy()
        ids = np.unique(masks[masks > 0])
        means = [ndimage.mean(channel, masks, ids) for channel in sdata.images[key.removesuffix("_cells")].to_numpy()]
        labels.append(np.stack([mean > mean.mean() for mean in means], axis=1).astype(np.float32))
        obs.append(pd.DataFrame({"region": key, "instance_id": ids, "patient": f"p{len(obs) // 2}"}))
    frame = pd.concat(obs, ignore_index=True)
    frame["region"] = frame["region"].astype("category")
    frame.index = frame.index.astype(str)
    silver = np.concatenate(labels)
    table = AnnData(np.zeros_like(silver), obs=frame, var=pd.DataFrame(index=list(channels)), layers={"silver": silver})
    annotation = {"region": list(sdata.labels), "region_key": "region", "instance_key": "instance_id"}
    sdata.tables["table"] = TableModel.parse(table, **annotation)
    return sdata
