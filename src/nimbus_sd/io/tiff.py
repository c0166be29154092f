"""TIFF files as lazy dask arrays, with what their metadata says of channels and pixel size."""

from __future__ import annotations

import math
import re
import struct
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

_SUFFIXES = (".ome.tiff", ".ome.tif", ".tiff", ".tif")
_CHUNK = 2048
# Bytes of pixels for each byte of a file; no compression of an image comes near it.
_MOST_COMPRESSED = 2**20
# OME's default unit is the micrometre; the micro sign may come as the Greek letter mu.
_MICROMETRES = {
    **dict.fromkeys(("\u00b5m", "\u03bcm", "um"), 1.0),
    **{"pm": 1e-6, "\u00c5": 1e-4, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "dm": 1e5, "m": 1e6},
}
# What tifffile raises where a header or a page is not what it should be.
_FAULTS = (tifffile.TiffFileError, struct.error, ValueError, LookupError, TypeError, ArithmeticError)


@dataclass(frozen=True)
class Tiff:
    """The first image of a TIFF file."""

    path: Path
    #: Shape (C, H, W); read when computed.
    pixels: da.Array
    #: Whether the channels are red, green and blue of one picture.
    rgb: bool
    #: Names from OME metadata, None where there are none for each channel.
    channels: list[str] | None
    #: Height and width of a pixel in um from OME metadata, None where it says nothing.
    pixel_size: tuple[float, float] | None


def stem(path: Path) -> str:
    """Name of a TIFF file without its ending, which may be ``.ome.tif``."""
    lower = path.name.lower()
    return next((path.name[: -len(suffix)] for suffix in _SUFFIXES if lower.endswith(suffix)), path.name)


def before_ending(name: str) -> str:
    """Cut a name where a TIFF's ending begins in it: ``slide.tif_image`` is named after ``slide.tif``."""
    return re.split(r"(?:\.ome)?\.tiff?", name, maxsplit=1, flags=re.IGNORECASE)[0] or name


def list_tiffs(folder: Path) -> list[Path]:
    """List the TIFF files of a folder by name, hidden ones left out."""
    files = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return sorted(path for path in files if path.name.lower().endswith(_SUFFIXES))


def open_tiff(path: Path, *, planes_are_channels: bool = False) -> Tiff:
    """Look into a TIFF file; pixels are read later. A ValueError if it is damaged, or holds more than one 2-D image.

    Its axes are YX, CYX, YXS (RGB-like), or any one axis without a meaning before YX. ``planes_are_channels`` takes
    those of a z-stack or time series for channels, too.
    """
    state = _state(path)
    try:
        with tifffile.TiffFile(path) as file:
            _check_complete(file)
            series = file.series[0]
            _check_size(file, series)
            axes, shape, dtype = series.axes, series.shape, series.dtype
            chunks, rgb = _chunks(series), series.keyframe.photometric == tifffile.PHOTOMETRIC.RGB
            ome = _ome_pixels(file.ome_metadata) if file.is_ome else None
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} cannot be read, as its OME-XML is damaged: {error}") from error
    except _FAULTS as error:
        raise ValueError(f"{path} cannot be read as a TIFF file: {error}") from error

    kept = [axis for axis, size in zip(axes, shape, strict=True) if size > 1 or axis in "YX"]
    extra = "".join(axis for axis in kept if axis not in "YX")
    if len(extra) > 1 or (extra and extra in "ZT" and not planes_are_channels):
        sizes = ", ".join(f"{axis}: {size}" for axis, size in zip(axes, shape, strict=True))
        advice = "If the planes are channels, name them with `channels`."
        raise ValueError(f"{path} has the axes {sizes}; only one 2-D image with channels can be read. {advice}")
    name = f"tiff-{tokenize(str(path), state)}"
    pixels = da.from_array(_Lazy(path, shape, dtype, state), chunks, name=name, asarray=False, fancy=False)
    pixels = pixels[tuple(slice(None) if axis in kept else 0 for axis in axes)]
    pixels = da.moveaxis(pixels, kept.index(extra), 0) if extra else pixels[None]
    names, size = ome or (None, None)
    usable = names is not None and len(names) == len(pixels)
    return Tiff(path, pixels, rgb and extra == "S", names if usable else None, size)


class _Lazy:
    """The first image of a TIFF file as an array of which windows can be read, by any thread or process."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: Any, state: tuple[int, int]) -> None:
        self.path, self.state = path, state
        self.shape, self.dtype, self.ndim = shape, np.dtype(dtype), len(shape)

    def __getitem__(self, window: Any) -> NDArray:
        self._check_unchanged()
        try:
            with tifffile.TiffFile(self.path) as file:
                series = file.series[0]
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
        if _state(self.path) != self.state:
            raise ValueError(f"{self.path} has been rewritten since it was opened; open it anew.")


def _state(path: Path) -> tuple[int, int]:
    """Tell a file from what it is once it has been rewritten."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


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
    return tuple(min(size, wanted.get(axis, 1)) for axis, size in sizes.items())


def _ome_pixels(xml: str | None) -> tuple[list[str] | None, tuple[float, float] | None]:
    """Read channel names and the size of a pixel (y, x) in um from the first image of OME metadata."""
    # Python's expat limits how far entities expand; tifffile parses the same text with it.
    pixels = ElementTree.fromstring(xml or "<OME/>").find("{*}Image/{*}Pixels")  # noqa: S314
    if pixels is None:
        return None, None
    names = [channel.get("Name", "") for channel in pixels.findall("{*}Channel")]
    units = [_MICROMETRES.get(pixels.get(f"PhysicalSize{axis}Unit") or "um", math.nan) for axis in "YX"]
    height, width = (float(pixels.get(f"PhysicalSize{a}") or "nan") * unit for a, unit in zip("YX", units, strict=True))
    return (names if all(names) else None), ((height, width) if height > 0 and width > 0 else None)
