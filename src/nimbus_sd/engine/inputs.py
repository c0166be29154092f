"""What scores depend on: to be compared with an earlier call's, and to be told with them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from textwrap import shorten
from typing import Any

from nimbus_sd.engine.plan import Plan
from nimbus_sd.models import Scorer
from nimbus_sd.spatial import Region


def described(plan: Plan, scorer: Scorer) -> dict[str, Any]:
    """List what the sums of a plan's tiles depend on, but for the pixels; not where and in which batches they are made.

    Plain JSON.
    """
    card = scorer.card
    content = {
        "version": version("nimbus-sd"),
        "model": {"sha256": card.sha256, "pixel_size": card.pixel_size, "padding": card.padding},
        "views": 8 if scorer.tta else 1,
        "precision": scorer.precision,
        "channels": plan.regions[0].channels,
        "factors": dict(zip(plan.regions[0].channels, plan.factors, strict=True)),
        "tile_size": plan.tile_size,
        "labels": [region.labels_key for region in plan.regions],
        "regions": {
            region.labels_key: {
                "image": region.image_key,
                "dtype": str(region.dtype),
                "shape": region.shape,
                "pixel_size": region.pixel_size,
                "repeats": (region.image_repeat, region.labels_repeat),
            }
            for region in plan.regions
        },
    }
    return json.loads(json.dumps(content))


def differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """Say in words what differs between two descriptions."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            yield from differences(before.get(key), now.get(key), f"{name} {key!r}" if name else key)
    # NaN, a factor that is not there, is written NaN and is not itself.
    elif repr(before) != repr(now):
        yield f"{name}: {shorten(str(before), 80)} then, {shorten(str(now), 80)} now"


def provenance(scorer: Scorer, regions: Sequence[Region], *, given: bool) -> dict[str, Any]:
    """List, for the table, how scores were made; ``given``: the factors were, not measured."""
    card = scorer.card
    return {
        "model": card.name,
        "model_description": card.description,
        "sha256": card.sha256,
        "revision": card.revision,
        "model_pixel_size": card.pixel_size,
        "pixel_size": {region.labels_key: region.pixel_size * region.image_repeat for region in regions},
        "normalization": "given" if given else card.rule,
        "quantile": None if given else card.quantile,
        "views": 8 if scorer.tta else 1,
        "precision": scorer.precision,
        "version": version("nimbus-sd"),
        # Compared with the images by `tl.call_positive`, which loads no model.
        "ranges": card.ranges or None,
    }
