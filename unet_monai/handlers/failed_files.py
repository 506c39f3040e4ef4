"""Let inference go on past files that fail, and list them at the end."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from monai.engines import SupervisedEvaluator
from unet_monai.data.datalist import result_names
from unet_monai.data.fault_tolerant_dataset import FailedFilesError, ReadableDataset, error_line
from unet_monai.data.image_formats import split_page
from unet_monai.data.writing import part_of
from unet_monai.handlers.ranks import gather

logger = logging.getLogger(__name__)


class FailedFiles:
    """Do the iterations of an evaluator; when one fails, note its file, and go on with the next.

    Give it to a ``SupervisedEvaluator`` as ``iteration_update``, over batches of one image of a
    ``FaultTolerantDataset``, and call :meth:`report` when it has run. An image that could not be read is noted, and so
    is one that fails when it is segmented or when its results are written. The output of such an iteration holds no
    image. When a page of a stack fails, its other pages are left out too, and what was written of it is removed.

    Args:
        dataset: a ``ReadableDataset`` to report for too, whose failed files it left out when it read them.
        output_dir: folder that inference writes to, or None where nothing is written page by page.

    Attributes:
        failed: what was wrong, in one line, by the path of the file.
    """

    def __init__(self, dataset: ReadableDataset | None = None, output_dir: str | None = None) -> None:
        self.failed: dict[str, str] = {} if dataset is None else dict(dataset.failed)
        self.output_dir = output_dir

    def __call__(self, engine: SupervisedEvaluator, batch: dict[str, Any]) -> Any:
        """Do the iteration of one batch.

        Args:
            engine: the evaluator.
            batch: ``image``, a MetaTensor (1, C, *S), or a failed item of a ``FaultTolerantDataset``.

        Returns:
            The evaluator's output, for a failed image an empty list.
        """
        (address,) = batch["image"] if "error" in batch else batch["image"].meta["filename_or_obj"]
        path = split_page(address)[0]
        if path in self.failed:
            return []
        if "error" in batch:
            return self._skip(path, batch["error"][0])
        try:
            return engine._iteration(engine, batch)
        except Exception as error:
            return self._skip(path, error_line(address, error))

    def report(self) -> None:
        """Raise an error if a file failed. Of several processes the first one raises it, with the files of all.

        Raises:
            FailedFilesError: listing the files, one a line.
        """
        # By file, since each process reads the whole of a ReadableDataset.
        failed = {path: line for of_rank in gather(self.failed) for path, line in of_rank.items()}
        if failed:
            files = "1 file" if len(failed) == 1 else f"{len(failed)} files"
            raise FailedFilesError("\n".join([f"{files} failed, the others are done:", *failed.values()]))

    def _skip(self, path: str, line: str) -> list[Any]:
        self.failed[path] = line
        logger.error("skipped: %s", line)
        if self.output_dir is not None:
            for name in result_names(path):
                part_of(Path(self.output_dir, name)).unlink(missing_ok=True)
        return []
