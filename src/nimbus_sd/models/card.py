"""A model's card: what a set of weights is, and what it expects of its input."""

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from nimbus_sd._disk import replacing
from nimbus_sd.models.unet import MAX_DEPTH, MAX_PATCH, MIN_DEPTH, Padding

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
    rule
        Which level of a channel becomes 1: ``"mean_of_regions"`` the mean of each region's quantile, ``"pooled"`` the
        quantile of the pixels of all regions, ``"otsu"`` five times Otsu's threshold of the mean intensities of cells
        of all regions, taken in squares of 8 um, so that neither single bright pixels nor glass count.
    quantile
        Quantile, in (0, 1], of the pixels above 0; None by the rule ``"otsu"``.
    tta
        Whether the eight views of a tile (flips, quarter turns) are averaged by default.
    license
        Under which the weights may be used.
    description, trained_on, source
        What the model is, on which data it was trained, and where it comes from.
    figures
        Its measured performance, a number by name.
    sha256
        Of the weights' file, hexadecimal. None before the weights are written.
    revision
        Which version of the weights, where there are several.
    ranges
        Which images the model was trained on: by the name of an image statistic (see
        :func:`nimbus_sd.metrics.image_statistics`), its ``low`` and ``high``, and the share of such images that are
        outside of them, ``false_alarm``. Empty where not known.
    boundary
        What the inner boundary of a positive cell was in training: ``"background"`` (as published), so that a sure
        score stays below 1, or part of its ``"cell"``.
    training
        Settings of its training, values that JSON can hold. Empty where not known.

    Raises
    ------
    ValueError
        If a value is not one of those above.

    Examples
    --------
    >>> PUBLISHED.pixel_size, PUBLISHED.stride, PUBLISHED.halo
    (1.0, 16, 96)
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
        texts = ("name", "license", "description", "trained_on", "source")
        allowed = {
            **{key: (_is_text(getattr(self, key)), "a text") for key in texts},
            "name": (_is_text(self.name) and self.name != "", "a text that is not empty"),
            "root_filters": (_is_whole(self.root_filters, 1), "a whole number of at least 1"),
            "depth": (_is_whole(self.depth, MIN_DEPTH, MAX_DEPTH), f"from {MIN_DEPTH} to {MAX_DEPTH}"),
            "patch": (_is_whole(self.patch, 1, MAX_PATCH), f"from 1 to {MAX_PATCH}"),
            "padding": (self.padding in get_args(Padding), f"one of {', '.join(get_args(Padding))}"),
            "pixel_size": (_is_number(self.pixel_size) and self.pixel_size > 0, "um per pixel, above 0"),
            "rule": (self.rule in get_args(Rule), f"one of {', '.join(get_args(Rule))}"),
            "quantile": (_fits(self.quantile, self.rule), "in (0, 1], or null where the rule is 'otsu'"),
            "tta": (isinstance(self.tta, bool), "true or false"),
            "figures": (_is_figures(self.figures), "numbers by name"),
            "ranges": (_is_ranges(self.ranges), "low <= high and false_alarm in [0, 1] by name"),
            "boundary": (self.boundary in get_args(Boundary), f"one of {', '.join(get_args(Boundary))}"),
            "training": (_is_json(self.training), "an object that JSON can hold"),
            "sha256": (self.sha256 is None or _is_sha256(self.sha256), "64 hexadecimal digits or null"),
            "revision": (self.revision is None or _is_text(self.revision), "a text or null"),
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

    def to_json(self) -> str:
        """Return the card as JSON text. :meth:`from_json` reads it back."""
        return json.dumps(asdict(self) | {"figures": dict(self.figures)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "card") -> "Card":
        """Read a card from JSON text.

        Parameters
        ----------
        text
            A JSON object with the parameters of :class:`Card`.
        where
            What is read, for the message of an error.

        Raises
        ------
        ValueError
            If the text is not JSON, lacks a key, has an unknown one, or a value that is not allowed.

        Examples
        --------
        >>> Card.from_json(PUBLISHED.to_json()) == PUBLISHED
        True
        """
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where} is not valid JSON ({error}).") from error
        if not isinstance(content, dict):
            raise ValueError(f"{where} holds no JSON object; a card is an object with the keys of Card.")
        known = {f.name: f.default is MISSING and f.default_factory is MISSING for f in fields(cls)}
        missing = [key for key, required in known.items() if required and key not in content]
        if missing:
            raise ValueError(f"{where} lacks {', '.join(missing)}.")
        unknown = sorted(set(content) - set(known))
        if unknown:
            raise ValueError(f"{where} has unknown keys {', '.join(unknown)}; known are {', '.join(known)}.")
        try:
            return cls(**content)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error

    def write(self, path: str | Path) -> None:
        """Write the card as a JSON file."""
        with replacing(path) as (file,):
            file.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def read(cls, path: str | Path) -> "Card":
        """Read a card from a JSON file, see :meth:`from_json`."""
        return cls.from_json(Path(path).read_bytes(), where=str(path))


def _fits(quantile: Any, rule: str) -> bool:
    if rule == "otsu":
        return quantile is None
    return _is_number(quantile) and 0 < quantile <= 1


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_whole(value: Any, low: int, high: float = math.inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_figures(value: Any) -> bool:
    return isinstance(value, Mapping) and all(_is_text(k) and _is_number(v) for k, v in value.items())


def _is_ranges(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        _is_text(name)
        and _is_figures(limits)
        and set(limits) == {"low", "high", "false_alarm"}
        and limits["low"] <= limits["high"]
        and 0 <= limits["false_alarm"] <= 1
        for name, limits in value.items()
    )


def _is_json(value: Any) -> bool:
    try:
        return isinstance(value, Mapping) and json.loads(json.dumps(value, allow_nan=False)) == value
    except (TypeError, ValueError, RecursionError):
        return False


def _is_sha256(value: Any) -> bool:
    return _is_text(value) and len(value) == 64 and set(value) <= set("0123456789abcdef")


#: Card of the published Nimbus model, with the figures that its authors report.
PUBLISHED = Card(
    name="nimbus",
    root_filters=64,
    depth=5,
    padding="reflect",
    pixel_size=1.0,
    rule="mean_of_regions",
    quantile=0.999,
    tta=True,
    license="MIT",
    description="The published Nimbus model: a residual U-Net with noise-robust training.",
    trained_on="Pan-Multiplex (Pan-M): images of codex, mibi and vectra with silver-standard labels.",
    source="JLrumberger/Nimbus-Inference",
    figures={
        "gold_standard_precision": 0.854,
        "gold_standard_recall": 0.850,
        "gold_standard_specificity": 0.985,
        "gold_standard_f1": 0.850,
    },
)
