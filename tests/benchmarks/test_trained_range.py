"""The ranges of image statistics that a card tells."""

import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from benchmark_module import module

from nimbus_sd.models import PUBLISHED, Card


@pytest.fixture(scope="module")
def script():
    return module("trained_range")


def test_ranges_hold_the_central_part_and_alarms_are_counted_elsewhere(script):
    rng = np.random.default_rng(0)
    measured, other = (pd.DataFrame({"median": rng.random(2000), "cv": np.append(np.nan, values)}) for values in (
        rng.random(1999), 2 * rng.random(1999)
    ))  # fmt: skip
    found = script.ranges(measured, other)
    assert found["median"]["low"] == pytest.approx(0.005, abs=0.004)
    assert found["median"]["high"] == pytest.approx(0.995, abs=0.004)
    assert found["median"]["false_alarm"] == pytest.approx(0.01, abs=0.008)
    assert found["cv"]["false_alarm"] == pytest.approx(0.5, abs=0.05)


def test_an_image_is_always_the_same_and_of_its_own_half(script):
    first = script.simulated_statistics(0, 1)
    assert first == script.simulated_statistics(0, 1) != script.simulated_statistics(1, 1)
    assert 0 <= first["q10"] <= first["median"] <= first["q99"] <= 1


def test_the_card_is_written_and_keeps_the_rest(script, tmp_path, monkeypatch, capsys):
    path = tmp_path / "card.json"
    replace(PUBLISHED, name="mine").write(path)
    monkeypatch.setattr(sys, "argv", ["trained_range.py", "--images", "6", "--card", str(path)])
    script.main()
    card = Card.read(path)
    assert set(card.ranges) == {"median", "q10", "q99", "zeros", "cv"}
    share = card.figures["simulated_share_outside_ranges"]
    assert 0 <= share <= 1 and f"{share:.1%} of the held-out images" in capsys.readouterr().out
    assert replace(card, ranges={}, figures=PUBLISHED.figures) == replace(PUBLISHED, name="mine")
