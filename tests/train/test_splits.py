"""Who trains, validates and tests."""

import pytest

from nimbus_sd.train.splits import assign_splits

TEN = {f"r{i}": f"r{i}" for i in range(10)}
SHARES = (0.8, 0.1, 0.1)


def count(splits: dict[str, str]) -> list[int]:
    return [list(splits.values()).count(name) for name in ("train", "validation", "test")]


def test_shares_are_of_groups_and_follow_the_seed():
    drawn = [assign_splits(TEN, set(), SHARES, seed, {}) for seed in (0, 0, 1)]
    assert count(drawn[0]) == [8, 1, 1]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_group_is_never_torn():
    groups = {f"r{i}": f"patient {i // 4}" for i in range(40)}
    splits = assign_splits(groups, set(), SHARES, 0, {})
    assert count(splits) == [32, 4, 4]
    for patient in set(groups.values()):
        assert len({splits[region] for region, own in groups.items() if own == patient}) == 1


def test_evaluation_gold_is_for_testing_and_so_is_its_whole_group():
    groups = {f"r{i}": f"patient {i // 2}" for i in range(20)}
    splits = assign_splits(groups, {"r0", "r4"}, SHARES, 0, {})
    assert {region for region, split in splits.items() if split == "test"} == {"r0", "r1", "r4", "r5"}
    assert count(splits) == [14, 2, 4]


@pytest.mark.parametrize("n, evaluation", [(2, set()), (3, {"r0", "r1"})])
def test_too_few_regions_are_refused(n, evaluation):
    with pytest.raises(ValueError, match="independent groups of regions"):
        assign_splits({f"r{i}": f"r{i}" for i in range(n)}, evaluation, SHARES, 0, {})


@pytest.mark.parametrize("shares", [(0.8, 0.2), (0.8, 0.1, 0.2), (1, 0, 0), 0.8, "0.8"])
def test_shares_must_sum_to_one(shares):
    with pytest.raises(ValueError, match="three shares above 0"):
        assign_splits(TEN, set(), shares, 0, {})


GIVEN = {"train": ["a", "b"], "validation": ["c"], "test": ["d"]}
GROUPS = {name: name for name in "abcd"}


def test_a_given_split_is_taken():
    assert assign_splits(GROUPS, {"d"}, GIVEN, 0, {}) == {"a": "train", "b": "train", "c": "validation", "d": "test"}


@pytest.mark.parametrize(
    "split, groups, evaluation, message",
    [
        (GIVEN | {"test": ["d", "a"]}, GROUPS, set(), r"\['a'\] in two splits"),
        (GIVEN | {"test": ["d", "e"]}, GROUPS, set(), r"\['e'\], which are no regions"),
        (GIVEN | {"test": []}, GROUPS, set(), r"no place for the region\(s\) \['d'\]"),
        (GIVEN | {"testing": []}, GROUPS, set(), r"names \['testing'\]"),
        (GIVEN | {"test": "d"}, GROUPS, set(), "as text"),
        (GIVEN, GROUPS, {"a"}, r"\['a'\] are for evaluation"),
        (GIVEN, GROUPS | {"c": "a"}, set(), r"tears apart .*\['a'\]"),
    ],
)
def test_wrong_splits_are_refused(split, groups, evaluation, message):
    with pytest.raises(ValueError, match=message):
        assign_splits(groups, evaluation, split, 0, {})


THERE = {"r3": {"validation": "region 'x' of data set 'd'"}, "r7": {"train": "region 'y' of data set 'd'"}}


def test_what_is_there_already_keeps_its_split_and_its_group_follows():
    groups = TEN | {"r4": "r3"}
    for seed in range(5):
        splits = assign_splits(groups, set(), SHARES, seed, THERE)
        assert (splits["r3"], splits["r4"], splits["r7"]) == ("validation", "validation", "train")
        assert count(splits) == [7, 2, 1]


@pytest.mark.parametrize(
    "groups, evaluation, split",
    [
        (GROUPS, set(), GIVEN),
        (GROUPS, {"c"}, SHARES),
        # One patient, of whom the store has regions in two splits.
        (GROUPS | {"b": "c"}, set(), SHARES),
    ],
)
def test_what_is_there_already_cannot_have_another_split(groups, evaluation, split):
    there = {"c": {"train": "region 'x' of data set 'd'"}, "b": {"test": "region 'y' of data set 'e'"}}
    there = there if "c" in groups["b"] else {"c": there["c"]}
    with pytest.raises(ValueError, match=r"Region '[bc]' would be for .*region '[xy]' of data set '[de]', which"):
        assign_splits(groups, evaluation, split, 0, there)
