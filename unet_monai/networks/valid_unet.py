"""The U-Net of Ronneberger, Fischer and Brox (2015), https://arxiv.org/abs/1505.04597, with unpadded convolutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import ceil, nan, prod, sqrt
from typing import Any

import torch
from monai.networks.layers.factories import Conv, Norm, Pool
from monai.utils import ensure_tuple_rep
from torch import nn
from torch.func import functional_call
from torch.nn.functional import relu_
from unet_monai.networks.tile_shapes import context_border, output_sizes

PerAxis = int | Sequence[int]
PerLevel = PerAxis | Sequence[Sequence[int]]
Convolution = nn.Conv2d | nn.Conv3d
BatchNorm = nn.BatchNorm2d | nn.BatchNorm3d


class DoubleConv(nn.Module):
    """Two unpadded convolutions, each followed by a ReLU; optionally normalised before it.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        out_channels: channels of both convolutions.
        kernel_size: kernel side along each axis.
        norm: ``"batch"`` or None.
        dropout: probability of the dropout that closes the block; 0 leaves it out.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        kernel_size: Sequence[int],
        norm: str | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        conv = partial(Conv[Conv.CONV, spatial_dims], out_channels=out_channels, kernel_size=tuple(kernel_size))
        self.conv1 = conv(in_channels)
        self.norm1 = None if norm is None else Norm[norm, spatial_dims](out_channels)
        self.conv2 = conv(out_channels)
        self.norm2 = None if norm is None else Norm[norm, spatial_dims](out_channels)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve the map (B, C, *S) twice."""
        x = relu_(_normalised(self.conv1, self.norm1, x))
        x = relu_(_normalised(self.conv2, self.norm2, x))
        return x if self.dropout is None else self.dropout(x)


def _normalised(conv: Convolution, norm: BatchNorm | None, x: torch.Tensor) -> torch.Tensor:
    """Convolve and normalise; in evaluation by one convolution, the norm being a scale and a shift per channel then."""
    if norm is None:
        return conv(x)
    if norm.training:
        return norm(conv(x))
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    weight = conv.weight * scale.reshape(-1, *[1] * (conv.weight.ndim - 1))
    bias = (conv.get_parameter("bias") - mean) * scale + norm.bias
    return functional_call(conv, {"weight": weight, "bias": bias}, (x,))


class Down(nn.Module):
    """One step of the contracting path: max-pool, then two convolutions."""

    def __init__(self, spatial_dims: int, pool_size: Sequence[int], convs: DoubleConv) -> None:
        super().__init__()
        self.pool = Pool[Pool.MAX, spatial_dims](tuple(pool_size))
        self.convs = convs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Halve the map (B, C, *S), then convolve it."""
        return self.convs(self.pool(x))


class Up(nn.Module):
    """One step of the expanding path: up-convolution, concatenation with the cropped skip, then two convolutions.

    Args:
        up_conv: transposed convolution whose kernel and stride are the level's pooling.
        convs: the two convolutions after the concatenation.
        margin: pixels to crop from each side of the skip along each axis.
    """

    def __init__(self, up_conv: nn.Module, convs: DoubleConv, margin: Sequence[int]) -> None:
        super().__init__()
        self.up_conv = up_conv
        self.convs = convs
        self.margin = tuple(margin)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Double the map ``x`` (B, C, *S) and join it with the centre of ``skip``, the up-sampled channels first."""
        centre = (..., *(slice(m, -m or None) for m in self.margin))
        return self.convs(torch.cat([self.up_conv(x), skip[centre]], dim=1))


class ValidUNet(nn.Module):
    """Segment tiles with the network of the paper's Figure 1; its defaults are the paper's (572 px in, 388 px out).

    Source: https://arxiv.org/abs/1505.04597, section 2. Not stated there and chosen here: no ReLU after the
    up-convolution (none is drawn in Figure 1; the authors' release has one), dropout of 0.5 at the end of the two
    lowest contracting levels (as in the release). Weights are drawn from N(0, 2 / N), where N is the number of
    incoming nodes of one neuron: kernel volume x input channels, and just the input channels for an up-convolution,
    whose kernel does not overlap itself. Biases start at 0.

    Normalisation over a tile (instance, group, layer) is not offered: it would make the scores of a pixel depend on the
    tile it was computed in.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: classes.
        features: channels of each level, the highest resolution first; their number sets the depth.
        kernel_size: odd kernel side: one for all, one per axis, or per level one per axis (as many as ``features``).
        pool_size: pooling, 1 or 2: one for all, one per axis, or per level one per axis (one fewer than ``features``).
            A stack of thick slices keeps its z with, for example, ``[[2, 2, 1], [2, 2, 1], ...]`` and kernels to match.
        norm: ``"batch"`` or None.
        dropout: probability of both dropouts; 0 for none.
        last_up_features: channels of the last up-convolution; None for ``features[0]``. The authors' release kept 128.
        image_scale: factor by which the training images were rescaled. It is kept with the weights, as are the next.
        image_smoothing: sigma, in pixels after rescaling, of the Gaussian that they were smoothed with; 0 for none.
        cell_diameter: typical diameter of the training images' cells, pixels before rescaling; nan if unknown.

    Attributes:
        in_channels: channels of the image.
        image_scale: factor to rescale images by, scalar buffer; see ``RescalingInferer``.
        image_smoothing: sigma to smooth them with after that, pixels, scalar buffer.
        cell_diameter: diameter in pixels of the cells for which that factor is right, scalar buffer.
        border: pixels lost on each side, per axis.
        poolings: number of halvings, per axis.
        bytes_per_pixel: memory of the maps alive at the same time in evaluation, per input pixel, float32.

    Raises:
        ValueError: for an argument outside of the above.

    Example:
        >>> network = ValidUNet(features=(4, 8, 16, 32, 64)).eval()
        >>> network(torch.zeros(1, 1, 204, 188)).shape
        torch.Size([1, 2, 20, 4])
    """

    image_scale: torch.Tensor
    image_smoothing: torch.Tensor
    cell_diameter: torch.Tensor

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        out_channels: int = 2,
        *,
        features: Sequence[int] = (64, 128, 256, 512, 1024),
        kernel_size: PerLevel = 3,
        pool_size: PerLevel = 2,
        norm: str | None = None,
        dropout: float = 0.5,
        last_up_features: int | None = None,
        image_scale: float = 1.0,
        image_smoothing: float = 0.0,
        cell_diameter: float = nan,
    ) -> None:
        super().__init__()
        levels = len(features)
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}.")
        if levels < 2:
            raise ValueError(f"features must hold at least 2 levels, got {tuple(features)}.")
        if norm not in (None, "batch"):
            raise ValueError(f"norm must be 'batch' or None (others depend on the tile), got {norm!r}.")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout must be between 0 and 1, got {dropout}.")
        kernels = _per_level("kernel_size", kernel_size, levels, spatial_dims)
        pools = _per_level("pool_size", pool_size, levels - 1, spatial_dims)
        if any(k < 1 or k % 2 == 0 for row in kernels for k in row):
            raise ValueError(f"kernel_size must be odd along each axis, got {kernel_size}.")
        if any(p not in (1, 2) for row in pools for p in row):
            raise ValueError(f"pool_size must be 1 or 2 along each axis, got {pool_size}.")

        axes = range(spatial_dims)
        self.in_channels = in_channels
        self.register_buffer("image_scale", torch.tensor(float(image_scale)))
        self.register_buffer("image_smoothing", torch.tensor(float(image_smoothing)))
        self.register_buffer("cell_diameter", torch.tensor(float(cell_diameter)))
        self.border = tuple(context_border([k[a] for k in kernels], [p[a] for p in pools]) for a in axes)
        self.poolings = tuple(sum(p[a] == 2 for p in pools) for a in axes)
        # Most is alive on the last level up: the joined maps, its other three (skip, convolutions), and the map below.
        joined = features[0] + (last_up_features or features[0])
        self.bytes_per_pixel = 4 * (joined + max(joined, 3 * features[0]) + ceil(features[1] / prod(pools[0])))

        def double_conv(level: int, channels: int, drop: float = 0.0) -> DoubleConv:
            return DoubleConv(spatial_dims, channels, features[level], kernels[level], norm, drop)

        def up(level: int) -> Up:
            up_features = features[level] if level or last_up_features is None else last_up_features
            up_conv = Conv[Conv.CONVTRANS, spatial_dims](features[level + 1], up_features, pools[level], pools[level])
            below = [
                context_border([k[a] for k in kernels[level + 1 :]], [p[a] for p in pools[level + 1 :]]) for a in axes
            ]
            margin = [p * b for p, b in zip(pools[level], below, strict=True)]
            return Up(up_conv, double_conv(level, up_features + features[level]), margin)

        drops = [0.0] * (levels - 2) + [dropout] * 2
        self.input_block = double_conv(0, in_channels, drops[0])
        self.downs = nn.ModuleList(
            Down(spatial_dims, pools[i - 1], double_conv(i, features[i - 1], drops[i])) for i in range(1, levels)
        )
        self.ups = nn.ModuleList(up(i) for i in reversed(range(levels - 1)))
        self.output_conv = Conv[Conv.CONV, spatial_dims](features[0], out_channels, 1)
        self.apply(_initialise)
        if (
            spatial_dims == 2
        ):  # Channels last in memory: convolutions run faster so (not in 3-D). Inputs need not follow.
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the class scores (logits) of the tile's centre.

        Args:
            x: tiles (B, in_channels, *S), float, intensities of about [0, 1].

        Returns:
            Scores (B, out_channels, *S - 2 * border).

        Raises:
            ValueError: when the poolings do not fit a side of the tile; names the nearest sides that work.
        """
        self.output_size(x.shape[2:])
        maps = [self.input_block(x)]
        for down in self.downs:
            maps.append(down(maps[-1]))
        x = maps.pop()
        for up in self.ups:
            x = up(x, maps.pop())
        return self.output_conv(x)

    def output_size(self, input_size: PerAxis) -> tuple[int, ...]:
        """Compute the size of the scores for an input tile of ``input_size`` pixels (one side, or one per axis).

        Raises:
            ValueError: when the network cannot take that size; names the nearest sides that work.

        Example:
            >>> ValidUNet(features=(2, 4, 8, 16, 32)).output_size(572)
            (388, 388)
        """
        return output_sizes(input_size, self.border, [2**p for p in self.poolings])

    @classmethod
    def from_state_dict(cls, state: Mapping[str, torch.Tensor]) -> ValidUNet:
        """Build the network that a state dict belongs to, with its weights and without dropout.

        Args:
            state: weights, as ``torch.load("model.pt", weights_only=True)`` returns them.

        Raises:
            ValueError: when these are not the weights of a ValidUNet.

        Example:
            >>> ValidUNet.from_state_dict(ValidUNet(features=(4, 8), norm="batch").state_dict()).border
            (8, 8)
        """
        try:
            settings = settings_of_weights(shapes_of_weights(state))
        except KeyError as missing:
            raise ValueError(f"state must hold the weights of a ValidUNet, got none for {missing}.") from None
        network = cls(**settings, dropout=0.0)
        network.load_state_dict(state)
        return network


def shapes_of_weights(state: Any) -> dict[str, tuple[int, ...]]:
    """List the shapes of the tensors in a state dict by their names; of anything else than a dictionary, none.

    Args:
        state: what a file of weights held.

    Example:
        >>> shapes_of_weights({"weight": torch.ones(2, 3), "epoch": 5})
        {'weight': (2, 3)}
    """
    weights = state if isinstance(state, Mapping) else {}
    return {
        name: tuple(weight.shape)
        for name, weight in weights.items()
        if isinstance(name, str) and isinstance(weight, torch.Tensor)
    }


def settings_of_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Tell from the shapes of its weights by which arguments a :class:`ValidUNet` was built; not its dropout.

    Args:
        shapes: shape of each weight by its name, see `shapes_of_weights`.

    Raises:
        KeyError: when these are not the weights of a ValidUNet; holds the name of one that is missing.

    Example:
        >>> weights = ValidUNet(features=(4, 8), norm="batch").state_dict()
        >>> settings_of_weights(shapes_of_weights(weights))["features"]
        [4, 8]
    """
    depth = sum(name.endswith("up_conv.weight") for name in shapes)
    blocks = ["input_block", *(f"downs.{i}.convs" for i in range(depth))]
    first = shapes["input_block.conv1.weight"]
    return {
        "spatial_dims": len(first) - 2,
        "in_channels": first[1],
        "out_channels": shapes["output_conv.weight"][0],
        "features": [shapes[f"{block}.conv2.weight"][0] for block in blocks],
        "kernel_size": [shapes[f"{block}.conv1.weight"][2:] for block in blocks],
        "pool_size": [shapes[f"ups.{i}.up_conv.weight"][2:] for i in reversed(range(depth))],
        "norm": "batch" if "input_block.norm1.weight" in shapes else None,
        "last_up_features": shapes[f"ups.{depth - 1}.up_conv.weight"][1],
    }


def _per_level(name: str, value: PerLevel, levels: int, spatial_dims: int) -> list[tuple[int, ...]]:
    """Spell a setting out as one value per level and axis."""
    per_level = not isinstance(value, int) and not all(isinstance(row, int) for row in value)
    rows: list[Any] = list(value) if per_level else [value] * levels  # type: ignore[arg-type]
    if len(rows) != levels:
        raise ValueError(f"{name} must hold one row for each of {levels} levels, got {value}.")
    if any(not isinstance(row, int) and len(row) != spatial_dims for row in rows):
        raise ValueError(f"{name} must hold one value for each of {spatial_dims} axes, got {value}.")
    return [ensure_tuple_rep(row, spatial_dims) for row in rows]


def _initialise(module: nn.Module) -> None:
    """Draw the weights of one layer from N(0, 2 / N), N its incoming nodes per neuron."""
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        incoming = module.in_channels * prod(module.kernel_size)
    elif isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d):
        incoming = module.in_channels
    else:
        return
    nn.init.normal_(module.weight, std=sqrt(2 / incoming))
    if module.bias is not None:
        nn.init.zeros_(module.bias)
