"""TIFF files as lazy dask arrays: which image of a file, which of its axes, and checks for damage."""

from __future__ import annotations

import math
import re
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import dask.array as da
import numpy as np
import tifffile
import zarr
from dask.base import tokenize
from numpy.typing import NDArray

from nimbus_sd._geojson import ENDINGS
from nimbus_sd.io.tiff_metadata import channel_names, ome_images, pixel_size

_SUFFIXES = (".ome.tiff", ".ome.tif", ".qptiff", ".tiff", ".tif")
#: Endings of masks that are no TIFF files.
ARRAYS = (".png", ".npy")
_CHUNK = 2048
_COLOURS = (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)
# Bytes of pixels for each byte of a file; no compression of an image comes near it.
_MOST_COMPRESSED = 2**20
# What tifffile raises where a header or a page is not what it should be.
_FAULTS = (tifffile.TiffFileError, struct.error, ValueError, LookupError, TypeError, ArithmeticError)


@dataclass(frozen=True)
class Tiff:
    """One image of a TIFF file."""

    path: Path
    #: Shape (C, H, W); read when computed.
    pixels: da.Array
    #: Whether the channels are red, green and blue of one picture.
    rgb: bool
    #: Names from the file, None where it has none for this number of channels.
    channels: list[str] | None
    #: Height and width of a pixel in um, None where the file says nothing.
    pixel_size: tuple[float, float] | None
    #: Where that stands: OME-XML, ImageJ, QPTIFF or resolution tag.
    size_source: str | None
    #: All files that hold its pixels: of an OME set, several.
    files: tuple[Path, ...]


class _UnclearError(ValueError):
    """Which image of a file is meant; no fault of the file."""


def stem(path: Path) -> str:
    """Name of a TIFF file or a mask without its ending, which may be ``.ome.tif``."""
    lower = path.name.lower()
    endings = sorted(_SUFFIXES + ARRAYS + ENDINGS, key=len, reverse=True)
    return next((path.name[: -len(end)] for end in endings if lower.endswith(end)), path.name)


def before_ending(name: str) -> str:
    """Cut a name where a TIFF's ending begins in it: ``slide.tif_image`` is named after ``slide.tif``."""
    return re.split(r"(?:\.ome)?\.(?:qp)?tiff?", name, maxsplit=1, flags=re.IGNORECASE)[0] or name


def list_tiffs(folder: Path) -> list[Path]:
    """List the TIFF files of a folder by name, hidden ones left out."""
    return list_files(folder, _SUFFIXES)


def list_files(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """List the files of a folder that have one of these endings by name, hidden ones left out."""
    files = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return sorted(path for path in files if path.name.lower().endswith(endings))


def open_tiff(path: Path, *, planes_are_channels: bool = False, series: str | int | None = None) -> Tiff:
    """Look into a TIFF file; pixels are read later. A ValueError if it is damaged, or holds more than one 2-D image.

    Its axes are YX, CYX, YXS (RGB-like), or any one axis without a meaning before YX. ``planes_are_channels`` takes
    those of a z-stack or time series for channels, too. Of several images, ``series`` names one, or says its number.
    """
    try:
        with tifffile.TiffFile(path) as file:
            _check_complete(file)
            images, ome = file.series, ome_images(file)
            if images[0].kind == "ome":
                _check_set(path, images, ome)
            number = _choose(path, images, series)
            image = images[number]
            _check_size(file, image)
            axes, shape, dtype = image.axes, image.shape, image.dtype
            chunks, rgb = _chunks(image), image.keyframe.photometric == tifffile.PHOTOMETRIC.RGB
            kept = [i for i, axis in enumerate(axes) if shape[i] > 1 or axis in "YX"]
            extra = [i for i in kept if axes[i] not in "YX"]
            described = ome[number] if number < len(ome) else None
            names = channel_names(file, image, described, math.prod(shape[i] for i in extra))
            size, source = pixel_size(file, image, described)
            held = [Path(page.parent.filehandle.path) for page in image.pages if page] if image.is_multifile else [path]
    except _UnclearError as error:
        raise ValueError(f"{path} {error}") from None
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} cannot be read, as its OME-XML is damaged: {error}") from error
    except _FAULTS as error:
        raise ValueError(f"{path} cannot be read as a TIFF file: {error}") from error

    if len(extra) > 1 or (extra and axes[extra[0]] in "ZT" and not planes_are_channels):
        sizes = ", ".join(f"{axis}: {size}" for axis, size in zip(axes, shape, strict=True))
        advice = "If the planes are channels, name them with `channels`."
        raise ValueError(f"{path} has the axes {sizes}; only one 2-D image with channels can be read. {advice}")
    files = tuple(dict.fromkeys(held))
    lazy = _Lazy(path, number, shape, dtype, files)
    name = f"tiff-{tokenize(str(path), number, lazy.state)}"
    pixels = da.from_array(lazy, chunks, name=name, asarray=False, fancy=False)
    pixels = pixels[tuple(slice(None) if i in kept else 0 for i in range(len(axes)))]
    pixels = da.moveaxis(pixels, kept.index(extra[0]), 0) if extra else pixels[None]
    return Tiff(path, pixels, rgb and bool(extra) and axes[extra[0]] == "S", names, size, source, files)


def _choose(path: Path, images: list[tifffile.TiffPageSeries], wanted: str | int | None) -> int:
    """Return the number of the image that is meant: the one asked for, or the largest that is not in colour."""
    colour = [", colour" * _in_colour(image) for image in images]
    sizes = [" x ".join(map(str, image.shape)) for image in images]
    known = ", ".join(f"{i}: {image.name!r} ({sizes[i]}{colour[i]})" for i, image in enumerate(images))
    advice = f"Choose with `series` (--series), by name or number: {known}."
    if wanted is not None:
        named = [i for i, image in enumerate(images) if image.name == wanted]
        named = named or [i for i in range(len(images)) if str(i) == str(wanted)]
        if len(named) != 1:
            raise _UnclearError(f"holds {len(named)} images {wanted!r}. {advice}")
        return named[0]
    areas = [math.prod(n for axis, n in zip(x.axes, x.shape, strict=True) if axis in "YX") for x in images]
    # Thumbnails and levels of a pyramid are smaller.
    first, *rivals = sorted((i for i in range(len(images)) if all(colour) or not colour[i]), key=lambda i: -areas[i])
    if rivals and areas[rivals[0]] == areas[first]:
        raise _UnclearError(f"holds several images of one size. {advice}")
    if rivals and areas[rivals[0]] * 4 > areas[first]:
        warnings.warn(f"{path} holds several images; the largest is read, number {first}. {advice}", stacklevel=2)
    return first


def _in_colour(image: tifffile.TiffPageSeries) -> bool:
    return "S" in image.axes and image.dtype == np.uint8 and image.keyframe.photometric in _COLOURS


class _Lazy:
    """An image of a TIFF file as an array of which windows can be read, by any thread or process."""

    def __init__(self, path: Path, number: int, shape: tuple[int, ...], dtype: Any, files: tuple[Path, ...]) -> None:
        self.path, self.number, self.files, self.state = path, number, files, _state(files)
        self.shape, self.dtype, self.ndim = shape, np.dtype(dtype), len(shape)

    def __getitem__(self, window: Any) -> NDArray:
        self._check_unchanged()
        try:
            with tifffile.TiffFile(self.path) as file:
                series = file.series[self.number]
                if series.dataoffset is not None and not series.is_multifile:
                    # Pixels lie in the file as they are: only those of the window are touched.
                    dtype = self.dtype.newbyteorder(file.byteorder)
                    pixels = np.memmap(self.path, dtype, "r", series.dataoffset, self.shape)
                    return np.asarray(pixels[window]).astype(self.dtype)
                return np.asarray(zarr.open_array(series.aszarr(level=0), mode="r")[window])
        except (RuntimeError, ValueError) as error:
            # What imagecodecs raises is a RuntimeError.
            raise ValueError(f"{self.path} is damaged, its pixels cannot be decoded: {error}") from error
        finally:
            # Also in place of these errors.
            self._check_unchanged()

    def _check_unchanged(self) -> None:
        if _state(self.files) != self.state:
            raise ValueError(f"{self.path} has been rewritten since it was opened; open it anew.")


def _state(files: tuple[Path, ...]) -> list[tuple[int, int]]:
    """Tell files from what they are once they have been rewritten."""
    return [(stat.st_size, stat.st_mtime_ns) for stat in (path.stat() for path in files)]


def _check_complete(file: tifffile.TiffFile) -> None:
    """Refuse a file that is cut off: tifffile would go on with the pages and tags that are there."""
    if not len(file.pages) or (last := file.pages.next_page_offset) is None:
        raise ValueError("it holds no image; is it complete?")
    tiff, handle, page = file.tiff, file.filehandle, file.pages.first
    handle.seek(last)
    stored = handle.read(tiff.offsetsize)
    if len(stored) < tiff.offsetsize or struct.unpack(tiff.offsetformat, stored)[0] >= handle.size:
        raise ValueError(f"it ends after {len(file.pages)} image(s), but says that more follow; is it complete?")
    handle.seek(page.offset)
    (number,) = struct.unpack(tiff.tagnoformat, handle.read(tiff.tagnosize))
    for _ in range(number):
        code, kind = struct.unpack(f"{tiff.byteorder}HH", handle.read(tiff.tagsize)[:4])
        if code not in page.tags and kind in tifffile.TIFF.DATA_FORMATS:
            raise ValueError(f"its tag {tifffile.TIFF.TAGS.get(code, code)} lies beyond its end; is it complete?")


def _check_set(path: Path, images: list[tifffile.TiffPageSeries], ome: list[ElementTree.Element]) -> None:
    """Refuse OME-XML that describes planes or images that are not there: tifffile would fill them with zeros."""
    planes = sum(page is None for image in images for page in image.pages)
    if planes or len(images) != len(ome):
        names = {uuid.get("FileName", "") for image in ome for uuid in image.iterfind(".//{*}UUID")}
        absent = sorted(name for name in names if not (path.parent / name).exists())
        what = f"{planes} planes" if planes else f"{len(ome) - len(images)} of {len(ome)} images"
        where = f"the files {', '.join(absent)} are not beside it" if absent else "is the set of files complete?"
        raise ValueError(f"its OME-XML describes {what} that are not there; {where}.")


def _check_size(file: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> None:
    """Refuse more pixels than the file can hold: reading would give zeros, or never end."""
    page, extent = series.keyframe, " x ".join(map(str, series.shape))
    if series.nbytes > _MOST_COMPRESSED * file.filehandle.size:
        raise ValueError(f"it says that it holds {extent} pixels, but has {file.filehandle.size} bytes; is it damaged?")
    if len(page.dataoffsets) < math.prod(page.chunked) and not file.is_lsm:
        claim = f"{extent} pixels in {math.prod(page.chunked)} tiles or strips a page"
        raise ValueError(f"it says that it holds {claim}, but has {len(page.dataoffsets)}; is it damaged?")


def _chunks(series: tifffile.TiffPageSeries) -> tuple[int, ...]:
    """Choose chunks of about 2048 x 2048 pixels of one channel, of whole tiles or strips of the file."""
    page, sizes = series.keyframe, dict(zip(series.axes, series.shape, strict=True))
    height, width = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, sizes["X"])
    n_cols = min(max(1, _CHUNK // width) * width, sizes["X"])
    n_rows = max(1, _CHUNK * _CHUNK // max(n_cols, _CHUNK) // height) * height
    wanted = {"Y": n_rows, "X": n_cols, "S": sizes.get("S", 1)}
    return tuple(min(n, wanted.get(axis, 1)) for axis, n in zip(series.axes, series.shape, strict=True))
