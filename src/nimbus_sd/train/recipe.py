"""How a network is trained: every setting of a run, as plain values that a card can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from nimbus_sd.models import Padding
from nimbus_sd.train._settings import check, check_numbers, is_pair


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class Selection:
    """Which cells the noise-robust phase learns from (Rumberger et al., "Noise-robust training procedure").

    A cell is kept if its loss is at most the threshold of its data set and marker, a running mean of the losses'
    quantile in each tile; or if label and score agree and the score is sure. The defaults are the paper's.

    Parameters
    ----------
    quantile
        Of the losses of a tile's cells, in (0, 1).
    ramp
        Quantile and number of steps from which ``quantile`` is reached linearly, such as ``(0.5, 100_000)``. None: it
        is the same throughout.
    rate
        Weight of a new tile in the running mean.
    sure
        Scores below the first and above the second are sure.
    per_class
        Whether positive and negative cells have a threshold each.
    histogram
        Take the quantile of a histogram of losses, of which each tile forgets the share ``rate``, instead of the mean
        of tiles' quantiles, which is biased where tiles hold few cells.

    Raises
    ------
    ValueError
        If a value is outside of what is allowed.
    """

    quantile: float = 0.85
    ramp: tuple[float, int] | None = None
    rate: float = 0.01
    sure: tuple[float, float] = (0.1, 0.9)
    per_class: bool = False
    histogram: bool = False

    def __post_init__(self) -> None:
        check_numbers(self)
        check("quantile", self.quantile, 0 < self.quantile < 1, "in (0, 1)")
        ramp = self.ramp is None or (is_pair(self.ramp) and 0 < self.ramp[0] < 1 <= self.ramp[1])
        check("ramp", self.ramp, ramp, "a quantile in (0, 1) and a number of steps, or None")
        check("rate", self.rate, 0 < self.rate <= 1, "in (0, 1]")
        sure = is_pair(self.sure) and 0 <= self.sure[0] < self.sure[1] <= 1
        check("sure", self.sure, sure, "two scores in [0, 1], the lower first")

    def quantile_at(self, step: int) -> float:
        """Return the quantile after so many steps of the noise-robust phase."""
        if self.ramp is None:
            return self.quantile
        start, steps = self.ramp
        return start + (self.quantile - start) * min(1.0, step / steps)


@dataclass(frozen=True)
class Augmentation:
    """By how much tiles are changed before they are shown. A strength of 0 turns a change off.

    Flips and quarter turns are always drawn; the others are drawn for half of the tiles each.

    Parameters
    ----------
    elastic
        Typical shift of a pixel by elastic deformation, in model pixels.
    rotation
        Largest angle of the free rotation, in degrees.
    scale
        Largest change of size: 0.2 is from 0.8 to 1.2.
    contrast
        Largest change of the image's level: 0.3 multiplies it by 0.7 to 1.3.
    brightness
        Largest level, of the normalised image, that is added or subtracted.
    noise
        Standard deviation of Gaussian noise.
    blur
        Largest sigma of Gaussian blur, in model pixels.

    Raises
    ------
    ValueError
        If a strength is negative, or so large that nothing is left of an image.
    """

    elastic: float = 2.0
    rotation: float = 180.0
    scale: float = 0.2
    contrast: float = 0.3
    brightness: float = 0.03
    noise: float = 0.02
    blur: float = 1.0

    def __post_init__(self) -> None:
        check_numbers(self)
        for name, value in asdict(self).items():
            most = 180 if name == "rotation" else 0.9 if name in ("scale", "contrast", "brightness") else 100
            check(name, value, 0 <= value <= most, f"from 0 to {most}")


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
    weight_decay
        Of AdamW: how fast weights are drawn to 0.
    pull
        How fast weights are drawn to those that training started with (L2-SP; Li et al. 2018), as a share per step and
        learning rate, like the decay.
    clip
        Largest norm of a batch's gradient.
    boundary
        Whether the inner boundary of cells is ``"background"``, negative in every cell (the paper), or ``"cell"``, part
        of its cell. None takes what the model was trained with, which its card says; the paper's without a model.
    selection, augmentation
        Of cells in the second phase; of tiles.
    validate_every
        Steps between validations. Then a checkpoint is written, and the best model so far.
    patience
        Training ends after so many validations without a better F1, not counting those of a naive phase before a
        robust one. None: never.

    Raises
    ------
    ValueError
        If a value is outside of what is allowed.

    Examples
    --------
    >>> from dataclasses import replace
    >>> replace(PAPER, root_filters=16, batch_size=4).naive_steps
    300000
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
        check_numbers(self)
        for name, kind in (("selection", Selection), ("augmentation", Augmentation)):
            check(name, getattr(self, name), isinstance(getattr(self, name), kind), f"a {kind.__name__}")
        for name in ("batch_size", "validate_every"):
            check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("naive_steps", "robust_steps", "weight_decay", "pull"):
            check(name, getattr(self, name), getattr(self, name) >= 0, "at least 0")
        for name in ("learning_rate", "clip"):
            check(name, getattr(self, name), getattr(self, name) > 0, "above 0")
        check("naive_steps", self.naive_steps, self.steps >= 1, "at least 1 where robust_steps is 0")
        check("boundary", self.boundary, self.boundary in (None, "background", "cell"), "'background', 'cell' or None")
        check("patience", self.patience, self.patience is None or self.patience >= 1, "at least 1, or None")

    @property
    def steps(self) -> int:
        """Batches of both phases."""
        return self.naive_steps + self.robust_steps

    def to_dict(self) -> dict[str, Any]:
        """Return all settings as values that JSON can hold."""
        return _plain(asdict(self))


def check_recipe(recipe: object) -> None:
    """Raise a TypeError if this is no recipe."""
    if not isinstance(recipe, Recipe):
        raise TypeError(
            f"`recipe` is {recipe!r}; it must be a `nimbus_sd.train.Recipe`, such as `nimbus_sd.train.LAPTOP`."
        )


#: The paper's settings: 300,000 steps that believe all labels, then 100,000 that select.
PAPER = Recipe()
# Short runs need thresholds that follow; and where positive cells are few, theirs are the high losses.
_QUICK = Selection(rate=0.1, per_class=True)
#: A small network for processors; docs/training.md says how long it takes with tiles of which size.
LAPTOP = Recipe(
    root_filters=8,
    depth=4,
    naive_steps=3000,
    robust_steps=1000,
    batch_size=8,
    learning_rate=2e-3,
    selection=_QUICK,
    validate_every=250,
)
#: From a model of the zoo on a few regions: small steps, near the start, ended when F1 falls.
FINE_TUNE = Recipe(
    naive_steps=0,
    robust_steps=1000,
    batch_size=4,
    learning_rate=2e-4,
    weight_decay=0.0,
    pull=0.05,
    selection=_QUICK,
    validate_every=50,
    patience=6,
)
