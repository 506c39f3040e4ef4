"""The U-Net of Ronneberger, Fischer and Brox (2015) for MONAI: parts of a bundle, and :func:`segment` for notebooks."""

from unet_monai.segmentation import segment as segment

__version__ = "0.1.0"
