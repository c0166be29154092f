"""A small simulated tissue whose truth is known."""

from __future__ import annotations

from functools import partial

from spatialdata import SpatialData

from nimbus_sd.simulate import Detector, Marker, Segmentation, simulate

_membrane = partial(Marker, "membrane", fill=0.15)
_PANEL = {
    "DAPI": (Marker("nucleus", 1.0, spread=0.25, dim_share=0.0, unspecific=0.01), Detector(gain=800, background=0.03)),
    "CD45": (_membrane(0.5, unspecific=0.05, width=0.6), Detector(gain=200, background=0.08, tail=0.1)),
    "CD3": (_membrane(0.25, spread=0.4, dim_share=0.2, unspecific=0.08), Detector(gain=150, background=0.05)),
    "CD8": (_membrane(0.1, patchiness=0.6, dim_share=0.1), Detector(gain=100, background=0.1, clumps=0.5)),
    "CD20": (_membrane(0.2, width=0.8, unspecific=0.03), Detector(gain=300, background=0.03, blur=0.7)),
    "CD68": (Marker("granules", 0.1, spread=0.5), Detector(counting=True, gain=6, background=0.01, blur=0.3)),
    "PanCK": (Marker("cytoplasm", 0.2, patchiness=0.6, unspecific=0.15), Detector(gain=400, background=0.25)),
    "Ki67": (Marker("nucleus", 0.04, clustering=0.0, patchiness=0.8), Detector(gain=60, background=0.05, hot=1e-4)),
}
_TYPES = {
    "CD4 T cell": (1.0, ("DAPI", "CD45", "CD3")),
    "CD8 T cell": (0.8, ("DAPI", "CD45", "CD3", "CD8")),
    "B cell": (1.1, ("DAPI", "CD45", "CD20")),
    "macrophage": (0.6, ("DAPI", "CD45", "CD68")),
    "epithelium": (1.2, ("DAPI", "PanCK")),
    "other": (0.7, ("DAPI",)),
}


def example() -> SpatialData:
    """Simulate two fields of view of 512 x 512 pixels (0.5 um) with 8 markers, the same ones each time.

    The markers sit on membranes (CD45, CD3, CD8, CD20), in nuclei (DAPI, Ki67), the cytoplasm (PanCK) or granules
    (CD68, taken by ion counting), are expressed by 4 % to all of the cells, and differ in noise and background.

    Returns
    -------
    SpatialData
        Images ``fov1`` and ``fov2``, labels ``fov1_labels`` and ``fov2_labels``, and a table of about 1,600 cells with
        the truth in ``layers["gold"]`` and ``obs["cell_type"]``; see :func:`nimbus_sd.simulate.simulate`.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> ns.datasets.example().tables["table"].n_vars
    8
    """
    segmentation = Segmentation("cell", wobble=0.3, merged=0.02, split=0.02)
    return simulate(_PANEL, _TYPES, n_regions=2, radius=5.0, segmentation=segmentation, rng=38)
