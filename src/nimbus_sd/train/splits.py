"""Which regions train, which choose the checkpoint, and which test: never tile by tile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

TRAIN: Final = "train"
VALIDATION: Final = "validation"
TEST: Final = "test"
SPLITS: Final = (TRAIN, VALIDATION, TEST)


def assign_splits(
    groups: Mapping[str, str],
    evaluation: set[str],
    split: Sequence[float] | Mapping[str, Sequence[str]],
    rng: int | np.random.Generator,
    there: Mapping[str, Mapping[str, str]],
) -> dict[str, str]:
    """Give each region a split.

    Parameters
    ----------
    groups
        Region -> what it may share with others of its split only: its image, or a patient.
    evaluation
        Regions for evaluation (drawn for it, or with gold), which are for testing, and so are all of their groups.
    split
        Shares of groups for training, validation and test; or split -> regions, where all of them have their place.
    rng
        Seed or generator of the draw.
    there
        Region -> split -> where the same pixels, or the same patient, are in that split already. By shares, its group
        goes there.

    Returns
    -------
    Region -> ``"train"``, ``"validation"`` or ``"test"``.

    Raises
    ------
    ValueError
        If a split would be empty, a region or a group is in two splits or in none, evaluation gold is outside of the
        test, or what is there already in another split.
    """
    if isinstance(split, Mapping):
        found = _given(groups, evaluation, split)
    else:
        found = _drawn(groups, evaluation, split, rng, there)
    for region, places in there.items():
        for name, where in places.items():
            if name != found[region]:
                raise ValueError(
                    f"Region {region!r} would be for {found[region]}, but it has pixels, or a value of `split_by`, of "
                    f"{where}, which is for {name} in this store. Put it there too, leave it out, or use another store."
                )
    return found


def _drawn(
    groups: Mapping[str, str],
    evaluation: set[str],
    split: Sequence[float],
    rng: int | np.random.Generator,
    there: Mapping[str, Mapping[str, str]],
) -> dict[str, str]:
    try:
        shares = [float(share) for share in split]
    except (TypeError, ValueError):
        shares = []
    if len(shares) != 3 or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"`split` is {split!r}; give three shares above 0 that sum to 1, or a mapping to regions.")
    place = {groups[region]: name for region, places in there.items() for name in places}
    place |= {groups[region]: TEST for region in evaluation}
    free = sorted(set(groups.values()) - set(place))
    np.random.default_rng(rng).shuffle(free)
    n, taken = len(place) + len(free), list(place.values())
    n_validation, n_test = (
        max(0, max(1, round(share * n)) - taken.count(name))
        for share, name in zip(shares[1:], (VALIDATION, TEST), strict=True)
    )
    n_train = 0 if TRAIN in taken else 1
    if len(free) < n_train + n_validation + n_test:
        raise ValueError(
            f"There are {n} independent groups of regions (by image, or by `split_by`), {len(place)} of them with a "
            "place: for testing, as they are drawn for evaluation or have gold, or as this store has them. Of the "
            f"others, {n_train} is needed for training, {n_validation} for validation and {n_test} for testing; tiles "
            "of one region are no independent test. Add regions, say which is for what with "
            "`split={'train': [...], 'validation': [...], 'test': [...]}`, or put labels that may be trained on into "
            "layers['gold_training']."
        )
    order = [TEST] * n_test + [VALIDATION] * n_validation + [TRAIN] * len(free)
    place |= dict(zip(free, order, strict=False))
    return {region: place[group] for region, group in groups.items()}


def _given(groups: Mapping[str, str], evaluation: set[str], split: Mapping[str, Sequence[str]]) -> dict[str, str]:
    if unknown := sorted(set(split) - set(SPLITS)):
        raise ValueError(f"`split` names {unknown}; it may have {', '.join(SPLITS)}.")
    if strings := [name for name, regions in split.items() if isinstance(regions, str)]:
        raise ValueError(f"`split` gives {strings} as text; give a list of regions.")
    places: dict[str, set[str]] = {}
    for name, regions in split.items():
        for region in regions:
            places.setdefault(region, set()).add(name)
    if strangers := sorted(set(places) - set(groups)):
        raise ValueError(f"`split` names {strangers}, which are no regions; there are {sorted(groups)}.")
    if homeless := sorted(set(groups) - set(places)):
        raise ValueError(f"`split` has no place for the region(s) {homeless}; name each in one split.")
    if twice := sorted(region for region, names in places.items() if len(names) > 1):
        raise ValueError(f"`split` has the region(s) {twice} in two splits; training on them would be no test.")
    found = {region: next(iter(names)) for region, names in places.items()}
    if wrong := sorted(region for region in evaluation if found[region] != TEST):
        raise ValueError(f"Region(s) {wrong} are for evaluation (drawn, or with gold); put them in 'test'.")
    by_group: dict[str, set[str]] = {}
    for region, group in groups.items():
        by_group.setdefault(group, set()).add(found[region])
    if torn := sorted(group for group, names in by_group.items() if len(names) > 1):
        raise ValueError(f"`split` tears apart what belongs together (image, `split_by`, or the same pixels): {torn}.")
    return found
