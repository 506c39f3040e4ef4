from unet_monai.networks.onnx_network import OnnxNetwork as OnnxNetwork
from unet_monai.networks.parallel import distribute as distribute
from unet_monai.networks.pretrained import load_pretrained as load_pretrained
from unet_monai.networks.traits import NetworkTraits as NetworkTraits
from unet_monai.networks.valid_unet import ValidUNet as ValidUNet
from unet_monai.networks.weights_file import load_network as load_network
