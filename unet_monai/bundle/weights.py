"""Decide which weights inference uses, say so, and check that they fit the network."""

from __future__ import annotations

import logging
from pathlib import Path

from torch import nn
from unet_monai.networks.weights_file import check_weights_fit, read_weights_file

logger = logging.getLogger(__name__)


def find_weights(
    bundle_root: str, checkpoint: str | None = None, ckpt_dir: str | None = None, *, network: nn.Module | None = None
) -> str:
    """Find the weights: ``checkpoint`` if given, else what training wrote, else what the bundle was shipped with.

    Args:
        bundle_root: folder of the bundle; training writes ``models/model.pt`` in it, and ``weights/`` is shipped.
        checkpoint: path given by the user, or None.
        ckpt_dir: where training writes ``model.pt`` instead of ``models/``, or None.
        network: the ``ValidUNet`` that the weights are for; None leaves the file unread.

    Returns:
        The path of the weights; it is logged.

    Raises:
        FileNotFoundError: when the given file does not exist, or none was given and there is none.
        ValueError: when several files were shipped and none is given, when the file holds something else than weights,
            and when these are of another network; names the settings of theirs.
    """
    root = Path(bundle_root)
    trained = (root / "models" if ckpt_dir is None else Path(ckpt_dir)) / "model.pt"
    shipped = sorted((root / "weights").glob("*.pt"))
    if checkpoint is not None:
        path = Path(checkpoint)
        if not path.is_file():
            raise FileNotFoundError(f"checkpoint must be an existing file, got {checkpoint}.")
    elif trained.is_file():
        path = trained
    elif len(shipped) == 1:
        path = shipped[0]
    elif shipped:
        raise ValueError(f"checkpoint must name one of {', '.join(map(str, shipped))}, got None.")
    else:
        raise FileNotFoundError(f"no weights at {trained}: train first, or give a file with --checkpoint.")
    logger.info("weights: %s", path)
    if network is not None:
        state = read_weights_file(path, "checkpoint")
        # MONAI's CheckpointLoader takes a plain state dict, or one under "model".
        check_weights_fit(state.get("model", state), network, name="checkpoint", path=path)
    return str(path)
