"""Changes of tiles before they are shown: image, interior, cells and what may be learned from move together."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import kornia.augmentation as K
import torch
from kornia.geometry.transform import elastic_transform2d
from torch import Tensor

from nimbus_sd.train.recipe import Augmentation
from nimbus_sd.train.tiles import StoredBatch

B = TypeVar("B", bound=StoredBatch)
# Smoothness of elastic deformations, in pixels.
_SIGMA = 16.0


class Augment:
    """Draws flips, quarter turns, free rotation, scale, elastic deformation, contrast, brightness, noise and blur.

    Parameters
    ----------
    strength
        Of each change.
    seed
        Of all draws; the same seed, step and device give the same tiles.
    """

    def __init__(self, strength: Augmentation, seed: int) -> None:
        self.seed = seed
        one = strength
        turn = {"degrees": one.rotation, "scale": (1 - one.scale, 1 + one.scale), "p": 0.5}
        moves = [
            (one.rotation or one.scale, lambda: K.RandomAffine(**turn)),
            (one.elastic, lambda: _Elastic(one.elastic)),
        ]
        looks = [
            (one.blur, lambda: K.RandomGaussianBlur(_kernel(one.blur), (0.1, max(one.blur, 0.1)), p=0.5)),
            (one.contrast, lambda: K.RandomContrast((1 - one.contrast, 1 + one.contrast), p=0.5)),
            (one.brightness, lambda: K.RandomBrightness((1 - one.brightness, 1 + one.brightness), p=0.5)),
            (one.noise, lambda: K.RandomGaussianNoise(0.0, one.noise, p=0.5)),
        ]
        wanted = [make() for strong, make in [*moves, *looks] if strong]
        self._changes = K.AugmentationSequential(*wanted, data_keys=["input", "mask"]) if wanted else None

    def __call__(self, batch: B, step: int, rank: int = 0) -> B:
        """Change a batch.

        Parameters
        ----------
        batch
            Tiles (B, 2, h, w), with h = w.
        step, rank
            Number of the step, and of the device that works on the batch.

        Returns
        -------
        A batch of the same labels. Pixels from outside of a tile are background, and not ``inside``.
        """
        devices = [batch.inputs.device] if batch.inputs.is_cuda else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(hash((self.seed, step, rank)))
            image, interior = batch.inputs[:, :1], batch.inputs[:, 1:]
            masks = torch.cat([interior, batch.inside[:, None].float(), batch.cells[:, None].float()], dim=1)
            image, masks = _squares(image, masks)
            if self._changes is not None:
                image, masks = self._changes(image, masks)
        inside = masks[:, 1] > 0.5
        cells = torch.where(inside, masks[:, 2].round().long(), 0)
        interior = masks[:, :1] * inside[:, None]
        return replace(batch, inputs=torch.cat([image.clamp(0, 1), interior], dim=1), cells=cells, inside=inside)


def _squares(image: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Lay each tile in one of the eight ways on its square; exact, unlike a rotation by a warp."""
    turns, flips = torch.randint(4, (len(image),)).tolist(), torch.randint(2, (len(image),)).tolist()

    def view(tiles: Tensor) -> Tensor:
        turned = [torch.rot90(tile, k, (-2, -1)) for tile, k in zip(tiles, turns, strict=True)]
        return torch.stack([tile.flip(-1) if flip else tile for tile, flip in zip(turned, flips, strict=True)])

    return view(image), view(masks)


class _Elastic(K.RandomElasticTransform):
    """kornia's elastic deformation, its strength in pixels whatever the size of the tile."""

    def __init__(self, strength: float) -> None:
        super().__init__(p=0.5)
        self._strength = strength

    def apply_transform(self, input: Tensor, params, flags, transform=None) -> Tensor:  # type: ignore[no-untyped-def]
        # Uniform noise in [-1, 1], smoothed by a Gaussian of this width, has this typical size.
        typical = (1 / 3) ** 0.5 / (2 * _SIGMA * torch.pi**0.5)
        alpha = [2 * self._strength / (typical * side) for side in input.shape[-2:]]
        side = 2 * int(1.5 * _SIGMA) + 1
        noise = params["noise"].to(input)
        mode = flags["resample"].name.lower()
        return elastic_transform2d(input, noise, (side, side), (_SIGMA, _SIGMA), tuple(alpha), False, mode, "zeros")


def _kernel(sigma: float) -> int:
    return 2 * max(1, round(3 * sigma)) + 1
