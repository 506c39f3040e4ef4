"""Find the bundle's folder from the package, wherever the command was started."""

from __future__ import annotations

from pathlib import Path

import unet_monai


def find_bundle_root(package: str | None = None) -> str:
    """Find the folder that holds ``configs/``, ``models/`` and ``output/``.

    In a packed bundle the package lies inside that folder; in the repository the two lie side by side.

    Args:
        package: folder of the package; None for the one that is running.

    Returns:
        The absolute path of the bundle's folder.

    Raises:
        FileNotFoundError: when there is neither; says to give ``--bundle_root``.
    """
    parent = Path(package or unet_monai.__path__[0]).resolve().parent
    for folder in (parent, parent / "bundle"):
        if (folder / "configs").is_dir():
            return str(folder)
    raise FileNotFoundError(
        f"no configs/ folder in {parent} or {parent / 'bundle'}: give the bundle's folder with --bundle_root."
    )
