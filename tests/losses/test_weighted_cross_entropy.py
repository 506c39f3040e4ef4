from __future__ import annotations

import copy
import pickle

import pytest
import torch
from ignite.engine import Events
from monai.data import MetaTensor
from monai.engines import SupervisedTrainer
from torch import nn
from torch.nn.functional import cross_entropy
from unet_monai.losses import WeightedCrossEntropyLoss
from unet_monai.networks import ValidUNet

loss_of = WeightedCrossEntropyLoss()


def random_case(seed: int, shape: tuple[int, ...], classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scores (B, K, *S) and a target (B, 2, *S), a third of its weights 0."""
    random = torch.Generator().manual_seed(seed)
    scores = 3 * torch.randn(shape[0], classes, *shape[1:], generator=random, dtype=torch.float64)
    label = torch.randint(classes, shape, generator=random).double()
    weight = 10 * torch.rand(shape, generator=random, dtype=torch.float64)
    weight[torch.rand(shape, generator=random) < 1 / 3] = 0
    return scores, torch.stack([label, weight], dim=1)


def loss_reference(scores: torch.Tensor, target: torch.Tensor) -> float:
    """Add up the pixels of every sample."""
    losses = []
    for sample, (label, weight) in zip(scores, target, strict=True):
        probabilities = sample.flatten(1).softmax(dim=0)
        energy = mass = 0.0
        for pixel, (c, w) in enumerate(zip(label.flatten().tolist(), weight.flatten().tolist(), strict=True)):
            energy += w * -probabilities[int(c), pixel].log().item()
            mass += w
        losses.append(energy / mass if mass else 0.0)
    return sum(losses) / len(losses)


def test_by_hand() -> None:
    # Probabilities 1/2, 3/4 and 1/4 of the true class; weights 1, 2 and 5.
    scores = torch.log(torch.tensor([[[1.0, 3.0, 1.0], [1.0, 1.0, 3.0]]]))
    target = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 2.0, 5.0]]])
    expected = -(torch.tensor([1 / 2, 3 / 4, 1 / 4]).log() * torch.tensor([1.0, 2.0, 5.0])).sum() / 8
    torch.testing.assert_close(loss_of(scores, target), expected)


@pytest.mark.parametrize(
    ("shape", "classes"), [((2, 5), 2), ((1, 4, 6), 2), ((3, 4, 5), 4), ((2, 2, 3, 4), 2), ((2, 3, 4), 1)]
)
def test_equal_to_the_reference(shape: tuple[int, ...], classes: int) -> None:
    scores, target = random_case(0, shape, classes)
    assert loss_of(scores, target).item() == pytest.approx(loss_reference(scores, target), rel=1e-12)


def test_equal_weights_give_the_plain_mean() -> None:
    scores, target = random_case(1, (2, 6, 7), 3)
    target[:, 1] = 4.0
    torch.testing.assert_close(loss_of(scores, target), cross_entropy(scores, target[:, 0].long()))


def test_the_scale_of_the_weights_does_not_count() -> None:
    scores, target = random_case(2, (2, 6, 7), 2)
    scaled = target * torch.tensor([1.0, 25.0]).reshape(1, 2, 1, 1)
    torch.testing.assert_close(loss_of(scores, scaled), loss_of(scores, target))


def test_every_sample_counts_the_same() -> None:
    scores, target = random_case(3, (2, 6, 7), 2)
    target[0, 1] *= 100
    single = [loss_of(scores[i : i + 1], target[i : i + 1]) for i in range(2)]
    assert abs(single[0] - single[1]) > 0.01, "test invalid"
    torch.testing.assert_close(loss_of(scores, target), (single[0] + single[1]) / 2)


@pytest.mark.parametrize("ignored", [-1.0, 7.0, 255.0])
def test_any_class_may_stand_where_the_weight_is_zero(ignored: float) -> None:
    scores, target = random_case(4, (2, 6, 7), 2)
    marked = target.clone()
    marked[:, 0][target[:, 1] == 0] = ignored
    assert (marked[:, 0] == ignored).sum() > 10, "test invalid"
    torch.testing.assert_close(loss_of(scores, marked), loss_of(scores, target), rtol=0, atol=0)


def test_a_sample_without_weight_counts_as_zero() -> None:
    scores, target = random_case(5, (2, 6, 7), 2)
    alone = loss_of(scores[:1], target[:1])
    target[1, 1] = 0
    scores.requires_grad_()
    loss = loss_of(scores, target)
    torch.testing.assert_close(loss, alone / 2)
    loss.backward()
    assert not scores.grad[1].any()
    assert loss_of(scores[1:], target[1:]).item() == 0


def test_gradient_is_weight_times_probability_less_truth() -> None:
    scores, target = random_case(6, (2, 4, 5), 3)
    scores.requires_grad_()
    loss_of(scores, target).backward()
    label, weight = target[:, 0].long(), target[:, 1]
    truth = nn.functional.one_hot(label, 3).movedim(-1, 1)
    mass = weight.sum((1, 2)).reshape(2, 1, 1, 1)
    torch.testing.assert_close(scores.grad, weight[:, None] * (scores.detach().softmax(1) - truth) / mass / 2)


@pytest.mark.parametrize("shape", [(2, 1, 4, 5), (2, 4, 5), (2, 3, 4, 5), (2, 2, 4, 6), (1, 2, 4, 5), (2, 2, 4, 5, 1)])
def test_a_mismatch_of_shapes_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^target must have shape \(2, 2, 4, 5\) for this input, got \(.*\)\.$"):
        loss_of(torch.zeros(2, 3, 4, 5), torch.zeros(shape))


def test_leaves_its_arguments_alone_and_travels() -> None:
    scores, target = random_case(7, (2, 4, 5), 2)
    target[0, 0, 0, 0], target[0, 1, 0, 0] = 99, 0
    before = copy.deepcopy((scores, target))
    expected = loss_of(scores, target)
    assert torch.equal(scores, before[0])
    assert torch.equal(target, before[1])
    torch.testing.assert_close(pickle.loads(pickle.dumps(loss_of))(scores, target), expected)


def test_runs_in_a_stock_trainer() -> None:
    torch.manual_seed(0)
    network = ValidUNet(features=(2, 4), dropout=0.0)
    before = copy.deepcopy(network.state_dict())
    label = torch.stack([torch.ones(4, 4), torch.full((4, 4), 2.0)])
    loader = [{"image": MetaTensor(torch.rand(1, 1, 20, 20)), "label": MetaTensor(label[None])}] * 2
    losses: list[float] = []
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=loader,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        loss_function=WeightedCrossEntropyLoss(),
    )
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: losses.append(engine.state.output[0]["loss"]))
    trainer.run()
    assert len(losses) == 2
    assert losses[1] < losses[0]
    assert not torch.equal(network.output_conv.weight, before["output_conv.weight"])
