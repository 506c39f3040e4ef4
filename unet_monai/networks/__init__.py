from unet_monai.networks.valid_unet import ValidUNet as ValidUNet
