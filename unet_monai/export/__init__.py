from unet_monai.export.graphs import export_graph as export_graph
from unet_monai.export.graphs import save_onnx as save_onnx
from unet_monai.export.graphs import save_torch_program as save_torch_program
from unet_monai.export.same_size import SameSizeUNet as SameSizeUNet
