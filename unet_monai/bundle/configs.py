"""Say where the configs are, also after ``pip install`` of a wheel, which carries a copy of them.

python -m unet_monai.bundle.configs
"""

from __future__ import annotations

from pathlib import Path

import unet_monai


def find_configs(package: str | None = None) -> str:
    """Find the folder of ``train.json``, ``inference.json`` and the others.

    It is the one of the bundle that the package belongs to: the packed bundle around it, the repository's ``bundle/``
    beside it, or the copy that a wheel installs inside it. The last is no place to write to: give a folder of your own
    as ``--bundle_root`` there.

    Args:
        package: folder of the package; None for the one that is running.

    Returns:
        The absolute path of the folder.

    Raises:
        FileNotFoundError: when there is none.
    """
    folder = Path(package or unet_monai.__path__[0]).resolve()
    for root in (folder.parent, folder.parent / "bundle", folder / "bundle_files"):
        if (root / "configs" / "train.json").is_file():
            return str(root / "configs")
    raise FileNotFoundError(f"the package must come with its configs, got none around {folder}.")


if __name__ == "__main__":
    print(find_configs())
