from unet_monai.metrics.cell_tracking import DETMetric as DETMetric
from unet_monai.metrics.cell_tracking import SEGMetric as SEGMetric
