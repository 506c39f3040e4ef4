from unet_monai.networks.parallel import distribute as distribute
from unet_monai.networks.pretrained import load_pretrained as load_pretrained
from unet_monai.networks.valid_unet import ValidUNet as ValidUNet
