"""Names and colours that a metacluster may have."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable
from functools import cache
from itertools import count

# Okabe and Ito's colours for all kinds of colour vision, then Tol's muted ones, without black and near-doubles.
_PALETTE = (
    "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7",
    "#332288", "#88ccee", "#117733", "#999933", "#ddcc77", "#882255", "#aa4499",
)  # fmt: skip
_GOLDEN = 0.618034


def check_name(name: object, what: str = "metacluster") -> str:
    """Return a name that can be written to every format, and read as it is.

    Raises
    ------
    TypeError
        If it is no text.
    ValueError
        If it is empty, begins or ends with a blank, or has a line break or another character that cannot be written.
    """
    if not isinstance(name, str):
        raise TypeError(f"The name of a {what} is {name!r}, a {type(name).__name__}; it must be a text: {str(name)!r}.")
    if not name or name != name.strip():
        raise ValueError(f"The name of a {what} is {name!r}; it must not be empty, nor begin or end with a blank.")
    # Cc has the zero byte, which HDF5 cannot hold, and line breaks; Cs what no file can: halves of a character.
    if bad := sorted({letter for letter in name if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")}):
        raise ValueError(
            f"The name of a {what} is {name!r}, in which {', '.join(map(ascii, bad))} cannot be written to disk or on "
            "one line; leave it out."
        )
    return name


def check_new(name: object, taken: Collection[str], way_out: str) -> None:
    """Check the name of a metacluster that is not there yet."""
    if check_name(name) in taken:
        raise ValueError(f"There is a metacluster {name!r} already; {way_out} choose a name other than {list(taken)}.")


def hex_color(color: str) -> str:
    """Write a colour, in any way that matplotlib knows, as ``#rrggbb``.

    Raises
    ------
    ValueError
        If matplotlib does not know it.
    """
    from matplotlib.colors import is_color_like, to_hex

    if not is_color_like(color):
        raise ValueError(f"`color` is {color!r}, which is no color; pass a name such as 'tab:blue', or '#rrggbb'.")
    return to_hex(color)


def next_color(taken: Iterable[str]) -> str:
    """Return the first colour that is not taken: of a palette, and then around the colour wheel."""
    used = set(taken)
    return next(color for color in map(_color, count()) if color not in used)


@cache
def _color(i: int) -> str:
    from matplotlib.colors import hsv_to_rgb, to_hex

    if i < len(_PALETTE):
        return _PALETTE[i]
    # Steps of the golden ratio never come back to the same hue, and lightness varies beside it.
    return to_hex(tuple(hsv_to_rgb((i * _GOLDEN % 1, (0.9, 0.5, 0.7)[i % 3], (0.8, 0.95, 0.5)[i // 3 % 3]))))
