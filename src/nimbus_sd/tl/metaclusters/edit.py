"""Editing metaclusters: each function returns a new value."""

from __future__ import annotations

from collections.abc import Sequence

from nimbus_sd.tl.metaclusters.names import hex_color
from nimbus_sd.tl.metaclusters.steps import Merge, Recolor, Rename, Split
from nimbus_sd.tl.metaclusters.value import Metaclusters


def merge(value: Metaclusters, metaclusters: Sequence[str], into: str) -> Metaclusters:
    """Make one metacluster of several.

    Parameters
    ----------
    value
        The metaclusters.
    metaclusters
        Names of two or more.
    into
        Name of the result: a new one, or one of them. It takes the place of the first of them, and the colour of the
        one of that name, else of the one named first.

    Returns
    -------
    Metaclusters
        With one step more.

    Raises
    ------
    KeyError
        If there is no such metacluster.
    ValueError
        If there are fewer than two, or the name belongs to another metacluster or cannot be written to disk.
    """
    return value.after(Merge(_names(metaclusters, "metaclusters"), into))


def split(value: Metaclusters, metacluster: str, clusters: Sequence[str], into: str) -> Metaclusters:
    """Take clusters out of a metacluster and make a new one of them.

    Parameters
    ----------
    value
        The metaclusters.
    metacluster
        The one to split.
    clusters
        Some of its clusters, not all.
    into
        Name of the new metacluster, which comes last and gets a colour that is not taken.

    Returns
    -------
    Metaclusters
        With one step more.

    Raises
    ------
    KeyError
        If there is no such metacluster, or it has no such cluster.
    ValueError
        If no cluster would be taken or none left, or the name is taken or cannot be written to disk.
    """
    return value.after(Split(metacluster, _names(clusters, "clusters"), into))


def rename(value: Metaclusters, metacluster: str, name: str) -> Metaclusters:
    """Give a metacluster another name.

    Parameters
    ----------
    value
        The metaclusters.
    metacluster
        The one to rename.
    name
        Its new name, which no other has.

    Returns
    -------
    Metaclusters
        With one step more.

    Raises
    ------
    KeyError
        If there is no such metacluster.
    TypeError, ValueError
        If the name is no text, taken, or cannot be written to disk.
    """
    return value.after(Rename(metacluster, name))


def recolor(value: Metaclusters, metacluster: str, color: str) -> Metaclusters:
    """Give a metacluster another colour.

    Parameters
    ----------
    value
        The metaclusters.
    metacluster
        The one to colour.
    color
        As matplotlib knows it: ``"tab:blue"``, ``"#1f77b4"``.

    Returns
    -------
    Metaclusters
        With one step more.

    Raises
    ------
    KeyError
        If there is no such metacluster.
    ValueError
        If it is no colour.
    """
    return value.after(Recolor(metacluster, hex_color(color)))


def undo(value: Metaclusters) -> Metaclusters:
    """Take back the last step.

    Raises
    ------
    ValueError
        If there is none.
    """
    if not value.steps:
        raise ValueError("There is no step to undo: the metaclusters are as they were at the start.")
    return Metaclusters(value.initial, value.initial_colors, value.steps[:-1])


def replay(value: Metaclusters, onto: Metaclusters) -> Metaclusters:
    """Do the steps of a value again on another one, such as a clustering of more cells with the same names.

    Parameters
    ----------
    value
        The metaclusters whose steps are taken.
    onto
        The metaclusters on which they are done.

    Returns
    -------
    Metaclusters
        ``onto``, with the steps of ``value`` after its own.

    Raises
    ------
    KeyError, TypeError, ValueError
        If a step cannot be done there; the message says which.
    """
    for number, step in enumerate(value.steps, 1):
        try:
            onto = onto.after(step)
        except (KeyError, TypeError, ValueError) as error:
            raise type(error)(f"Step {number} ({step}) cannot be done. {error.args[0]}") from error
    return onto


def history(value: Metaclusters) -> list[str]:
    """Say in words what was done, one line for each step.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> mc = ns.tl.metaclusters
    >>> mc.history(mc.merge(mc.start(["0", "1", "2"]), ["0", "2"], into="T cell"))
    ["merge '0', '2' into 'T cell'"]
    """
    return list(map(str, value.steps))


def _names(names: Sequence[str], argument: str) -> tuple[str, ...]:
    if isinstance(names, str):
        raise TypeError(f"`{argument}` is the text {names!r}; it must be a list of names: [{names!r}].")
    return tuple(names)
