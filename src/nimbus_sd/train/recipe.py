"""How a network is trained: every setting of a run, as plain values that a card can hold."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from numbers import Integral, Real
from typing import Any, Final, Literal

import numpy as np

from nimbus_sd.models import Padding

_KINDS: Final[dict[str, tuple[Any, str]]] = {"int": (Integral, "a whole number"), "float": (Real, "a number")}


def check_settings(settings: Any, **intervals: str) -> None:
    """Validate numeric fields by their annotation and by intervals such as ``rate="(0, 1]"``; convert NumPy scalars."""
    for name, (kind, _, optional) in {f.name: str(f.type).partition(" | ") for f in fields(settings)}.items():
        value, interval = getattr(settings, name), intervals.get(name, "(-inf, inf)")
        if kind not in _KINDS or (optional and value is None):
            continue
        number, what = _KINDS[kind]
        low, high = map(float, interval[1:-1].split(","))
        right = isinstance(value, number) and not isinstance(value, bool) and low <= value <= high
        if not right or (value == low and interval[0] == "(") or (value == high and interval[-1] == ")"):
            raise ValueError(f"{name} is {value!r}; it must be {what} in {interval}{', or None' * bool(optional)}.")
        if isinstance(value, np.generic):
            object.__setattr__(settings, name, value.item())


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(part, int | float) for part in value)


@dataclass(frozen=True)
class Selection:
    """Which cells the noise-robust phase learns from (Rumberger et al., "Noise-robust training procedure").

    A cell is kept if its loss is at most the threshold of its data set and marker, a running mean of the losses'
    quantile in each tile; or if label and score agree and the score is sure. The defaults are the paper's.

    Parameters
    ----------
    quantile, ramp
        Quantile of the losses of a tile's cells, in (0, 1); start and number of steps of a linear change to it, such as
        ``(0.5, 100_000)``, or None.
    rate
        Weight of a new tile in the running mean.
    sure
        Scores below the first and above the second are sure.
    per_class
        Whether positive and negative cells have a threshold each.
    histogram
        Take the quantile of a histogram of losses, of which each tile forgets the share ``rate``, instead of the mean
        of tiles' quantiles, which is biased where tiles hold few cells.
    """

    quantile: float = 0.85
    ramp: tuple[float, int] | None = None
    rate: float = 0.01
    sure: tuple[float, float] = (0.1, 0.9)
    per_class: bool = False
    histogram: bool = False

    def __post_init__(self) -> None:
        check_settings(self, quantile="(0, 1)", rate="(0, 1]")
        if self.ramp is not None and not (_is_pair(self.ramp) and 0 < self.ramp[0] < 1 <= self.ramp[1]):
            raise ValueError(f"ramp is {self.ramp!r}; it must be a quantile in (0, 1) and a number of steps, or None.")
        if not (_is_pair(self.sure) and 0 <= self.sure[0] < self.sure[1] <= 1):
            raise ValueError(f"sure is {self.sure!r}; it must be two scores in [0, 1], the lower first.")

    def quantile_at(self, step: int) -> float:
        """Return the quantile after so many steps of the noise-robust phase."""
        if self.ramp is None:
            return self.quantile
        start, steps = self.ramp
        return start + (self.quantile - start) * min(1.0, step / steps)


@dataclass(frozen=True)
class Augmentation:
    """By how much tiles are changed before the network sees them. A strength of 0 turns a change off.

    Flips and quarter turns are always drawn; each of the others is drawn for half of the tiles.

    Parameters
    ----------
    elastic
        Typical shift of a pixel by elastic deformation, in model pixels.
    rotation, scale
        Largest angle of the free rotation, in degrees; largest change of size: 0.2 is from 0.8 to 1.2.
    contrast, brightness
        Largest change of the image's level: 0.3 multiplies it by 0.7 to 1.3; largest level that is added or subtracted.
    noise, blur
        Standard deviation of Gaussian noise; largest sigma of Gaussian blur, in model pixels.
    """

    elastic: float = 2.0
    rotation: float = 180.0
    scale: float = 0.2
    contrast: float = 0.3
    brightness: float = 0.03
    noise: float = 0.02
    blur: float = 1.0

    def __post_init__(self) -> None:
        intervals = dict.fromkeys(("elastic", "noise", "blur"), "[0, 100]") | {"rotation": "[0, 180]"}
        check_settings(self, **intervals, **dict.fromkeys(("scale", "contrast", "brightness"), "[0, 0.9]"))


@dataclass(frozen=True)
class Recipe:
    """Every setting of a training run. The defaults are the paper's (Rumberger et al., "Training details").

    Parameters
    ----------
    root_filters, depth, padding, patch
        The network, see :class:`nimbus_sd.models.UNet`. Not used where training starts with a model.
    naive_steps, robust_steps
        Batches of the first phase, which believes all labels, and of the second, which selects cells.
    batch_size
        Tiles per batch, over all devices.
    learning_rate
        At the start; it falls to 0 along a cosine over both phases.
    weight_decay, pull
        How fast weights are drawn to 0 (AdamW), and to those that training started with (L2-SP; Li et al. 2018): shares
        per step and learning rate.
    clip
        Largest norm of a batch's gradient.
    boundary
        Whether the inner boundary of cells is ``"background"``, negative in every cell (the paper), or ``"cell"``, part
        of its cell. None takes what the model was trained with, which its card says; the paper's without a model.
    selection, augmentation
        Of cells in the second phase; of tiles.
    validate_every
        Steps between validations, each of which writes a checkpoint, and the model if it is the best so far.
    patience
        Training ends after so many validations without a better F1, not counting those of a naive phase before a
        robust one. None: never.

    Examples
    --------
    >>> Recipe().naive_steps, Recipe.laptop(batch_size=4).naive_steps
    (300000, 3000)
    """

    root_filters: int = 64
    depth: int = 5
    padding: Padding = "reflect"
    patch: int = 1
    naive_steps: int = 300_000
    robust_steps: int = 100_000
    batch_size: int = 16
    learning_rate: float = 3e-4
    weight_decay: float = 1e-3
    pull: float = 0.0
    clip: float = 1.0
    boundary: Literal["background", "cell"] | None = None
    selection: Selection = field(default_factory=Selection)
    augmentation: Augmentation = field(default_factory=Augmentation)
    validate_every: int = 5000
    patience: int | None = None

    def __post_init__(self) -> None:
        intervals = {"naive_steps": "[0, inf)" if self.robust_steps else "[1, inf)"}
        intervals |= dict.fromkeys(("robust_steps", "weight_decay", "pull"), "[0, inf)")
        intervals |= dict.fromkeys(("batch_size", "validate_every", "patience"), "[1, inf)")
        check_settings(self, learning_rate="(0, inf)", clip="(0, inf)", **intervals)
        for name, kind in (("selection", Selection), ("augmentation", Augmentation)):
            if not isinstance(getattr(self, name), kind):
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be a {kind.__name__}.")
        if self.boundary not in (None, "background", "cell"):
            raise ValueError(f"boundary is {self.boundary!r}; it must be 'background', 'cell' or None.")

    @classmethod
    def laptop(cls, **changes: Any) -> Recipe:
        """Return settings for a small network on processors, some of them changed; about 40 minutes on two cores."""
        settings: dict[str, Any] = {"root_filters": 8, "depth": 4, "naive_steps": 3000, "robust_steps": 1000}
        settings |= {"batch_size": 8, "learning_rate": 2e-3, "selection": _SHORT, "validate_every": 250}
        return cls(**settings | changes)

    @classmethod
    def fine_tune(cls, **changes: Any) -> Recipe:
        """Return settings to go on from a model: small steps, near the start, ended when F1 falls; some changed."""
        settings: dict[str, Any] = {"naive_steps": 0, "robust_steps": 1000, "batch_size": 4, "learning_rate": 2e-4}
        settings |= {"weight_decay": 0.0, "pull": 0.05, "selection": _SHORT, "validate_every": 50, "patience": 6}
        return cls(**settings | changes)

    @property
    def steps(self) -> int:
        """Batches of both phases."""
        return self.naive_steps + self.robust_steps

    def to_dict(self) -> dict[str, Any]:
        """Return all settings as values that JSON can hold."""
        return dict(json.loads(json.dumps(asdict(self))))


# Short runs need thresholds that follow; and where positive cells are few, theirs are the high losses.
_SHORT: Final = Selection(rate=0.1, per_class=True)
