"""The few lines for notebooks: an array in, instances out."""

from __future__ import annotations

from os import PathLike

import numpy as np
import torch
from monai.transforms import ScaleIntensityRangePercentiles
from unet_monai.data.cell_size import cell_sizes
from unet_monai.data.image_io import PERCENTILES, check_values
from unet_monai.inferers import OverlapTileInferer, RescalingInferer
from unet_monai.inferers.rescaling import warn_of_other_cells
from unet_monai.networks import ValidUNet, load_network
from unet_monai.transforms import LogitsToInstances


def segment(
    image: np.ndarray,
    network: ValidUNet | str | PathLike[str],
    *,
    threshold: float = 0.7,
    edge_threshold: float = 0.3,
    min_size: int = 20,
    cell_diameter: float | None = None,
    roi_size: int | None = None,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """Segment one image, exactly as ``bundle/configs/inference.json`` does with its defaults.

    A warning is logged if the cells found are half or twice as wide, or further off, as those the network looked for.

    Args:
        image: rows first: (H, W), or (D, H, W) for a 3-D network; channels last where the network has several.
        network: a trained network, or the path of its weights, such as ``bundle/models/model.pt``.
        threshold: probability above which a pixel is a cell's core.
        edge_threshold: probability above which a core grows.
        min_size: cores of fewer pixels are dropped.
        cell_diameter: typical diameter in pixels of the cells in the image; None for that of the training images.
        roi_size: side of the tiles; None chooses one that fits the image.
        device: device to compute on.

    Returns:
        Instances of the image's (H, W) or (D, H, W), int32: 0 background, 1, 2, ... the cells.

    Raises:
        FileNotFoundError: when there are no such weights.
        ValueError: when the image does not have the network's axes and channels, or holds single values far outside of
            the others, or the file holds no weights.

    Example:
        >>> segment(np.random.rand(40, 60), ValidUNet(features=(2, 4, 8, 16, 32))).shape
        (40, 60)
    """
    if not isinstance(network, ValidUNet):
        network = load_network(network)
    dims, channels = len(network.border), network.in_channels
    expected = dims + (channels > 1)
    if image.ndim != expected or (channels > 1 and image.shape[-1] != channels):
        raise ValueError(f"image must have {dims} axes for {channels} channel(s), got shape {image.shape}.")
    # The bundle's own order: channels first, columns before rows.
    columns_first = image.transpose() if channels > 1 else image.transpose()[None]
    check_values(columns_first, "image")
    normalise = ScaleIntensityRangePercentiles(*PERCENTILES, b_min=0, b_max=1, channel_wise=True)
    tensor = torch.as_tensor(normalise(columns_first.astype(np.float32)), device=device)[None]
    tile_inferer = OverlapTileInferer(
        roi_size, border=network.border, poolings=network.poolings, bytes_per_pixel=network.bytes_per_pixel
    )
    inferer = RescalingInferer(tile_inferer, cell_diameter)
    with torch.inference_mode():
        scores = inferer(tensor, network.to(device).eval())[0]
    find_instances = LogitsToInstances(threshold=threshold, edge_threshold=edge_threshold, min_size=min_size)
    instances = find_instances(scores)[0].cpu().numpy().transpose()
    warn_of_other_cells(cell_sizes(instances), network, inferer, setting="cell_diameter=")
    return instances
