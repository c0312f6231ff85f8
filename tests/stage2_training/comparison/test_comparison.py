"""Comparisons: their files, and the paired bootstrap against a plain loop."""

from pathlib import Path

import numpy as np
import pytest

from sspa.shared.errors import UserError
from sspa.stage2_training.comparison.definition import read_comparison, ready_names
from sspa.stage2_training.comparison.paired_bootstrap import difference_interval
from sspa.stage2_training.configuration import resolve_config


@pytest.mark.parametrize("name", ready_names())
def test_every_ready_made_variant_is_a_valid_configuration(name: str) -> None:
    comparison = read_comparison(name)
    for own in comparison.variants.values():
        resolve_config(values={"knowledge": "k.parquet", **own}, base=comparison.settings)


def test_wrong_comparisons_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean baselines"):
        read_comparison("baseline")
    file = tmp_path / "own.yaml"
    file.write_text("about: x\nreference: c\nvariants: {a: {}, b: {}}\n")
    with pytest.raises(UserError, match="'c' is none of the variants"):
        read_comparison(str(file))
    with pytest.raises(UserError, match="no variant 'z'"):
        read_comparison("baselines").only(["z"])


def test_the_interval_is_paired_by_seed_and_by_image() -> None:
    generator = np.random.default_rng(1)
    reference = generator.normal(80, 5, (3, 400))
    # The same noise in both: only a paired interval is narrow.
    low, high = difference_interval(reference + 1.0, reference)
    assert low == pytest.approx(1.0)
    assert high == pytest.approx(1.0)
    low, high = difference_interval(reference + generator.normal(0, 1, (3, 400)), reference)
    assert low < 0 < high
