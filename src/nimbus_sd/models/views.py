"""The eight views of a square, over which scores may be averaged."""

from typing import NamedTuple

import torch
from torch import Tensor


class View(NamedTuple):
    """One of the eight ways to lay a square on itself."""

    quarter_turns: int
    flipped: bool

    @property
    def swaps_axes(self) -> bool:
        """Whether height becomes width."""
        return self.quarter_turns % 2 == 1

    def of(self, x: Tensor) -> Tensor:
        """Turn, then flip the last two axes."""
        x = torch.rot90(x, self.quarter_turns, (-2, -1))
        return x.flip(-1) if self.flipped else x

    def undo(self, x: Tensor) -> Tensor:
        """Bring a view back: ``undo(of(x))`` is ``x``."""
        x = x.flip(-1) if self.flipped else x
        return torch.rot90(x, -self.quarter_turns, (-2, -1))


IDENTITY = View(0, False)
VIEWS = tuple(View(turns, flipped) for turns in (0, 2, 1, 3) for flipped in (False, True))
