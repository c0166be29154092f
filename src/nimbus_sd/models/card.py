"""A model's card: what a set of weights is, and what it expects of its input."""

import json
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from nimbus_sd._disk import replacing
from nimbus_sd.models.unet import Padding, check_architecture

Rule = Literal["mean_of_regions", "pooled", "otsu"]
Boundary = Literal["background", "cell"]


@dataclass(frozen=True)
class Card:
    """What a set of weights is, and what it expects of its input.

    Parameters
    ----------
    name
        Name of the model.
    root_filters, depth, padding, patch
        Architecture, see :class:`~nimbus_sd.models.UNet`.
    pixel_size
        Width of a pixel that the model was trained on, in um.
    rule, quantile
        Which level of a channel becomes 1: ``"mean_of_regions"`` the mean over regions of this quantile, in (0, 1], of
        the pixels above 0, ``"pooled"`` the quantile of the pixels of all regions, ``"otsu"`` (quantile None) five
        times Otsu's threshold of the mean intensities of cells in squares of 8 um, so that neither single bright pixels
        nor glass count.
    tta
        Whether the eight views of a tile (flips, quarter turns) are averaged by default.
    license, description, trained_on, source
        Under which the weights may be used, what the model is, its training data, and where it comes from.
    figures
        Measured performance, numbers by name.
    sha256, revision
        Digest of the weights' file, hexadecimal (None before they are written), and their version if there are several.
    ranges
        Images that the model was trained on: by the name of an image statistic (see
        :func:`nimbus_sd.metrics.image_statistics`), its ``low`` and ``high``, and the share of such images outside of
        them, ``false_alarm``.
    boundary
        What the inner boundary of a positive cell was in training: ``"background"`` (as published), so that a sure
        score stays below 1, or part of its ``"cell"``.
    training
        Settings of its training, values that JSON can hold.

    Examples
    --------
    >>> from nimbus_sd.models import load
    >>> card = load("compact").card
    >>> card.pixel_size, card.stride, card.halo
    (0.5, 32, 192)
    """

    name: str
    root_filters: int
    depth: int
    padding: Padding
    pixel_size: float
    rule: Rule
    quantile: float | None
    tta: bool
    license: str
    description: str
    trained_on: str
    source: str
    figures: Mapping[str, float] = field(default_factory=dict, hash=False)
    sha256: str | None = None
    revision: str | None = None
    patch: int = 1
    ranges: Mapping[str, Mapping[str, float]] = field(default_factory=dict, hash=False)
    boundary: Boundary = "background"
    training: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        check_architecture(self.root_filters, self.depth, self.padding, self.patch)
        quantile_fits = self.quantile is None if self.rule == "otsu" else _is_number(self.quantile, math.ulp(0), 1)
        sha256_fits = self.sha256 is None or re.fullmatch("[0-9a-f]{64}", str(self.sha256))
        texts = ("license", "description", "trained_on", "source")
        allowed = {
            "name": (isinstance(self.name, str) and self.name, "a text that is not empty"),
            **{key: (isinstance(getattr(self, key), str), "a text") for key in texts},
            "pixel_size": (_is_number(self.pixel_size, math.ulp(0)), "um per pixel, above 0"),
            "rule": (self.rule in get_args(Rule), f"one of {', '.join(get_args(Rule))}"),
            "quantile": (quantile_fits, "in (0, 1], or null where the rule is 'otsu'"),
            "tta": (isinstance(self.tta, bool), "true or false"),
            "figures": (_are_numbers(self.figures), "numbers by name"),
            "sha256": (sha256_fits, "64 hexadecimal digits or null"),
            "revision": (isinstance(self.revision, str | None), "a text or null"),
            "ranges": (
                isinstance(self.ranges, Mapping) and all(map(_is_range, self.ranges.values())),
                "low <= high and false_alarm in [0, 1] by name",
            ),
            "boundary": (self.boundary in get_args(Boundary), f"one of {', '.join(get_args(Boundary))}"),
            "training": (_is_json(self.training), "an object that JSON can hold"),
        }
        for key, (right, what) in allowed.items():
            if not right:
                raise ValueError(f"Card of a model: {key} is {getattr(self, key)!r}; it must be {what}.")

    @property
    def stride(self) -> int:
        """Height and width of an input are multiples of this many pixels."""
        return self.patch << (self.depth - 1)

    @property
    def halo(self) -> int:
        """Margin, in model pixels, that a tile needs on each side for exactly the whole image's result."""
        return 6 * self.stride

    def write(self, path: str | Path) -> None:
        """Write the card as a JSON file. :meth:`read` reads it back."""
        with replacing(path) as (file,):
            file.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: str | Path) -> "Card":
        """Read a card from a JSON file: an object with the parameters of :class:`Card`."""
        try:
            content = json.loads(Path(path).read_bytes())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not valid JSON ({error}).") from error
        if not isinstance(content, dict):
            raise ValueError(f"{path} holds no JSON object; a card is an object with the keys of Card.")
        try:
            return cls(**content)
        except (TypeError, ValueError) as error:
            # A key that is missing or unknown is a TypeError.
            raise ValueError(f"{path}: {str(error).removeprefix('Card.__init__() ')}") from error


def _is_number(value: Any, low: float = -sys.float_info.max, high: float = sys.float_info.max) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _are_numbers(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(k, str) and _is_number(v) for k, v in value.items())


def _is_range(value: Any) -> bool:
    ordered = _are_numbers(value) and value.keys() == {"low", "high", "false_alarm"} and value["low"] <= value["high"]
    return ordered and 0 <= value["false_alarm"] <= 1


def _is_json(value: Any) -> bool:
    try:
        return isinstance(value, Mapping) and json.loads(json.dumps(value, allow_nan=False)) == value
    except (TypeError, ValueError, RecursionError):
        return False


WEIGHTS = Path(__file__).parent / "weights"
#: Card of the published Nimbus model, with the figures that its authors report.
PUBLISHED = Card.read(WEIGHTS / "nimbus.json")
