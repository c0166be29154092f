"""What a TIFF file says of its channels and the size of its pixels, wherever it says so."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from xml.etree import ElementTree

import tifffile

_PREFIXES = {"": 1e6, "deci": 1e5, "centi": 1e4, "milli": 1e3, "micro": 1.0, "nano": 1e-3, "pico": 1e-6}
_MICROMETRES = {
    **{f"{prefix}met{end}": um for prefix, um in _PREFIXES.items() for end in ("er", "ers", "re", "res")},
    **dict.fromkeys(("um", "micron", "microns"), 1.0),
    **dict.fromkeys(("\u00e5", "angstrom", "angstroms"), 1e-4),
    **dict.fromkeys(("in", "inch", "inches"), 25_400.0),
    **{"pm": 1e-6, "nm": 1e-3, "thou": 25.4, "mm": 1e3, "cm": 1e4, "dm": 1e5, "m": 1e6},
}
_RESOLUTION_UNITS = {2: "inch", 3: "cm", 4: "mm", 5: "um"}
# Pixels of microscopes in um. Picture programs state dots per inch or cm for the printer: 72, 96 or 300 per inch.
_MICROSCOPES = (0.01, 10.0)
_PAGE_NAME = 285
_QPTIFF = "<PerkinElmer-QPI-ImageDescription"


def ome_images(file: tifffile.TiffFile) -> list[ElementTree.Element]:
    """List what OME-XML says of each image that has pixels in a file; nothing where there is none."""
    # Python's expat limits how far entities expand; tifffile parses the same text with it.
    images = ElementTree.fromstring(file.ome_metadata or "<OME/>").findall("{*}Image") if file.is_ome else []  # noqa: S314
    return [image for image in images if image.find("{*}Pixels/{*}TiffData") is not None] or images


def channel_names(
    file: tifffile.TiffFile, series: tifffile.TiffPageSeries, ome: ElementTree.Element | None, number: int
) -> list[str] | None:
    """Read the names of so many channels; one without a name gets its number. None where there are no names at all."""
    for names in _offered_names(file, series, ome):
        if len(names) == number and any(names):
            return [name or str(i) for i, name in enumerate(names)]
    return None


def _offered_names(
    file: tifffile.TiffFile, series: tifffile.TiffPageSeries, ome: ElementTree.Element | None
) -> Iterator[list[str]]:
    if ome is not None:
        yield [channel.get("Name", "").strip() for channel in ome.findall("{*}Pixels/{*}Channel")]
    pages = [] if series.is_multifile else [page.aspage() for page in series.pages if page is not None]
    labels = (file.imagej_metadata or {}).get("Labels", [])
    for names in (
        [str(label).partition("\n")[0] for label in labels],
        [_biomarker(_description(page)) for page in pages],
        [str(page.tags.valueof(_PAGE_NAME, default="")) for page in pages],
    ):
        # One text for all is the name of the file, or of what wrote it.
        if len(names) == 1 or len(set(names)) > 1:
            yield [name.strip("\0 \t\r\n") for name in names]


def _description(page: tifffile.TiffPage | tifffile.TiffFrame) -> str:
    """Read the text of a page, which some write in UTF-16."""
    return page.aspage().description.replace("\0", "")


def _biomarker(description: str) -> str:
    """Read the channel's name from a QPTIFF's page: the biomarker, else the dye."""
    if _QPTIFF not in description:
        return ""
    page = ElementTree.fromstring(description[description.index(_QPTIFF) :])  # noqa: S314
    return page.findtext("Biomarker") or page.findtext("Name") or ""


def pixel_size(
    file: tifffile.TiffFile, series: tifffile.TiffPageSeries, ome: ElementTree.Element | None
) -> tuple[tuple[float, float] | None, str | None]:
    """Read height and width of a pixel in um, and where it stands; None, None where it stands nowhere."""
    if (pixels := None if ome is None else ome.find("{*}Pixels")) is not None:
        # OME's default unit is the micrometre.
        units = (_micrometres(pixels.get(f"PhysicalSize{axis}Unit") or "um") for axis in "YX")
        sizes = (float(pixels.get(f"PhysicalSize{axis}") or "nan") for axis in "YX")
        height, width = (size * unit for size, unit in zip(sizes, units, strict=True))
        if 0 < height < math.inf and 0 < width < math.inf:
            return (height, width), "OME-XML"
    page, imagej = series.keyframe, file.imagej_metadata or {}
    tag = _RESOLUTION_UNITS.get(int(page.resolutionunit), "")
    x_unit = str(imagej.get("unit", ""))
    for x, y, source in (
        (x_unit, str(imagej.get("yunit", x_unit)), "ImageJ"),
        (tag, tag, "QPTIFF" if _QPTIFF in _description(page) else "resolution tag"),
    ):
        scale = (_micrometres(y), _micrometres(x))
        size = [unit / per if per > 0 else math.nan for unit, per in zip(scale, page.resolution[::-1], strict=True)]
        low, high = _MICROSCOPES if max(scale) >= _MICROMETRES["cm"] else (0, math.inf)
        if all(low < side < high for side in size):
            return (size[0], size[1]), source
    return None, None


def _micrometres(unit: str) -> float:
    """Say how many um a unit has; NaN for what is no length, such as pixels."""
    # ImageJ writes the micro sign as an escape.
    unit = unit.strip().lower().replace("\\u00b5", "u")
    # Before an m, what is not ASCII is "micro": its sign, the Greek letter, or either of them garbled.
    return _MICROMETRES.get(re.sub(r"^(?:[^\x00-\x7f]{1,2}|\?)(?=m)", "u", unit), math.nan)
