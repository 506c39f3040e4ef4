"""What importing the package does to the process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SHOW_ALIGNMENT = """
import monai.bundle
import unet_monai
import torch
print(torch.ones(2**20).data_ptr() % 4096)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="torch asks for huge pages on Linux only")
@pytest.mark.parametrize(("wish", "aligned"), [(None, True), ("0", False)])
def test_large_tensors_lie_on_pages_of_their_own_unless_switched_off(wish: str | None, aligned: bool) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "THP_MEM_ALLOC_ENABLE"}
    if wish is not None:
        environment["THP_MEM_ALLOC_ENABLE"] = wish
    command = [sys.executable, "-W", "ignore", "-c", SHOW_ALIGNMENT]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert (int(shown) == 0) is aligned
