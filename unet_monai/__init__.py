"""The U-Net of Ronneberger, Fischer and Brox (2015) for MONAI: parts of a bundle, and :func:`segment` for notebooks."""

import os

from unet_monai.segmentation import segment as segment

__version__ = "0.1.0"

# torch's own option for Linux, read at its first tensor: large maps come on huge pages, not on 4 KiB ones that the
# system hands out anew at each layer. Fewer seconds for the same scores; 0 in the environment switches it off.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
