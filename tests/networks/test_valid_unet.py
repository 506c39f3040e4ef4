from __future__ import annotations

import copy
import json
import pickle
import weakref
from itertools import pairwise
from math import prod, sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, conv3d
from torch.utils._python_dispatch import TorchDispatchMode
from unet_monai.networks import ValidUNet
from unet_monai.networks.tile_shapes import output_size
from unet_monai.networks.valid_unet import DoubleConv

TINY = (2, 4, 8, 16, 32)
THICK_SLICES = {"kernel_size": [[3, 3, 1], [3, 3, 1], [3, 3, 3]], "pool_size": [[2, 2, 1], [2, 2, 1]]}
SNAPSHOT = json.loads(Path(__file__).with_name("state_dict_shapes.json").read_text(encoding="utf-8"))


def on_meta(**options: object) -> ValidUNet:
    with torch.device("meta"):
        return ValidUNet(**options)


def convolutions(network: nn.Module) -> list[nn.Module]:
    kinds = nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d
    return [module for module in network.modules() if isinstance(module, kinds)]


class LiveMemory(TorchDispatchMode):
    """Add up the bytes of the tensors that are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        storage = result.untyped_storage()
        if storage._cdata not in self.alive:
            self.alive[storage._cdata] = storage.nbytes()
            weakref.finalize(storage, self.alive.pop, storage._cdata)
        self.peak = max(self.peak, sum(self.alive.values()))
        return result


class TestArchitecture:
    @pytest.mark.parametrize(("last_up_features", "parameters"), [(None, 31_030_658), (128, 31_100_354)])
    def test_parameters_of_the_paper_and_of_the_release(self, last_up_features: int | None, parameters: int) -> None:
        network = on_meta(last_up_features=last_up_features)
        assert sum(p.numel() for p in network.parameters()) == parameters
        assert len(convolutions(network)) == 23
        assert network(torch.empty(1, 1, 188, 204, device="meta")).shape == (1, 2, 4, 20)

    def test_figure_1(self) -> None:
        network = on_meta()
        sizes: list[tuple[int, ...]] = []
        for module in convolutions(network):
            module.register_forward_hook(lambda m, args, out: sizes.append(tuple(out.shape[1:3])))
        network(torch.empty(1, 1, 572, 572, device="meta"))
        down = [(64, 570), (64, 568), (128, 282), (128, 280), (256, 138), (256, 136), (512, 66), (512, 64)]
        bottom = [(1024, 30), (1024, 28)]
        up = [(512, 56), (512, 54), (512, 52), (256, 104), (256, 102), (256, 100)]
        up += [(128, 200), (128, 198), (128, 196), (64, 392), (64, 390), (64, 388), (2, 388)]
        assert sizes == down + bottom + up

    @pytest.mark.parametrize("name", sorted(SNAPSHOT))
    def test_state_dict_is_the_one_that_weight_files_hold(self, name: str) -> None:
        entry = SNAPSHOT[name]
        network = on_meta(**entry["options"])
        shapes = {key: list(value.shape) for key, value in network.state_dict().items()}
        assert list(shapes.items()) == list(entry["shapes"].items())

    def test_poolings_and_border_per_axis(self) -> None:
        assert (ValidUNet(features=TINY).border, ValidUNet(features=TINY).poolings) == ((92, 92), (4, 4))
        network = ValidUNet(3, features=(2, 4, 8), **THICK_SLICES)
        assert network.border == (20, 20, 2)
        assert network.poolings == (2, 2, 0)

    def test_up_sampled_channels_come_before_the_centre_of_the_skip(self) -> None:
        network = ValidUNet(features=(2, 4))
        seen: dict[str, torch.Tensor] = {}
        up = network.ups[0]
        up.up_conv.register_forward_hook(lambda m, args, out: seen.update(up=out))
        up.convs.register_forward_pre_hook(lambda m, args: seen.update(joined=args[0].clone()))
        network.input_block.register_forward_hook(lambda m, args, out: seen.update(skip=out.clone()))
        network(torch.rand(1, 1, 24, 32))
        centre = seen["skip"][:, :, 4:-4, 4:-4]
        torch.testing.assert_close(seen["joined"], torch.cat([seen["up"], centre], dim=1))

    def test_dropout_closes_the_two_lowest_contracting_levels(self) -> None:
        network = ValidUNet(features=TINY, dropout=0.3)
        found = {name: module.p for name, module in network.named_modules() if isinstance(module, nn.Dropout)}
        assert found == {"downs.2.convs.dropout": 0.3, "downs.3.convs.dropout": 0.3}
        assert list(network.downs[3].convs._modules)[-1] == "dropout"
        assert not [m for m in ValidUNet(features=TINY, dropout=0.0).modules() if isinstance(m, nn.Dropout)]
        two_levels = [n for n, m in ValidUNet(features=(2, 4)).named_modules() if isinstance(m, nn.Dropout)]
        assert two_levels == ["input_block.dropout", "downs.0.convs.dropout"]

    @pytest.mark.parametrize("spatial_dims", [2, 3])
    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("norm", ["batch", None])
    def test_convolution_norm_relu(self, spatial_dims: int, training: bool, norm: str | None) -> None:
        """In evaluation the norm is folded into the convolution; the result is that of one layer after the other."""
        torch.manual_seed(0)
        block = DoubleConv(spatial_dims, 1, 3, [3] * spatial_dims, norm=norm).double().train(training)
        if norm:
            for layer in (block.norm1, block.norm2):
                for value in (layer.weight, layer.bias, layer.running_var):
                    nn.init.uniform_(value, 0.5, 2)
                nn.init.uniform_(layer.running_mean, -0.5, 0.5)
        x = torch.rand(2, 1, *[7] * spatial_dims).double()
        one, two = (n or nn.Identity() for n in (copy.deepcopy(block.norm1), copy.deepcopy(block.norm2)))
        expected = two(block.conv2(one(block.conv1(x)).relu())).relu()
        torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)
        assert (expected > 0).any(), "test invalid"
        block(x).sum().backward()
        assert all(p.grad is not None for p in block.parameters())

    def test_channels_are_last_in_memory(self) -> None:
        network = ValidUNet(features=(4, 8), norm="batch").eval()
        assert network(torch.rand(1, 1, 20, 20)).is_contiguous(memory_format=torch.channels_last)

    @pytest.mark.parametrize(
        "options", [{}, {"norm": "batch"}, {"last_up_features": 128}, {"features": (16, 32, 64, 128, 256)}]
    )
    def test_bytes_per_pixel_is_the_peak_of_memory(self, options: dict) -> None:
        network = on_meta(**options).eval()
        tile = torch.zeros(1, 1, 5004, 5004, device="meta")
        with torch.inference_mode(), LiveMemory() as memory:
            network(tile)
        assert 0.85 <= memory.peak / tile.numel() / network.bytes_per_pixel <= 1


class TestSizes:
    @pytest.mark.parametrize(
        ("options", "sizes"),
        [
            ({"features": TINY}, [(188, 188), (204, 316), (572, 188)]),
            ({"features": (2, 4)}, [(18, 20), (24, 40)]),
            ({"kernel_size": (3, 1)}, [(44, 4), (60, 8)]),
            ({"kernel_size": [[3, 3], [5, 5], [1, 1]], "pool_size": [[1, 1], [2, 2]]}, [(26, 28), (34, 46)]),
            ({"kernel_size": [[3, 3], [3, 3], [1, 3]], "pool_size": (2, 1)}, [(28, 21), (32, 30)]),
            ({"spatial_dims": 3, "features": (2, 4)}, [(18, 18, 20), (20, 24, 18)]),
            ({"spatial_dims": 3}, [(44, 48, 44)]),
            ({"spatial_dims": 3, **THICK_SLICES}, [(44, 48, 5), (60, 44, 9)]),
        ],
    )
    def test_forward_agrees_with_the_arithmetic(self, options: dict, sizes: list[tuple[int, ...]]) -> None:
        network = on_meta(**{"features": (2, 4, 8), **options})
        steps = [2**p for p in network.poolings]
        for size in sizes:
            expected = tuple(output_size(n, b, s) for n, b, s in zip(size, network.border, steps, strict=True))
            assert network(torch.empty(2, 1, *size, device="meta")).shape == (2, 2, *expected)
            assert network.output_size(size) == expected

    def test_every_side_either_works_or_is_refused(self) -> None:
        network = ValidUNet(features=(2, 4, 8)).eval()
        for size in range(38, 60):
            if size in (44, 48, 52, 56):
                assert network(torch.zeros(1, 1, size, 44)).shape[2] == size - 40
            else:
                with pytest.raises(ValueError, match="input size must be one that the poolings fit"):
                    network(torch.zeros(1, 1, size, 44))

    def test_572_gives_388(self) -> None:
        assert on_meta().output_size(572) == (388, 388)
        assert on_meta().output_size((572, 204)) == (388, 20)

    def test_error_names_the_nearest_sizes(self) -> None:
        network = on_meta(features=TINY)
        with pytest.raises(ValueError, match=r"^input size must be .*, such as 508 or 524, got 512\.$"):
            network(torch.empty(1, 1, 572, 512, device="meta"))
        with pytest.raises(ValueError, match=r"such as 188, the smallest, got 64\.$"):
            network.output_size(64)


class TestInitialisation:
    @pytest.mark.parametrize(
        "options",
        [
            {"features": (8, 16, 32), "in_channels": 3},
            {"features": (8, 16, 32), "norm": "batch", "last_up_features": 12},
            {"spatial_dims": 3, "features": (4, 8, 16), **THICK_SLICES},
        ],
    )
    def test_realised_spread_of_every_layer(self, options: dict) -> None:
        torch.manual_seed(0)
        network = ValidUNet(**options)
        layers = convolutions(network)
        for layer in layers:
            transposed = isinstance(layer, nn.ConvTranspose2d | nn.ConvTranspose3d)
            nodes = layer.in_channels * (1 if transposed else prod(layer.kernel_size))
            # The spread of n draws is uncertain by 1 / sqrt(2 n).
            tolerance = 4 / sqrt(2 * layer.weight.numel())
            assert layer.weight.std(correction=0).item() == pytest.approx(sqrt(2 / nodes), rel=tolerance)
            assert abs(layer.weight.mean().item()) < 4 * sqrt(2 / nodes) / sqrt(layer.weight.numel())
            assert not layer.bias.any()

    def test_every_layer_keeps_the_variance(self) -> None:
        torch.manual_seed(0)
        network = ValidUNet(features=(64, 128))
        for layer, channels in ((network.ups[0].up_conv, 128), (network.downs[0].convs.conv2, 128)):
            activated = torch.randn(1, channels, 40, 40).relu()
            assert layer(activated).var().item() == pytest.approx(1.0, abs=0.08)


class TestUpConvolution:
    @pytest.mark.parametrize(
        ("options", "size"),
        [
            ({"features": (3, 4)}, (2, 3)),
            ({"features": (3, 4), "pool_size": (2, 1)}, (3, 2)),
            ({"spatial_dims": 3, "features": (2, 3), "pool_size": (2, 2, 1)}, (2, 1, 2)),
        ],
    )
    def test_its_matrix_is_that_of_the_convolution_transposed(self, options: dict, size: tuple[int, ...]) -> None:
        network = ValidUNet(**options).double()
        up_conv = network.ups[0].up_conv
        nn.init.normal_(up_conv.bias)
        fine = (up_conv.out_channels, *(n * s for n, s in zip(size, up_conv.stride, strict=True)))
        convolve = conv2d if len(size) == 2 else conv3d
        # Column j of the convolution's matrix is what it makes of the j-th unit vector.
        units = torch.eye(prod(fine), dtype=torch.float64).reshape(-1, *fine)
        matrix = convolve(units, up_conv.weight, stride=up_conv.stride).flatten(1).T
        x = torch.randn(up_conv.in_channels, *size, dtype=torch.float64)
        bias = up_conv.bias.reshape(-1, *[1] * len(size))
        expected = (matrix.T @ x.flatten()).reshape(fine) + bias
        torch.testing.assert_close(up_conv(x[None])[0], expected)


class TestForward:
    @pytest.mark.parametrize("norm", [None, "batch"])
    def test_a_shift_by_the_step_shifts_the_scores(self, norm: str | None) -> None:
        torch.manual_seed(1)
        network = ValidUNet(features=TINY, norm=norm).double().eval()
        image = torch.rand(1, 1, 220, 236, dtype=torch.float64)
        with torch.no_grad():
            whole = network(image)
            assert whole.std() > 0.01, "test invalid"
            for rows, columns in ((0, 0), (16, 0), (0, 32), (16, 16)):
                window = network(image[:, :, rows : rows + 204, columns : columns + 204])
                expected = whole[:, :, rows : rows + 20, columns : columns + 20]
                torch.testing.assert_close(window, expected, rtol=0, atol=1e-12)
            four_off = network(image[:, :, 4:208, :204])
        assert (four_off - whole[:, :, 4:24, :20]).abs().max() > 1e-3, "a shift out of phase is no shift of the scores"

    def test_dropout_acts_in_training_only(self) -> None:
        torch.manual_seed(0)
        network = ValidUNet(features=(4, 8, 16))
        image = torch.rand(1, 1, 60, 60)
        assert not torch.equal(network(image), network(image))
        network.eval()
        torch.testing.assert_close(network(image), network(image), rtol=0, atol=0)

    def test_gradients_reach_every_parameter(self) -> None:
        network = ValidUNet(3, features=(2, 4), in_channels=2, out_channels=3, norm="batch")
        network(torch.rand(2, 2, 20, 18, 18)).square().sum().backward()
        assert all(p.grad is not None for p in network.parameters())

    def test_travels_through_pickle_and_deepcopy(self) -> None:
        network = ValidUNet(features=(2, 4, 8), norm="batch").eval()
        image = torch.rand(1, 1, 44, 48)
        for twin in (pickle.loads(pickle.dumps(network)), copy.deepcopy(network)):
            torch.testing.assert_close(twin(image), network(image), rtol=0, atol=0)
            assert (twin.border, twin.poolings) == (network.border, network.poolings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spatial_dims": 1}, r"spatial_dims must be 2 or 3, got 1\."),
        ({"features": (8,)}, r"features must hold at least 2 levels, got \(8,\)\."),
        ({"norm": "instance"}, r"norm must be 'batch' or None .*, got 'instance'\."),
        ({"dropout": 2}, r"dropout must be between 0 and 1, got 2\."),
        ({"dropout": -0.1}, r"dropout must be between 0 and 1, got -0\.1\."),
        ({"kernel_size": 2}, r"kernel_size must be odd along each axis, got 2\."),
        ({"kernel_size": (3, 0)}, r"kernel_size must be odd along each axis, got \(3, 0\)\."),
        ({"pool_size": 3}, r"pool_size must be 1 or 2 along each axis, got 3\."),
        ({"kernel_size": [[3, 3], [3, 3]]}, r"kernel_size must hold one row for each of 3 levels, got "),
        ({"pool_size": [[2, 2]] * 3}, r"pool_size must hold one row for each of 2 levels, got "),
        ({"pool_size": [[2, 2], [2, 2, 1]]}, r"pool_size must hold one value for each of 2 axes, got "),
        ({"kernel_size": (3, 3, 1)}, r"kernel_size must hold one value for each of 2 axes, got \(3, 3, 1\)\."),
    ],
)
def test_rejects(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        on_meta(**{"features": (2, 4, 8), **options})


def test_snapshot_holds_both_networks() -> None:
    assert all(set(entry) == {"options", "shapes"} for entry in SNAPSHOT.values())
    assert sorted(SNAPSHOT) == ["bundle", "paper", "release"]
    assert [b / a for a, b in pairwise(SNAPSHOT["bundle"]["options"]["features"])] == [2] * 4
