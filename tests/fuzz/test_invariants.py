"""The invariants on drawn input: a few examples, the same each time; and the long form, 100,000 new ones.

The long form is `pytest -m slow tests/fuzz`; `FUZZ_CASES=10000` scales it, `--hypothesis-seed=0` repeats one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unet_monai import transforms

from tests.fuzz import invariants
from tests.fuzz.strategies import INFERENCE, NAMES, SEEDS, WORDS, label_maps, masks, networks, scores, sizes


class Fuzz(NamedTuple):
    holds: Callable[..., None]
    drawn: Mapping[str, st.SearchStrategy[Any]]
    share: float  # of the cases of the long form


KNOBS = st.fixed_dictionaries(
    {
        "threshold": st.sampled_from([0.05, 0.5, 0.7, 0.99]),
        "edge_threshold": st.sampled_from([0.05, 0.3, 0.5, 0.95]),
        "min_size": st.integers(0, 6),
    }
)


def grey(network: dict[str, Any]) -> dict[str, Any]:
    return {**network, "in_channels": 1}


FUZZ = [
    Fuzz(
        invariants.stitched_scores_are_those_of_the_whole_image,
        {
            "network": networks(),
            "size": sizes(20, axes=3),
            "extra": st.lists(st.integers(0, 2), min_size=3, max_size=3),
            "sw_batch_size": st.integers(1, 5),
            "seed": SEEDS,
            "automatic": st.booleans(),
        },
        0.1,
    ),
    Fuzz(
        invariants.weights_are_those_of_the_formula,
        {
            "label": label_maps(),
            "w0": st.sampled_from([0.0, 1e-6, 1.0, 10.0, 1e4]),
            "sigma": st.sampled_from([0.1, 1.0, 5.0, 50.0]),
            "class_weights": st.lists(st.sampled_from([0.0, 1.0, 3.5]), min_size=2, max_size=2),
        },
        0.2,
    ),
    Fuzz(invariants.instances_partition_the_foreground, {"scores": scores(), "knobs": KNOBS}, 0.2),
    Fuzz(
        invariants.filling_and_regrowing_only_add,
        {"scores": scores(), "knobs": KNOBS, "radius": st.integers(0, 3)},
        0.1,
    ),
    Fuzz(
        invariants.ids_of_blocks_are_those_of_the_whole_image,
        {"mask": masks(most=12), "block": st.tuples(*[st.integers(1, 7)] * 3), "min_size": st.integers(0, 6)},
        0.15,
    ),
    Fuzz(
        invariants.transforms_leave_their_input_alone,
        {
            "name": st.sampled_from([*invariants.ARRAY_TRANSFORMS, *invariants.DICTIONARY_TRANSFORMS]),
            "kind": st.sampled_from(list(invariants.KINDS)),
            "label": label_maps(),
            "seed": SEEDS,
        },
        0.15,
    ),
    Fuzz(invariants.readers_and_writers_leave_their_input_alone, {"label": label_maps(axes=2), "seed": SEEDS}, 0.02),
    Fuzz(
        invariants.command_lines_are_understood_or_refused_in_one_line,
        {"settings": st.lists(st.tuples(NAMES, WORDS), min_size=1, max_size=3)},
        0.07,
    ),
    Fuzz(
        invariants.configs_do_what_they_set_or_refuse_in_one_line,
        {
            "network": networks().filter(lambda network: network["spatial_dims"] == 2).map(grey),
            "size": sizes(30, axes=2),
            "settings": INFERENCE,
            "seed": SEEDS,
        },
        0.01,
    ),
]


def fuzz(case: Fuzz, max_examples: int, *, derandomize: bool) -> None:
    """Draw examples and check each; a failure is shrunk to a small one and printed."""
    quiet = settings(
        max_examples=max_examples,
        derandomize=derandomize,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )

    def check(**drawn: Any) -> None:
        case.holds(**drawn)

    quiet(given(**case.drawn)(check))()


@pytest.mark.parametrize("case", FUZZ, ids=lambda case: case.holds.__name__)
def test_holds_for_a_few(case: Fuzz) -> None:
    fuzz(case, max_examples=max(12, round(200 * case.share)), derandomize=True)


@pytest.mark.slow
@pytest.mark.parametrize("case", FUZZ, ids=lambda case: case.holds.__name__)
def test_holds_for_many(case: Fuzz, capsys: pytest.CaptureFixture[str]) -> None:
    cases, start = round(case.share * int(os.environ.get("FUZZ_CASES", "100000"))), time.monotonic()
    fuzz(case, max_examples=cases, derandomize=False)
    with capsys.disabled():
        print(f"\n{case.holds.__name__}: {cases} cases in {time.monotonic() - start:.0f} s")


def test_the_shares_are_all_cases() -> None:
    assert sum(case.share for case in FUZZ) == pytest.approx(1)


def test_every_transform_is_fuzzed() -> None:
    exported = {name for name, value in vars(transforms).items() if isinstance(value, type)}
    fuzzed = {*invariants.ARRAY_TRANSFORMS, *invariants.DICTIONARY_TRANSFORMS, *invariants.FILE_TRANSFORMS}
    assert fuzzed == exported
