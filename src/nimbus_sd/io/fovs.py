"""Folders of fields of view and their masks, as SpatialData."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel
from spatialdata.transformations import BaseTransformation, Identity, Scale

from nimbus_sd.io.images import find_fovs, read_image
from nimbus_sd.io.masks import find_masks, read_mask, relative_scale
from nimbus_sd.io.tiff import Tiff
from nimbus_sd.spatial import is_micrometre


def read_fovs(
    images: str | Path,
    masks: str | Path | None = None,
    *,
    pixel_size: float | None = None,
    channels: Sequence[str] | None = None,
    mask_pattern: str | None = None,
) -> SpatialData:
    """Read fields of view and their cell masks from TIFF files, lazily.

    Parameters
    ----------
    images
        One of

        - a folder with a folder for each field of view, which holds one TIFF file for each channel
          (``fov1/CD3.tiff``; the file's name is the channel's name);
        - a folder with a multi-channel TIFF or OME-TIFF file for each field of view (``fov1.ome.tif``);
        - one field of view: such a folder, or such a file.
    masks
        A folder of TIFF files, or one file for one field of view. In a folder, the mask of ``fov1`` is the
        file whose name contains ``fov1`` (and does not go on with another digit); of several, the one that is
        just ``fov1``, else the one that begins with ``fov1_``. Where there is none, a name such as
        ``fov1.tif_image`` counts up to the ``.tif``. Masks hold whole numbers as labels, 0 = no cell, or are
        24-bit RGB as QuPath writes them (label = R * 65536 + G * 256 + B). None reads images only.
    pixel_size
        um per pixel of the images. None takes it from OME metadata, where there is any.
    channels
        Of multi-channel files, the names of all channels in the file's order (in place of those in OME
        metadata). Of folders, the channels to read, in this order; other files are left out. None takes all.
    mask_pattern
        File name of the masks, in which ``{fov}`` stands for the field of view, and ``*`` for anything:
        ``"{fov}_whole_cell.tiff"``. None goes by the rule above.

    Returns
    -------
    SpatialData
        For each field of view, an image ``<fov>`` and labels ``<fov>_labels``, both in a coordinate system
        ``<fov>`` in pixels of the image, and, where the pixel size is known, in ``<fov>_um``. A mask may be
        finer or coarser than its image by a whole factor. In names, all but letters, digits, ``_``, ``-`` and
        ``.`` is replaced by ``_``.

    Raises
    ------
    FileNotFoundError
        A path does not exist, or there are no TIFF files.
    TypeError
        Something else than a path was given, such as a list of files.
    ValueError
        Masks are missing or not clear; sizes of files do not fit; channels differ between fields of view;
        pixels are not square; names clash.

    Examples
    --------
    >>> import tempfile, numpy as np, tifffile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for fov in ("fov1", "fov2"):
    ...     for channel in ("CD3", "CD8"):
    ...         (folder / "images" / fov).mkdir(parents=True, exist_ok=True)
    ...         tifffile.imwrite(folder / "images" / fov / f"{channel}.tiff", np.ones((64, 64), np.float32))
    ...     (folder / "masks").mkdir(exist_ok=True)
    ...     tifffile.imwrite(folder / "masks" / f"{fov}_whole_cell.tiff", np.ones((64, 64), np.int32))
    >>> sdata = read_fovs(folder / "images", folder / "masks", pixel_size=0.5)
    >>> list(sdata.images), list(sdata.labels)
    (['fov1', 'fov2'], ['fov1_labels', 'fov2_labels'])
    """
    folder, mask_path = _path(images, "images"), None if masks is None else _path(masks, "masks")
    for path in (folder, mask_path):
        if path is not None and not path.exists():
            raise FileNotFoundError(f"{path} does not exist.")
    fovs = {name: read_image(path, channels) for name, path in find_fovs(folder).items()}
    _check_channels(fovs)
    names = element_names(fovs)
    mask_files = {} if mask_path is None else find_masks(mask_path, list(fovs), mask_pattern)

    elements: dict[str, dict[str, object]] = {"images": {}, "labels": {}}
    for fov, image in fovs.items():
        name, size = names[fov], _pixel_size(image, pixel_size)
        elements["images"][name] = Image2DModel.parse(
            image.pixels,
            dims=("c", "y", "x"),
            c_coords=image.channels,
            transformations=_transformations(name, 1.0, size),
        )
        if fov in mask_files:
            mask = read_mask(mask_files[fov])
            scale = relative_scale(image, mask, mask_files[fov])
            elements["labels"][f"{name}_labels"] = Labels2DModel.parse(
                mask, dims=("y", "x"), transformations=_transformations(name, scale, size)
            )
    return SpatialData(**elements)


def _path(given: str | Path, argument: str) -> Path:
    if not isinstance(given, str | os.PathLike):
        raise TypeError(
            f"`{argument}` is a {type(given).__name__}; it must be one path, of a folder or of a single file. Put "
            "several files into a folder, or read them one by one."
        )
    return Path(given)


def _pixel_size(image: Tiff, pixel_size: float | None) -> float | None:
    if pixel_size is not None:
        if not 0 < pixel_size < np.inf:
            raise ValueError(f"`pixel_size` is {pixel_size!r}; it must be a number above 0, in um per image pixel.")
        return float(pixel_size)
    if image.pixel_size is None:
        return None
    height, width = image.pixel_size
    if abs(height - width) > 1e-3 * width:
        raise ValueError(
            f"The pixels of {image.path} are {height:.6g} x {width:.6g} um (y, x) by its metadata; they "
            "must be square. Pass `pixel_size`, if the metadata is wrong."
        )
    return width


def _transformations(name: str, scale: float, pixel_size: float | None) -> dict[str, BaseTransformation]:
    def scaled(factor: float) -> BaseTransformation:
        return Identity() if factor == 1 else Scale([factor, factor], axes=("y", "x"))

    return {name: scaled(scale)} | ({f"{name}_um": scaled(scale * pixel_size)} if pixel_size else {})


def _check_channels(fovs: dict[str, Tiff]) -> None:
    first, image = next(iter(fovs.items()))
    for fov, other in fovs.items():
        if set(other.channels or ()) != set(image.channels or ()):
            differing = sorted(set(other.channels or ()) ^ set(image.channels or ()))
            raise ValueError(
                f"Fields of view {first!r} and {fov!r} have different channels: {differing} are in one "
                "only. Pass the common ones as `channels`, if these are folders of channels, or read them "
                "one by one."
            )


def element_names(fovs: Iterable[str]) -> dict[str, str]:
    """Make names of elements from the names of fields of view, which are those of folders and files."""
    names = {fov: "".join(c if c.isalnum() or c in "_-." else "_" for c in fov).lstrip("_") for fov in fovs}
    taken: dict[str, str] = {}
    for fov, name in names.items():
        if not name or is_micrometre(name):
            raise ValueError(f"A field of view cannot be named {fov!r}, which is like a unit, or empty. Rename it.")
        for element in (name, f"{name}_labels"):
            if element.lower() in taken:
                raise ValueError(
                    f"Fields of view {taken[element.lower()]!r} and {fov!r} would both have an element "
                    f"{element!r} (case does not count, and other than letters, digits, '_', '-' and '.' "
                    "becomes '_'). Rename one."
                )
            taken[element.lower()] = fov
    return names
