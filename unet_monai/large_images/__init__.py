from unet_monai.large_images.lazy_image import LazyImage as LazyImage
from unet_monai.large_images.lazy_image import open_image as open_image
from unet_monai.large_images.segmenter import BlockSettings as BlockSettings
from unet_monai.large_images.segmenter import LargeImageSegmenter as LargeImageSegmenter
from unet_monai.large_images.segmenter import load_network as load_network
