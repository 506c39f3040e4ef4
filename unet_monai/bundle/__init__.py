from unet_monai.bundle.bundle_root import find_bundle_root as find_bundle_root
from unet_monai.bundle.errors import explain_errors as explain_errors
from unet_monai.bundle.output_dir import check_output_dir as check_output_dir
from unet_monai.bundle.overrides import check_overrides as check_overrides
from unet_monai.bundle.overrides import command_line_settings as command_line_settings
from unet_monai.bundle.weights import find_weights as find_weights
