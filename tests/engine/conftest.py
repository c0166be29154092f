"""Regions of small images."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from nimbus_sd.spatial import Region, find_regions


@pytest.fixture
def regions(make_sdata) -> Callable[..., list[Region]]:

    def build(*images: np.ndarray, labels: Sequence[np.ndarray] | None = None, **settings) -> list[Region]:
        labels = [np.ones(image.shape[1:], np.int32) for image in images] if labels is None else labels
        named = {f"fov{i}": image for i, image in enumerate(images)}
        cells = {f"fov{i}_cells": one for i, one in enumerate(labels)}
        return find_regions(make_sdata(named, cells), **{"pixel_size": 0.5, **settings})

    return build
