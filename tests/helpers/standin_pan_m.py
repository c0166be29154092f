"""A small gold standard in the layout of the real one: five data sets, each with its own way to name files."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass

import numpy as np
import pandas as pd
import tifffile
from numpy.typing import NDArray

ROOT = "gold_standard_labelled"
# Data set: fields of view with the name of their mask, ending of channels, type of masks, channels.
LAYOUT = {
    "codex_colon": ({"fov1": "fov1.ome.tif", "fov10": "fov10.ome.tif"}, ".ome.tif", np.int32, ("CD3", "CD8", "DRAQ5")),
    "mibi_breast": (
        {f"TMA1_R1C{n}": f"TMA1_R1C{n}_whole_cell.tiff" for n in (1, 10)},
        ".tiff",
        np.uint16,
        ("CD3", "ECAD"),
    ),
    "mibi_decidua": (
        {"6_31762_20_1": "6_31762_20_1_segmentation_labels.tiff", "6_31762_20_10": "x_6_31762_20_10.tiff"},
        *(".tif", np.float32, ("CD14", "HLAG")),
    ),
    "vectra_colon": (
        {"a [10,50]_image": "a [10,50]_imagefeature_0.ome.tif", "b [7,5]_x.tif_image": "b [7,5]_x.ome.tif"},
        *(".ome.tif", np.int32, ("Foxp3", "panCK+CK7+CAM5.2")),
    ),
    # One file with all channels for each field of view.
    "vectra_pancreas": ({"s1": "s1_mask.tif", "s2": "s2_mask.tif"}, None, np.int32, ("CD8", "PD-1", "DAPI")),
}
# Channels that nobody labelled.
UNLABELLED = {"DRAQ5", "DAPI"}


@dataclass
class GoldStandard:
    """The files of the archive, the labels, and the ids of all cells of each data set and field of view."""

    files: dict[str, bytes]
    labels: pd.DataFrame
    cells: dict[tuple[str, str], list[int]]
    images: dict[tuple[str, str], NDArray]
    masks: dict[tuple[str, str], NDArray]

    def zip(self) -> bytes:
        return zipped({f"{ROOT}/{name}": content for name, content in self.files.items()})


def tiff(array: NDArray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, photometric="minisblack", **options)
    return file.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def fov(rng: np.random.Generator, n_channels: int, side: int = 72, pitch: int = 12) -> tuple[NDArray, NDArray, NDArray]:
    """Square cells with gaps in their ids; image, labels, and which cells (rows) are bright in which channel."""
    n = side // pitch
    ids = np.sort(rng.choice(5 * n * n, n * n, replace=False) + 1)
    labels = np.kron(ids.reshape(n, n), np.ones((pitch, pitch), int))
    labels[::pitch] = labels[:, ::pitch] = 0
    bright = rng.random((n * n, n_channels)) < 0.4
    index = np.searchsorted(ids, labels)
    light = np.where((labels > 0)[..., None], np.where(bright, 200, 5)[np.minimum(index, n * n - 1)], 2)
    return np.moveaxis(rng.poisson(light), -1, 0).astype(np.uint16), labels, bright


def gold_standard(seed: int = 0) -> GoldStandard:
    """Build it; of each field of view, every fifth cell has no label, and some have one that only leans to a side."""
    rng = np.random.default_rng(seed)
    made = GoldStandard({}, pd.DataFrame(), {}, {}, {})
    rows = []
    for dataset, (fovs, ending, mask_type, channels) in LAYOUT.items():
        for name, mask in fovs.items():
            image, labels, bright = fov(rng, len(channels))
            ids = np.unique(labels[labels > 0])
            key = (dataset, name)
            made.images[key], made.masks[key], made.cells[key] = image, labels, ids.tolist()
            made.files[f"{dataset}/masks/{mask}"] = tiff(labels.astype(mask_type))
            if ending is None:
                metadata = {"axes": "CYX", "Channel": {"Name": list(channels)}}
                made.files[f"{dataset}/fovs/{name}.ome.tif"] = tiff(image, ome=True, metadata=metadata)
            else:
                for channel, plane in zip(channels, image, strict=True):
                    made.files[f"{dataset}/fovs/{name}/{channel}{ending}"] = tiff(plane)
            for j, channel in enumerate(channels):
                if channel not in UNLABELLED:
                    for i, cell in enumerate(ids):
                        if i % 5:
                            activity = int(bright[i, j]) if i % 7 else (2 if bright[i, j] else 3)
                            rows.append((dataset, name, cell, channel, activity))
    # Another channel that only one field of view has, and what macOS leaves behind.
    made.files["mibi_breast/fovs/TMA1_R1C1/CD11c_nuc_exclude.tiff"] = tiff(np.zeros((72, 72), np.uint8))
    made.files["mibi_breast/.DS_Store"] = b"x"
    made.labels = pd.DataFrame(rows, columns=["dataset", "fov", "cell_id", "channel", "activity"])
    made.files["gold_standard_groundtruth.csv"] = made.labels.to_csv(index=False).encode()
    return made
