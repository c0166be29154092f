"""Contact sheets: numbered crops of single cells in one channel, to be judged by eye.

A sheet shows each cell outlined among its neighbours, all at one contrast, and no figure. Sheets for gates are in the
order of brightness, those for gold labels are shuffled.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from corpus import Field
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter, zoom
from skimage.segmentation import find_boundaries

#: Width of a crop in um, and the side of its picture in pixels.
CROP_UM, SIDE = 28.0, 184
#: Data sets of ion counts, which are smoothed by 0.7 px to be seen.
COUNTS = ("imc_spleen", "mibi_breast", "mibi_lymphoid")


def displayed(field: Field, channel: str, top: float) -> NDArray[np.float32]:
    """Pixels of a channel in [0, 1] at a gamma of 0.6, ``top`` becoming 1."""
    raw = field.image[field.channels.index(channel)].astype(np.float32)
    if field.dataset in COUNTS:
        raw = gaussian_filter(raw, 0.7)
    return np.clip(raw / max(top, 1e-9), 0, 1) ** np.float32(0.6)


def top_level(fields: Sequence[Field], channel: str) -> float:
    """Level that is shown as white: the 0.9995 quantile of the smoothed pixels of cells, over the fields."""
    smooth = [
        gaussian_filter(f.image[f.channels.index(channel)].astype(np.float32), 0.7 if f.dataset in COUNTS else 0)
        for f in fields
    ]
    return float(np.quantile(np.concatenate([s[f.labels > 0] for s, f in zip(smooth, fields, strict=True)]), 0.9995))


def draw_sheet(
    path: Path, cells: Sequence[tuple[Field, int]], channel: str, top: float, columns: int = 8, side: int = SIDE
) -> None:
    """Write a sheet of cells, each given by its field and its position in ``field.cells``."""
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (columns * (side + 4), rows * (side + 4)), (40, 0, 60))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=16)
    shown: dict[str, NDArray[np.float32]] = {}
    for k, (field, position) in enumerate(cells):
        if field.name not in shown:
            shown[field.name] = displayed(field, channel, top)
        crop = _crop(shown[field.name], field, position, side)
        at = (k % columns) * (side + 4), (k // columns) * (side + 4)
        sheet.paste(Image.fromarray(crop), at)
        pen.text(
            (at[0] + 3, at[1] + 1), str(k + 1), fill=(0, 255, 120), font=font, stroke_width=2, stroke_fill=(0, 0, 0)
        )
    sheet.save(path)


def _crop(shown: NDArray[np.float32], field: Field, position: int, side: int) -> NDArray[np.uint8]:
    half = round(CROP_UM / field.pixel_size / 2)
    y, x = (round(c) + half for c in field.centres[position])
    window = np.s_[y - half : y + half, x - half : x + half]
    pixels, labels = (np.pad(array, half)[window] for array in (shown, field.labels))
    enlarged = zoom(pixels, side / (2 * half), order=1, grid_mode=True, mode="nearest")
    near = (np.arange(side) * 2 * half // side).clip(0, 2 * half - 1)
    labels = labels[np.ix_(near, near)]
    rgb = np.stack([enlarged] * 3, axis=-1)
    cell = labels == field.cells[position]
    others = find_boundaries(labels, mode="inner") & ~cell
    rgb[others] = 0.75 * rgb[others] + np.array([0.0, 0.07, 0.14])
    rgb[find_boundaries(cell, mode="outer")] = (1, 0.85, 0)
    return (rgb.clip(0, 1) * 255).astype(np.uint8)


def draw_overview(path: Path, fields: Sequence[Field], channel: str, top: float, side: int = 740) -> None:
    """Write whole fields side by side, at the contrast of the sheet."""
    strip = Image.new("L", (len(fields) * (side + 6), side), 60)
    for k, field in enumerate(fields):
        picture = Image.fromarray((displayed(field, channel, top) * 255).astype(np.uint8))
        picture.thumbnail((side, side)) if max(picture.size) > side else None
        scale = side / max(picture.size)
        strip.paste(picture.resize((round(picture.width * scale), round(picture.height * scale))), (k * (side + 6), 0))
    strip.save(path)
