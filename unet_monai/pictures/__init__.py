from unet_monai.pictures.errors import draw_errors as draw_errors
from unet_monai.pictures.overlays import contact_sheet as contact_sheet
from unet_monai.pictures.overlays import draw_overlay as draw_overlay
