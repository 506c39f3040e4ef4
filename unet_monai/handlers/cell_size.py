"""Warn of images whose cells have another size than those that the network learnt."""

from __future__ import annotations

from itertools import chain

import numpy as np
from ignite.engine import Events
from monai.engines.workflow import Workflow
from unet_monai.data.cell_size import cell_sizes
from unet_monai.handlers.ranks import gather
from unet_monai.inferers.rescaling import RescalingInferer, warn_of_other_cells
from unet_monai.networks import ValidUNet


class CellSizeHandler:
    """Compare the cells found in all images with those that the network looked for, and warn once, at the end.

    Attach it to the evaluator after the handler that loads the weights, with which the size of the cells comes.
    Of several processes the first one warns, by the cells of all.

    Args:
        network: what finds the cells.
        inferer: what brings the images to the network's scale.
    """

    def __init__(self, network: ValidUNet, inferer: RescalingInferer) -> None:
        self.network = network
        self.inferer = inferer
        self.sizes: list[int] = []

    def attach(self, engine: Workflow) -> None:
        """Register with the evaluator."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.step)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def start(self, engine: Workflow) -> None:
        """Forget the cells of an earlier run, and stop where the wanted scale cannot be told."""
        self.inferer.scale_for(self.network)
        self.sizes = []

    def step(self, engine: Workflow) -> None:
        """Measure the cells of a batch: the instances ``pred`` of each of its images."""
        for item in engine.state.output:
            self.sizes.extend(cell_sizes(np.asarray(item["pred"].cpu())))

    def finish(self, engine: Workflow) -> None:
        """Warn if their median diameter is half or twice that of the cells looked for, or further off."""
        of_ranks = gather(self.sizes)
        if of_ranks:
            sizes = list(chain.from_iterable(of_ranks))
            warn_of_other_cells(sizes, self.network, self.inferer, setting="--cell_diameter ")
