"""The overlap-tile strategy of the paper's Figure 2: any image size, scored as one pass over the whole would."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, product
from typing import Any

import numpy as np
import torch
from monai.data.meta_obj import get_track_meta
from monai.data.meta_tensor import MetaTensor
from monai.inferers.inferer import Inferer
from monai.utils import convert_to_dst_type, ensure_tuple, ensure_tuple_rep
from tqdm import tqdm
from unet_monai.networks.tile_shapes import balanced_output_size, mirrored_indices, output_sizes, tile_starts


class OverlapTileInferer(Inferer):
    """Score an image of any size tile by tile, exactly as one pass over the mirrored image would.

    Source: https://arxiv.org/abs/1505.04597, Figure 2. Output tiles abut, input tiles overlap by twice the border, and
    the image is mirrored (edge pixel not repeated) where a tile reaches beyond it. The paper's strides equal the output
    size, which puts neighbouring tiles out of pooling phase; here tiles start at multiples of ``2 ** poolings`` pixels
    from the image's first one, so the stitched scores equal those of the whole image up to float rounding.

    The network is only called: it may be compiled, wrapped for several devices, or an ONNX session.

    Args:
        roi_size: input tile size, one side or one per axis. None picks, for each image, few equal tiles within the
            memory budget: the larger the tiles, the fewer pixels are computed twice for their borders.
        sw_batch_size: tiles per call of the network.
        border: pixels that the network loses on each side, one for all axes or one per axis.
        poolings: how often the network halves, one for all axes or one per axis.
        memory_budget: bytes that the network may use for the maps of a call, where ``roi_size`` is None.
        bytes_per_pixel: bytes of these maps per input pixel of a tile (``ValidUNet.bytes_per_pixel``).
        sw_device: device of the tiles; None for that of the input.
        device: device of the stitched scores; None for that of the input.
        progress: whether to show a progress bar over the tiles.

    Raises:
        ValueError: when ``sw_batch_size``, ``memory_budget`` or ``bytes_per_pixel`` is not positive, and when
            ``roi_size`` is not a size that the poolings fit; names the nearest sizes.

    Example:
        >>> from unet_monai.networks import ValidUNet
        >>> network = ValidUNet(features=(2, 4, 8, 16, 32)).eval()
        >>> OverlapTileInferer(roi_size=252)(torch.zeros(1, 1, 100, 50), network).shape
        torch.Size([1, 2, 100, 50])
    """

    def __init__(
        self,
        roi_size: Sequence[int] | int | None = None,
        sw_batch_size: int = 1,
        *,
        border: Sequence[int] | int = 92,
        poolings: Sequence[int] | int = 4,
        memory_budget: int = 768 * 2**20,
        bytes_per_pixel: int = 352,
        sw_device: torch.device | str | None = None,
        device: torch.device | str | None = None,
        progress: bool = False,
    ) -> None:
        super().__init__()
        if sw_batch_size < 1:
            raise ValueError(f"sw_batch_size must be at least 1, got {sw_batch_size}.")
        if memory_budget <= 0 or bytes_per_pixel <= 0:
            raise ValueError(
                f"memory_budget and bytes_per_pixel must be positive, got {memory_budget} and {bytes_per_pixel}."
            )
        self.roi_size = roi_size
        self.sw_batch_size = sw_batch_size
        self.border = border
        self.poolings = poolings
        self.memory_budget = memory_budget
        self.bytes_per_pixel = bytes_per_pixel
        self.sw_device = sw_device
        self.device = device
        self.progress = progress
        if roi_size is not None:
            axes = max(len(ensure_tuple(per_axis)) for per_axis in (border, poolings))
            self.tile_output_size([1] * (axes if axes > 1 else len(ensure_tuple(roi_size))))

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Score a batch of images.

        Args:
            inputs: images (B, C, *S), any number of spatial axes of any size; a MetaTensor keeps its metadata.
            network: maps tiles (N, C, *T) to scores (N, K, *T - 2 * border).
            args: passed on to the network.
            kwargs: passed on to the network.

        Returns:
            Scores (B, K, *S) of the network's dtype.

        Raises:
            ValueError: when ``roi_size`` is no valid tile, its output is smaller than the pooling step where several
                tiles are needed, or the network's output is not the tile less the border.
        """
        image = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        size = image.shape[2:]
        border = ensure_tuple_rep(self.border, len(size))
        tile = self.tile_output_size(size)
        steps = (2**p for p in ensure_tuple_rep(self.poolings, len(size)))
        starts = [tile_starts(n, t, s) for n, t, s in zip(size, tile, steps, strict=True)]
        windows = [(b, corner) for b in range(len(image)) for corner in product(*starts)]

        stitched: torch.Tensor | None = None
        for batch in _batches(tqdm(windows, disable=not self.progress, unit="tile"), self.sw_batch_size):
            tiles = torch.cat([_mirrored_tile(image, b, corner, tile, border) for b, corner in batch])
            scores = network(tiles.to(self.sw_device or image.device), *args, **kwargs)
            if tuple(scores.shape[2:]) != tile:
                raise ValueError(
                    f"network must return the tile less a border of {border} px, {tile}, got {tuple(scores.shape[2:])}."
                )
            if stitched is None:
                shape = (len(image), scores.shape[1], *size)
                stitched = torch.empty(shape, dtype=scores.dtype, device=self.device or image.device)
            for (b, corner), score in zip(batch, scores, strict=True):
                _paste(stitched[b], score, corner)
        if stitched is None:
            raise ValueError(f"inputs must hold at least one image, got {tuple(inputs.shape)}.")
        if isinstance(inputs, MetaTensor) and get_track_meta():
            return convert_to_dst_type(stitched, inputs, dtype=stitched.dtype, device=stitched.device)[0]
        return stitched

    def tile_output_size(self, image_size: Sequence[int]) -> tuple[int, ...]:
        """Compute the output size of the tiles that an image of ``image_size`` pixels is cut into.

        Without a ``roi_size`` the axes share the memory budget, the shortest first: what it does not need, the longer
        ones get. A tile is never smaller than one pooling step, whatever the budget.

        Raises:
            ValueError: when ``roi_size`` is not a size that the poolings fit; names the nearest sizes.

        Example:
            >>> OverlapTileInferer().tile_output_size((512, 2048))
            (516, 2052)
        """
        dims = len(image_size)
        steps = [2**p for p in ensure_tuple_rep(self.poolings, dims)]
        borders = ensure_tuple_rep(self.border, dims)
        if self.roi_size is not None:
            return output_sizes(self.roi_size, borders, steps)
        pixels = self.memory_budget / (self.bytes_per_pixel * self.sw_batch_size)
        outputs = [0] * dims
        for axes_left, axis in zip(range(dims, 0, -1), np.argsort(image_size, kind="stable"), strict=True):
            side = int(pixels ** (1 / axes_left))
            outputs[axis] = _chosen_output(image_size[axis], side, borders[axis], steps[axis])
            pixels /= outputs[axis] + 2 * borders[axis]
        return tuple(outputs)


def _chosen_output(image_size: int, largest_input: int, border: int, step: int) -> int:
    """Pick the tile's output along one axis: equal tiles within ``largest_input``, of at least one pooling step."""
    room = max(largest_input - 2 * border, step)
    largest = room - (room + border) % step
    return balanced_output_size(image_size, largest if largest >= step else largest + step, border, step)


def _batches(windows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Group an iterable into lists of at most ``size``."""
    iterator = iter(windows)
    while batch := list(islice(iterator, size)):
        yield batch


def _mirrored_tile(
    image: torch.Tensor, index: int, corner: Sequence[int], tile: Sequence[int], border: Sequence[int]
) -> torch.Tensor:
    """Cut the input tile (1, C, *T) around the output tile that begins at ``corner``, mirrored beyond the image."""
    cut = image[index : index + 1]
    for axis, (start, t, b) in enumerate(zip(corner, tile, border, strict=True), start=2):
        positions = mirrored_indices(start - b, start + t + b, image.shape[axis])
        cut = cut.index_select(axis, positions.to(image.device))
    return cut


def _paste(stitched: torch.Tensor, score: torch.Tensor, corner: Sequence[int]) -> None:
    """Write the scores (K, *T) of one tile into the image's (K, *S), leaving out what lies beyond the image."""
    sizes = [min(t, n - c) for t, n, c in zip(score.shape[1:], stitched.shape[1:], corner, strict=True)]
    inside = (slice(None), *(slice(c, c + n) for c, n in zip(corner, sizes, strict=True)))
    stitched[inside] = score[(slice(None), *(slice(n) for n in sizes))].to(stitched.device)
