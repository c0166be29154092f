"""Parts of the simulator that are left out, and how runs are compared."""

from unittest import mock

import numpy as np
import pandas as pd
import pytest
from benchmark_module import module

from nimbus_sd.simulate import tile


@pytest.fixture(scope="module")
def script():
    return module("leave_one_out")


def drawn(script, component):
    rng = np.random.default_rng(0)
    with mock.patch.multiple(tile, **script.COMPONENTS[component]):
        markers = [tile.draw_marker(rng) for _ in range(60)]
        return [(marker, tile.draw_detector(rng, marker), tile.draw_segmentation(rng)) for marker in markers]


def test_each_component_is_there_with_all_and_gone_without_it(script):
    seen = {
        "nuclear masks": lambda m, d, s: s.target != "cell",
        "mask errors": lambda m, d, s: bool(s.merged or s.split or s.missing or any(s.shift) or s.resize or s.grid),
        "haze of negative cells": lambda m, d, s: m.unspecific > 0.05,
        "background": lambda m, d, s: d.background > 0.05,
        "ion counting": lambda m, d, s: d.counting,
        "damage": lambda m, d, s: bool(d.clumps or d.dots or d.fold or d.edge or d.seam or d.compression),
        "fibres and cross-talk": lambda m, d, s: bool(m.fibres or m.crosstalk),
    }
    assert set(script.COMPONENTS) == {"nothing", *seen}
    everything = drawn(script, "nothing")
    for component, there in seen.items():
        assert any(there(*one) for one in everything)
        assert not any(there(*one) for one in drawn(script, component))
        # What belongs to other components stays.
        others = [name for name in seen if name not in (component, "mask errors", "nuclear masks")]
        assert all(any(seen[name](*one) for one in drawn(script, component)) for name in others)


def test_runs_are_compared_on_the_same_cells(script):
    positive = np.tile([True, False, False, True], 20)
    table = pd.DataFrame({"tissue": "a", "channel": np.repeat(["x", "y"], 40), "pass1": positive * 1.0})
    table = table.assign(pass2=table["pass1"], positive=positive)
    right, wrong = table.assign(score=positive * 0.8), table.assign(score=(np.arange(80) % 4 < 2) * 0.8)
    found = script.compare({"nothing": right, "much": wrong}, draws=50)
    assert found.loc["nothing", ["plain", "determined", "difference", "low", "high", "misses"]].tolist() == [
        1,
        1,
        0,
        0,
        0,
        0,
    ]
    assert found.loc["much", ["determined", "difference", "false positives", "misses"]].tolist() == [0.5, -0.5, 20, 20]
    assert found.loc["much", "low"] < -0.5 < found.loc["much", "high"] < 0


def test_a_run_trains_and_can_be_scored(script, tmp_path, small):
    from nimbus_sd.models import load

    path = tmp_path / "damage.safetensors"
    with mock.patch.multiple("nimbus_sd.train.compact", SIZE=32, BATCH_SIZE=1):
        script.train("damage", small, path, steps=2)
    assert "without damage" in load(path).card.description
    start, end = (load(which).network.state_dict() for which in (small, path))
    assert any(not start[key].equal(end[key]) for key in start)
