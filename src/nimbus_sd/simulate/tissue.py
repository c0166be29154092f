"""Geometry: a tissue of overlapping, irregular cells with nuclei, drawn once and stained for many markers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

# Arrays of shape (y, x).
Image = NDArray[np.float32]
Labels = NDArray[np.int32]

# Share of tissues with small, densely packed cells, where neighbours are hardest to tell apart.
_LYMPHOID = 0.45


def smooth_field(rng: Generator, shape: tuple[int, int], wavelength: float) -> Image:
    """Draw a random field of unit variance whose features are about ``wavelength`` pixels wide."""
    coarse = [max(2, int(np.ceil(n / wavelength)) + 3) for n in shape]
    noise = rng.standard_normal(coarse).astype(np.float32)
    # A random part of the coarse grid's cell, so that nodes do not always lie at the image's corner.
    y, x = (np.arange(n) / wavelength + rng.random() + 0.5 for n in shape)
    field = _cubic(_cubic(noise, y, 0), x, 1)
    return np.asarray((field - field.mean()) / max(float(field.std()), 1e-6), np.float32)


def _cubic(values: Image, position: NDArray[np.float64], axis: int) -> Image:
    """Cubic B-spline of ``values`` at positions along an axis: smooth, and much faster than 2-D interpolation."""
    last = values.shape[axis] - 1
    node = np.minimum(np.floor(position).astype(int), last - 1)
    t = np.expand_dims((position - node).astype(np.float32), 1 - axis)
    weights = ((1 - t) ** 3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6, t**3 / 6)
    # A sum of four terms, not a matrix product, whose rounding depends on the number of threads.
    a, b, c, d = (w * np.take(values, np.clip(node + k, 0, last), axis) for k, w in enumerate(weights, start=-1))
    return np.asarray(a + b + c + d, np.float32)


@dataclass(frozen=True)
class Tissue:
    """True geometry of a field of view, as :func:`draw_tissue` draws it. Cells are numbered from 1; 0 is no cell.

    Parameters
    ----------
    pixel_size
        Micrometres per pixel.
    owner, under
        Cell that lies on top at each pixel, and the one below it (overlap in depth) or 0; shape (y, x), int32.
    nucleus
        Pixels of the top cell's nucleus, bool.
    nucleus_depth, depth
        Distance to the outside of the nucleus, and to the next cell or gap, in um, float32.
    angle
        Direction from the top cell's centre, in radians.
    centre, radius, kind
        Per cell, row 0 unused: centre (y, x) in um, radius in um, tissue compartment (0 loose, 1 dense, 2 epithelium).
    glass
        Pixels without tissue, bool.
    """

    pixel_size: float
    owner: Labels
    under: Labels
    nucleus: NDArray[np.bool_]
    nucleus_depth: Image
    depth: Image
    angle: Image
    centre: NDArray[np.float64]
    radius: NDArray[np.float64]
    kind: NDArray[np.int8]
    glass: NDArray[np.bool_]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.owner.shape[0], self.owner.shape[1]

    @property
    def n_cells(self) -> int:
        """Number of cells drawn."""
        return len(self.radius) - 1

    def at_centres(self, field: Image) -> Image:
        """Return the values of a field (y, x) at the centres of cells; row 0 unused."""
        row, col = (self.centre / self.pixel_size).astype(int).T
        return field[np.clip(row, 0, self.shape[0] - 1), np.clip(col, 0, self.shape[1] - 1)]


def draw_tissue(
    shape: tuple[int, int],
    pixel_size: float,
    rng: Generator,
    *,
    radius: float | None = None,
    density: float | None = None,
    nucleus: float | None = None,
) -> Tissue:
    """Draw the cells of a field of view: dense nests, epithelial rings, stroma, gaps and a tissue edge.

    Parameters
    ----------
    shape, pixel_size
        Height and width in pixels, and micrometres per pixel.
    rng
        Source of all randomness.
    radius
        Median cell radius in um; by default drawn from 3 to 9, often small as in lymphoid tissue.
    density
        Share of places that hold a cell in dense areas, in (0, 1]; by default drawn from 0.55 to 1.
    nucleus
        Typical radius of a nucleus over that of its cell; by default drawn from 0.6 to 0.9.

    Examples
    --------
    >>> tissue = draw_tissue((128, 128), 0.5, np.random.default_rng(0), radius=5.0)
    >>> tissue.n_cells > 10
    True
    """
    lymphoid = rng.random() < _LYMPHOID
    if radius is None:
        radius = float(rng.uniform(3.0, 4.5) if lymphoid else np.exp(rng.uniform(np.log(3.0), np.log(9.0))))
    if density is None:
        density = float(rng.uniform(0.85 if lymphoid else 0.55, 1.0))
    field = (shape[0] * pixel_size, shape[1] * pixel_size)
    centre, radii, kind, stretch, direction = _place(field, radius, density, rng)
    cells = centre, radii, stretch, direction
    owner, under, angle, nuclei = _paint(shape, pixel_size, cells, nucleus, rng)
    glass = np.zeros(shape, bool)
    if rng.random() < 0.2:
        edge = smooth_field(rng, shape, 120 / pixel_size)
        glass = edge > rng.uniform(0.5, 1.8)
        gone = np.union1d(owner[glass], under[glass])
        for layer in (owner, under):
            layer[np.isin(layer, gone)] = 0
        nuclei &= owner > 0
    depth = edge_distance(owner, owner > 0).astype(np.float32) * pixel_size
    nucleus_depth = edge_distance(owner, nuclei).astype(np.float32) * pixel_size
    return Tissue(pixel_size, owner, under, nuclei, nucleus_depth, depth, angle, centre, radii, kind, glass)


def edge_distance(labels: Labels, inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Distance of pixels inside to the outside or another label, in pixels; the image's edge is no boundary."""
    inside = inside.copy()
    inside[1:] &= labels[1:] == labels[:-1]
    inside[:, 1:] &= labels[:, 1:] == labels[:, :-1]
    return np.full(inside.shape, 1e3) if inside.all() else np.asarray(ndimage.distance_transform_edt(inside))


def _place(field: tuple[float, float], radius: float, density: float, rng: Generator) -> tuple[NDArray, ...]:
    """Put cell centres on a jittered hexagonal grid whose compartments differ in size, shape and density."""
    step = radius * rng.uniform(1.55, 1.9)
    margin = 2 * radius
    rows = np.arange(-margin, field[0] + margin, step * 0.866)
    cols = np.arange(-margin, field[1] + margin, step)
    y, x = np.meshgrid(rows, cols, indexing="ij")
    x = x + (np.arange(len(rows)) % 2)[:, None] * step / 2
    y, x = (c.ravel() + rng.normal(0, rng.uniform(0.1, 0.3) * step, c.size) for c in (y, x))

    def smooth_at_cells(shortest: float, longest: float) -> NDArray:
        coarse = (int(field[0] + 4 * margin) + 1, int(field[1] + 4 * margin) + 1)
        values = smooth_field(rng, coarse, rng.uniform(shortest, longest))
        row, col = (np.clip(c + 2 * margin, 0, n - 1).astype(int) for c, n in zip((y, x), coarse, strict=True))
        return values[row, col]

    compartment = smooth_at_cells(40, 150)
    low, high = np.sort(rng.uniform(-2.5, 2.5, 2))
    kind = np.where(compartment < low, 0, np.where(compartment < high, 1, 2)).astype(np.int8)

    keep = rng.random(y.size) < density * np.array([rng.uniform(0.15, 0.7), 1.0, 1.0])[kind]
    # Lumen: epithelium forms rings around holes.
    keep &= ~((kind == 2) & (compartment > high + rng.uniform(0.4, 2.0)))
    y, x, kind = y[keep], x[keep], kind[keep]

    n = y.size
    factor = np.array([rng.uniform(0.6, 1.0), 1.0, rng.uniform(1.0, 1.35)])[kind]
    radii = radius * factor * np.exp(rng.normal(0, rng.uniform(0.08, 0.35), n))
    large = rng.random(n) < rng.choice([0.0, 0.02, 0.1], p=[0.4, 0.4, 0.2])
    radii[large] *= rng.uniform(1.4, 2.4, int(large.sum()))
    stretch = np.exp(np.abs(rng.normal(0, 0.18, n)))
    stretch[kind == 0] *= float(np.exp(rng.uniform(0, np.log(6.0)))) ** rng.random(int((kind == 0).sum()))
    grain = np.pi * smooth_at_cells(60, 200)
    direction = np.where(rng.random(n) < 0.7, grain + rng.normal(0, 0.3, n), rng.uniform(0, np.pi, n))
    # Row 0 is no cell.
    centre, radii = np.insert(np.stack([y, x], axis=1), 0, 0, axis=0), np.insert(radii, 0, 1)
    return centre, radii, np.insert(kind, 0, 0), np.insert(stretch, 0, 1), np.insert(direction, 0, 0)


def _paint(
    shape: tuple[int, int], pixel_size: float, cells: tuple[NDArray, ...], nucleus: float | None, rng: Generator
) -> tuple[Labels, Labels, Image, NDArray[np.bool_]]:
    """Give each pixel to the cell in which it lies deepest; the second deepest lies under it. Then draw nuclei."""
    centre, radii, stretch, direction = cells
    typical = float(np.median(radii))
    wobble = rng.uniform(0.06, 0.22) * typical
    warp = [wobble * smooth_field(rng, shape, rng.uniform(0.7, 1.6) * typical / pixel_size) for _ in "yx"]
    ys = (np.arange(shape[0], dtype=np.float32)[:, None] + 0.5) * pixel_size + warp[0]
    xs = (np.arange(shape[1], dtype=np.float32)[None, :] + 0.5) * pixel_size + warp[1]
    best, second = np.ones(shape, np.float32), np.ones(shape, np.float32)
    owner, under = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    long_axis, short_axis = radii * np.sqrt(stretch), radii / np.sqrt(stretch)
    cos, sin = np.cos(direction), np.sin(direction)

    # 1 on the outline of a cell's ellipse.
    def squared_distance(cell: np.intp | NDArray, dy: NDArray, dx: NDArray, scale: float | NDArray = 1.0) -> NDArray:
        along = (dx * cos[cell] + dy * sin[cell]) / (long_axis[cell] * scale)
        across = (dy * cos[cell] - dx * sin[cell]) / (short_axis[cell] * scale)
        return along * along + across * across

    reach = (long_axis + 4 * wobble)[:, None]
    start = np.maximum(0, (centre - reach) / pixel_size).astype(int)
    stop = np.minimum(shape, (centre + reach) / pixel_size + 1).astype(int)
    for cell in 1 + np.flatnonzero((start < stop).all(axis=1)[1:]):
        window = tuple(slice(*ends) for ends in zip(start[cell], stop[cell], strict=True))
        distance = squared_distance(cell, ys[window] - centre[cell, 0], xs[window] - centre[cell, 1])
        first = distance < best[window]
        between = ~first & (distance < second[window])
        second[window] = np.where(first, best[window], np.where(between, distance, second[window]))
        under[window] = np.where(first, owner[window], np.where(between, cell, under[window]))
        best[window] = np.where(first, distance, best[window])
        owner[window] = np.where(first, cell, owner[window])

    n = len(radii)
    usual = rng.uniform(0.6, 0.9)
    share = (usual if nucleus is None else nucleus) * np.exp(rng.normal(0, 0.06, n))
    shift = rng.normal(0, 0.12, (n, 2)) * radii[:, None]
    dy, dx = ys - (centre[:, 0] + shift[:, 0])[owner], xs - (centre[:, 1] + shift[:, 1])[owner]
    present = rng.random(n) > rng.uniform(0.02, 0.15)
    nuclei = (squared_distance(owner, dy, dx, share[owner]) < 1) & (owner > 0) & present[owner]
    return owner, under, np.arctan2(dy, dx).astype(np.float32), nuclei
