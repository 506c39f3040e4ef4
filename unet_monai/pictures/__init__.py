from unet_monai.pictures.overlays import contact_sheet as contact_sheet
from unet_monai.pictures.overlays import draw_overlay as draw_overlay
