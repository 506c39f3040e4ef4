from unet_monai.handlers.checkpoints import CheckpointHandler as CheckpointHandler
from unet_monai.handlers.checkpoints import ResumeHandler as ResumeHandler
from unet_monai.handlers.epoch_seed import EpochSeedHandler as EpochSeedHandler
from unet_monai.handlers.overlays import OverlayHandler as OverlayHandler
from unet_monai.handlers.progress import FileProgressHandler as FileProgressHandler
from unet_monai.handlers.progress import ProgressHandler as ProgressHandler
from unet_monai.handlers.split import SplitHandler as SplitHandler
from unet_monai.handlers.weight_averaging import WeightAveragingHandler as WeightAveragingHandler
