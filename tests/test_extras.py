from __future__ import annotations

import pytest
from unet_monai.extras import import_extra


def test_missing_module_names_the_command() -> None:
    with pytest.raises(
        ModuleNotFoundError, match=r'^no_such must be installed, by: pip install "unet-monai\[export\]"$'
    ):
        import_extra("no_such", "export")
