from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms.utils_pytorch_numpy_unification import percentile
from unet_monai.large_images.percentiles import streamed_percentiles

KNOBS = [0, 1, 37.5, 99.8, 100]


def parts(values: np.ndarray) -> list[np.ndarray]:
    return np.array_split(values, [7, 8, 100, len(values) // 2])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
def test_are_those_of_all_values_in_memory(dtype: str) -> None:
    values = np.random.default_rng(0).normal(120, 40, 5003).clip(0, 255).astype(dtype)
    if dtype not in ("uint8", "uint16"):
        values = (values - 120).astype(dtype)
    found = streamed_percentiles(lambda: parts(values), KNOBS)
    np.testing.assert_allclose(found, np.percentile(values.astype(np.float32).astype(np.float64), KNOBS), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_are_monais_of_an_image_beyond_a_million_pixels(dtype: str) -> None:
    values = (np.random.default_rng(1).gamma(2, 20, 1_100_000)).clip(0, 255).astype(dtype)
    expected = [float(percentile(torch.from_numpy(values.astype(np.float32)), q)) for q in (1, 99.8)]
    found = streamed_percentiles(lambda: parts(values), (1, 99.8))
    assert [np.float32(f) for f in found] == expected


@pytest.mark.parametrize("values", [[5], [3, 3, 3], [-0.0, 0.0, 0.0], [-1e30, 1e-30, 1e30], [65535, 0]])
def test_few_values(values: list[float]) -> None:
    array = np.array(values, np.float32)
    np.testing.assert_allclose(streamed_percentiles(lambda: [array], KNOBS), np.percentile(array.astype(float), KNOBS))


def test_one_pass_over_integers_and_two_over_others() -> None:
    passes = []

    def stream(dtype: str) -> list[np.ndarray]:
        passes.append(dtype)
        return [np.arange(10, dtype=dtype)]

    streamed_percentiles(lambda: stream("float32"), [50])
    assert passes.count("float32") == 2
    streamed_percentiles(lambda: stream("uint16"), [50])
    assert passes.count("uint16") == 1


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"percentiles must lie in \[0, 100\], got 101"):
        streamed_percentiles(lambda: [np.ones(3)], [101])
    with pytest.raises(ValueError, match="stream must hold at least one value"):
        streamed_percentiles(lambda: [np.ones(0)], [50])
