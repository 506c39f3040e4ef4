from __future__ import annotations

import numpy as np
import pytest
from unet_monai.data import grow_split


@pytest.mark.parametrize(
    ("validation", "expected"),
    [
        (0, ["training"] * 6),
        (0.2, ["training"] * 4 + ["validation", "training"]),
        (0.34, ["training", "training", "validation", "training", "training", "validation"]),
        (0.5, ["training", "validation"] * 3),
        (1, ["validation"] * 6),
    ],
)
def test_new_images_are_shared_out_as_they_come(validation: float, expected: list[str]) -> None:
    uses: dict[str, str] = {}
    for i in range(6):
        uses = grow_split([f"cell {j}" for j in range(i + 1)], uses, validation=validation)
    assert list(uses.values()) == expected


@pytest.mark.parametrize("seed", range(5))
def test_no_image_ever_changes_its_use(seed: int) -> None:
    rng = np.random.default_rng(seed)
    uses: dict[str, str] = {}
    for _ in range(20):
        annotated = [str(name) for name in rng.choice(40, size=rng.integers(1, 20), replace=False)]
        before, uses = uses, grow_split(annotated, uses, validation=rng.uniform(0, 0.5))
        assert before == {name: uses[name] for name in before}
        assert set(uses) == set(before) | set(annotated)
    assert "validation" in uses.values(), "test invalid"


def test_the_order_of_the_names_does_not_matter() -> None:
    assert grow_split(["b", "a", "c"], {}, validation=0.5) == grow_split(["c", "b", "a"], {}, validation=0.5)


@pytest.mark.parametrize("validation", [-0.1, 1.5])
def test_a_share_outside_0_and_1_is_an_error(validation: float) -> None:
    with pytest.raises(ValueError, match=f"validation must be a share between 0 and 1, got {validation}"):
        grow_split(["a"], {}, validation=validation)
