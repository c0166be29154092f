"""Editing metaclusters: each function returns a new value."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from nimbus_sd.tl.metaclusters.value import Metaclusters, Step, check_name, hex_color, next_color


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
    merged = _names(metaclusters, "metaclusters")
    if len(set(merged)) < 2 or len(set(merged)) < len(merged):
        raise ValueError(f"`metaclusters` is {list(merged)}; a merge needs two or more different ones.")
    clusters = [cluster for name in merged for cluster in _clusters(value, name)]
    _check_new(into, set(value.names) - set(merged), "include it in the merge, or")
    color = value.colors[into if into in merged else merged[0]]
    first = next(name for name in value.names if name in merged)
    colors = {
        into if name == first else name: color if name == first else one
        for name, one in value.colors.items()
        if name == first or name not in merged
    }
    return value.after(Step("merge", (("metaclusters", merged), ("into", into))), dict.fromkeys(clusters, into), colors)


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
    taken, there = _names(clusters, "clusters"), _clusters(value, metacluster)
    if unknown := [cluster for cluster in taken if cluster not in there]:
        raise KeyError(f"Metacluster {metacluster!r} has no cluster(s) {unknown}; it has {list(there)}.")
    if not 0 < len(set(taken)) < len(there):
        raise ValueError(
            f"`clusters` names {len(set(taken))} of the {len(there)} clusters of {metacluster!r}; a split takes out at "
            "least one and leaves at least one."
        )
    _check_new(into, value.names, "choose another name, and merge them then, or")
    step = Step("split", (("metacluster", metacluster), ("clusters", taken), ("into", into)))
    colors = {**value.colors, into: next_color(value.colors.values())}
    return value.after(step, dict.fromkeys(taken, into), colors)


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
    clusters = _clusters(value, metacluster)
    _check_new(name, set(value.names) - {metacluster}, "merge them, or")
    colors = {name if one == metacluster else one: color for one, color in value.colors.items()}
    step = Step("rename", (("metacluster", metacluster), ("name", name)))
    return value.after(step, dict.fromkeys(clusters, name), colors)


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
    _clusters(value, metacluster)
    step = Step("recolor", (("metacluster", metacluster), ("color", hex_color(color))))
    return value.after(step, {}, {**value.colors, metacluster: hex_color(color)})


def undo(value: Metaclusters) -> Metaclusters:
    """Take back the last step.

    Raises
    ------
    ValueError
        If there is none.
    """
    if not value.steps:
        raise ValueError("There is no step to undo: the metaclusters are as they were at the start.")
    return redo(value.steps[:-1], Metaclusters(value.initial, value.initial_colors, value.cells))


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
    return redo(value.steps, onto)


def history(value: Metaclusters) -> list[str]:
    """Say in words what was done, one line for each step.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> mc = ns.tl.metaclusters
    >>> mc.history(mc.merge(mc.start(["0", "1", "2"]), ["0", "2"], into="T cell"))
    ["merge '0', '2' into 'T cell'"]
    """
    return list(map(_told, value.steps))


#: The editing functions, and how a step of each is told.
EDITS: dict[str, tuple[Callable[..., Metaclusters], str]] = {
    "merge": (merge, "merge {metaclusters} into {into}"),
    "split": (split, "split {clusters} from {metacluster} as {into}"),
    "rename": (rename, "rename {metacluster} to {name}"),
    "recolor": (recolor, "color {metacluster} {color}"),
}


def redo(steps: Iterable[Step], value: Metaclusters) -> Metaclusters:
    """Do steps, one after the other; an error says which one cannot be done."""
    for number, step in enumerate(steps, 1):
        try:
            value = EDITS[step.do][0](value, **dict(step.given))
        except (KeyError, TypeError, ValueError) as error:
            raise type(error)(f"Step {number} ({_told(step)}) cannot be done. {error.args[0]}") from error
    return value


def _told(step: Step) -> str:
    given = {
        name: ", ".join(map(repr, one)) if isinstance(one, tuple) else one if name == "color" else repr(one)
        for name, one in step.given
    }
    return EDITS[step.do][1].format(**given)


def _clusters(value: Metaclusters, metacluster: str) -> tuple[str, ...]:
    """Clusters of a metacluster that exists."""
    if metacluster not in value.colors:
        raise KeyError(f"There is no metacluster {metacluster!r}; there are {list(value.names)}.")
    return value.members[metacluster]


def _check_new(name: object, taken: Collection[str], way_out: str) -> None:
    """Check the name of a metacluster that is not there yet."""
    if check_name(name) in taken:
        raise ValueError(f"There is a metacluster {name!r} already; {way_out} choose a name other than {list(taken)}.")


def _names(names: Sequence[str], argument: str) -> tuple[str, ...]:
    if isinstance(names, str):
        raise TypeError(f"`{argument}` is the text {names!r}; it must be a list of names: [{names!r}].")
    return tuple(names)
