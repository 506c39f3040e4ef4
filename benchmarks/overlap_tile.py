"""Overlap-tile inference: against MONAI's own, against a padded network with blending, and against the ideal."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial

import torch
from monai.apps.pathology.inferers import SlidingWindowHoVerNetInferer
from monai.inferers import Inferer, SlidingWindowInferer
from monai.networks.nets import BasicUNet
from torch import nn
from unet_monai.inferers import OverlapTileInferer
from unet_monai.networks import ValidUNet
from unet_monai.networks.tile_shapes import covering_output_size

from benchmarks.harness import Row, alternate, cost, faster

SIDE = 2048
FEATURES = (16, 32, 64, 128, 256)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def rows(options: Namespace) -> Iterator[Row]:
    """Yield the rows of inference."""
    torch.manual_seed(0)
    with torch.inference_mode():
        rounds = max(options.rounds - 4, 3)  # a call takes seconds
        yield from whole_images(rounds)
        yield paper_on_512(rounds)


def whole_images(rounds: int) -> Iterator[Row]:
    """Score 2048^2 by our inferer and by the others, all in turn."""
    network = with_random_statistics(ValidUNet(features=FEATURES, norm="batch", dropout=0.0)).to(DEVICE).eval()
    image = torch.rand(1, 1, SIDE, SIDE, device=DEVICE)
    ours = ours_for(network)
    plain = plain_twin(network)
    padded = BasicUNet(2, 1, 2, features=(*FEATURES, FEATURES[0]), norm="batch").to(DEVICE).eval()
    padded.to(memory_format=torch.channels_last)

    hovernet = fastest(image, network, hovernet_inferers())
    plain_hovernet = fastest(image, plain, hovernet_inferers())
    blending = fastest(image, padded, blending_inferers())
    contestants = [
        partial(ours, image, network),
        partial(hovernet, image, network),
        partial(plain_hovernet, image, plain),
        partial(blending, image, padded),
    ]
    seconds = alternate(contestants, rounds)
    scores = ours(image, network)
    difference, scale = (scores - hovernet(image, network)).abs().max().item(), scores.abs().max().item()
    phase = f"largest difference {difference:.2g} of scores up to {scale:.2g}: its tiles are out of pooling phase"
    yield faster(
        f"overlap-tile, {SIDE}^2, default network",
        f"SlidingWindowHoVerNetInferer (tile {tile_of(hovernet)}), the same network object",
        seconds[0],
        seconds[1],
        1.0,
        phase,
    )
    twin = (network(image[..., :572, :572]) - plain(image[..., :572, :572])).abs().max().item()
    yield faster(
        "the bundle's form of the network and its own tile",
        f"layer after layer, channels first, SlidingWindowHoVerNetInferer (tile {tile_of(plain_hovernet)})",
        seconds[0],
        seconds[2],
        1.3,
        f"one tile's scores differ by {twin:.1g}",
    )
    yield faster(
        "the same",
        f"BasicUNet of the same widths, channels last, Gaussian blending, overlap 0.25 (tile {tile_of(blending)})",
        seconds[0],
        seconds[3],
        3.5,
        "another network: the cost only",
    )
    side = covering_output_size(SIDE, 92, 16) + 184
    best = best_rate(network)
    ideal = flops(network, side) / best
    yield cost(
        "the same",
        f"the FLOPs of one {side}^2 pass at the network's best 3x3 layer, {best / 1e9:.0f} GFLOP/s",
        seconds[0],
        [ideal] * rounds,
        1.35,
        "",
    )


def paper_on_512(rounds: int) -> Row:
    """Score 512^2 with the paper's network, by the tile that the inferer chooses and by the paper's four."""
    network = ValidUNet(dropout=0.0).to(DEVICE).eval()
    image = torch.rand(1, 1, 512, 512, device=DEVICE)
    chosen = ours_for(network)
    four = OverlapTileInferer(572)
    ours, theirs = alternate([partial(chosen, image, network), partial(four, image, network)], rounds)
    difference = (chosen(image, network) - four(image, network)).abs().max().item()
    check = f"largest difference {difference:.1g}"
    return faster("the paper's network on 512^2, the chosen tile", "four tiles of 572 px", ours, theirs, 2.0, check)


def ours_for(network: ValidUNet) -> OverlapTileInferer:
    """Make the inferer as the bundle's configs do."""
    return OverlapTileInferer(border=network.border, poolings=network.poolings, bytes_per_pixel=network.bytes_per_pixel)


def hovernet_inferers() -> list[Inferer]:
    """MONAI's valid-convolution inferer, with the facts' settings, for three tile sizes (the last: whole image)."""
    return [
        SlidingWindowHoVerNetInferer(
            roi_size=(tile, tile),
            sw_batch_size=1,
            overlap=1 - (tile - 184) / tile,
            padding_mode="reflect",
            extra_input_padding=(92,) * 4,
        )
        for tile in (572, 1084, covering_output_size(SIDE, 92, 16) + 184)
    ]


def blending_inferers() -> list[Inferer]:
    """Gaussian blending at a quarter overlap, for three tile sizes (the last: whole image)."""
    return [SlidingWindowInferer(tile, 1, overlap=0.25, mode="gaussian") for tile in (576, 1088, SIDE)]


def fastest(image: torch.Tensor, network: nn.Module, inferers: list[Inferer]) -> Inferer:
    """Pick the peer's best setting: the least time of two rounds."""
    seconds = alternate([partial(inferer, image, network) for inferer in inferers], rounds=2, warm_up=0)
    return min(zip(inferers, seconds, strict=True), key=lambda pair: min(pair[1]))[0]


def tile_of(inferer: Inferer) -> int:
    """Tell the tile of a MONAI inferer."""
    roi_size = inferer.roi_size
    return roi_size if isinstance(roi_size, int) else roi_size[0]


def with_random_statistics(network: ValidUNet) -> ValidUNet:
    """Give the batch normalisation something to do, as after a training."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network


def plain_twin(network: ValidUNet) -> ValidUNet:
    """Copy a network with its blocks as plain sequences of layers, channels first in memory."""
    twin = ValidUNet(features=FEATURES, norm="batch", dropout=0.0).to(DEVICE).eval()
    twin.load_state_dict(network.state_dict())
    twin.to(memory_format=torch.contiguous_format)
    for name, block in list(twin.named_modules()):
        if hasattr(block, "conv1"):
            layers = [block.conv1, block.norm1, nn.ReLU(inplace=True), block.conv2, block.norm2, nn.ReLU(inplace=True)]
            twin.set_submodule(name, nn.Sequential(*layers))
    return twin


def watch_convolutions(network: nn.Module, side: int, seen: Callable[[nn.Module, torch.Size], None]) -> None:
    """Run one tile and report every convolution with the shape of its output."""
    kinds = nn.Conv2d | nn.ConvTranspose2d
    hooks = [
        module.register_forward_hook(lambda module, _, output: seen(module, output.shape))
        for module in network.modules()
        if isinstance(module, kinds)
    ]
    network(torch.zeros(1, 1, side, side, device=DEVICE))
    for hook in hooks:
        hook.remove()


def flops(network: ValidUNet, side: int) -> float:
    """Count the floating-point operations of one tile: two for each weight of a convolution and output pixel."""
    total = 0.0

    def add(module: nn.Module, shape: torch.Size) -> None:
        nonlocal total
        # The kernel of a 2x2 up-convolution with stride 2 meets each output pixel once.
        per_pixel = module.in_channels if isinstance(module, nn.ConvTranspose2d) else module.weight[0].numel()
        total += 2 * per_pixel * shape.numel()

    watch_convolutions(network, side, add)
    return total


def best_rate(network: ValidUNet) -> float:
    """Measure each 3x3 layer alone at the size it has in a 572 px tile; return the best FLOP/s."""
    layers: list[tuple[nn.Conv2d, torch.Size]] = []

    def remember(module: nn.Module, shape: torch.Size) -> None:
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            layers.append((module, shape))

    watch_convolutions(network, 572, remember)
    rates = []
    for layer, (_, _, rows_out, columns_out) in layers:
        x = torch.rand(1, layer.in_channels, rows_out + 2, columns_out + 2, device=DEVICE)
        x = x.contiguous(memory_format=torch.channels_last)
        seconds = alternate([partial(layer, x)], rounds=10)[0]
        rates.append(2 * layer.weight.numel() * rows_out * columns_out / min(seconds))
    return max(rates)
