from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from unet_monai.transforms.probability import LogitsToProbability, LogitsToProbabilityd, logits_to_probability


@pytest.mark.parametrize("shape", [(2, 4, 5), (3, 4, 5), (2, 3, 4, 5)])
def test_everything_but_channel_0(shape: tuple[int, ...]) -> None:
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 5
    exponentials = np.exp(logits.double().numpy())
    expected = exponentials[1:].sum(axis=0) / exponentials.sum(axis=0)
    np.testing.assert_allclose(logits_to_probability(logits).numpy(), expected, atol=1e-6)


def test_stays_a_probability() -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0], [0.0, 0.0, 0.0]])
    for scores in (logits, logits.half(), logits.bfloat16()):
        probability = logits_to_probability(scores)
        assert probability.dtype == torch.float32
        torch.testing.assert_close(probability, torch.tensor([0, 1, 2 / 3]))


def test_keeps_kind_and_metadata() -> None:
    transform = LogitsToProbability()
    logits = np.random.default_rng(0).normal(size=(2, 4, 5))
    array = transform(logits)
    assert type(array) is np.ndarray
    assert array.dtype == np.float32
    assert array.shape == (1, 4, 5)
    tensor = MetaTensor(torch.from_numpy(logits), affine=2 * torch.eye(3), meta={"filename_or_obj": "a.tif"})
    before = tensor.clone()
    out = transform(tensor)
    assert isinstance(out, MetaTensor)
    assert out.dtype == torch.float32
    assert out.meta["filename_or_obj"] == "a.tif"
    torch.testing.assert_close(out.affine, tensor.affine)
    torch.testing.assert_close(tensor, before)
    np.testing.assert_array_equal(out.numpy(), array)
    assert type(transform(torch.from_numpy(logits))) is torch.Tensor


def test_dictionary_keeps_the_scores() -> None:
    logits = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    data = {"pred": logits, "other": 2 * logits, "label": 1}
    out = LogitsToProbabilityd(["pred", "other"], name=["p", "q"])(data)
    assert set(data) == {"pred", "other", "label"}
    assert out["pred"] is logits
    assert out["label"] == 1
    torch.testing.assert_close(out["p"][0], logits_to_probability(logits))
    torch.testing.assert_close(out["q"][0], logits_to_probability(2 * logits))
    assert set(LogitsToProbabilityd("pred", name="p")(data)) == {"pred", "other", "label", "p"}
    assert LogitsToProbabilityd("missing", name="p", allow_missing_keys=True)({"pred": 1}) == {"pred": 1}


@pytest.mark.parametrize("shape", [(1, 5, 6), (2,)])
def test_rejects_channels(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"logits must have two or more channels, \(C, \*S\), got shape \("):
        LogitsToProbability()(np.zeros(shape, np.float32))


def test_rejects_names() -> None:
    with pytest.raises(ValueError, match=r"name must hold one key for each of \('a', 'b'\), got \('p',\)\."):
        LogitsToProbabilityd(["a", "b"], name="p")
