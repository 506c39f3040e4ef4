"""Train on a data set with the bundle's own command, in a process of its own, round after round."""

from __future__ import annotations

import atexit
import json
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from unet_monai.bundle.configs import find_configs
from unet_monai.data import find_pairs, grow_split
from unet_monai.data.growing_split import VALIDATION
from unet_monai.data.image_formats import split_page
from unet_monai.data.writing import writing
from unet_monai.napari_plugin.planes import load_plane_network
from unet_monai.networks.valid_unet import shapes_of_weights
from unet_monai.networks.weights_file import options_of_weights

ROUNDS = "fine_tuned"
_BAR = re.compile(r"training: +\d+%.*?\| *(\d+)/(\d+) \[[^,\]]*(?:, *[^,\]]*)?(?:, (.*))?\]")


class Progress(NamedTuple):
    """How far a training is: steps done, steps in all, and its figures as the bar shows them."""

    step: int
    steps: int
    figures: str


class Round(NamedTuple):
    """One fine-tuning: its folder, its command, and the weights and the report that it will leave."""

    folder: Path
    command: list[str]
    weights: Path
    report: Path


def prepare_round(
    dataset_dir: str | Path, weights: str | Path, *, epochs: int = 8, settings: Sequence[str] = ()
) -> Round:
    """Make the folder and the command of the next fine-tuning.

    Rounds are numbered: ``fine_tuned/1``, ``fine_tuned/2``, ... in the data set. So earlier weights stay, and a
    cancelled round spoils nothing. An image never moves from training to validation or back: ``fine_tuned/split.json``
    remembers where each went; the fifth one is the first to validate.

    Args:
        dataset_dir: the data set, of any layout that training reads.
        weights: file of the weights to start from.
        epochs: length of the training.
        settings: further words of the command line, such as ``["--max_minutes", "10"]``.

    Returns:
        The round.

    Raises:
        FileNotFoundError: as `find_pairs` and `load_plane_network`.
        ValueError: likewise.
    """
    root, start = Path(dataset_dir).expanduser().absolute(), Path(weights).expanduser().absolute()
    network_settings = _settings_of(start)
    validation = _validation_images(root)
    folder = _next_folder(root / ROUNDS)
    command = [sys.executable, "-m", "monai.bundle", "run", "training"]
    command += ["--config_file", str(Path(find_configs()) / "train.json"), "--bundle_root", str(folder)]
    command += ["--dataset_dir", str(root), "--validation", repr(validation), "--pretrained", str(start)]
    command += ["--epochs", str(epochs), *network_settings, *settings]
    return Round(folder, command, folder / "models" / "model.pt", folder / "output" / "report.html")


def read_progress(line: str) -> Progress | None:
    """Read the training's bar.

    Args:
        line: what the training wrote.

    Returns:
        How far it is, or None for a line that is not the bar's.

    Example:
        >>> read_progress("training:  50%|#####     | 3/6 [00:02<00:02, 1.3step/s, epoch=1/2, loss=0.913]")
        Progress(step=3, steps=6, figures='epoch=1/2, loss=0.913')
    """
    match = _BAR.match(line.strip())
    return None if match is None else Progress(int(match[1]), int(match[2]), match[3] or "")


class Training:
    """A round that runs. All that it writes, but for the bar, goes to ``training.log`` in its folder.

    Args:
        plan: what `prepare_round` returned.
    """

    def __init__(self, plan: Round) -> None:
        self.plan = plan
        self.cancelled = False
        self._process = subprocess.Popen(
            plan.command,
            cwd=plan.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        atexit.register(self.cancel)  # it must not outlive the program that shows it

    def follow(self) -> Iterator[Progress | str]:
        """Follow the training to its end.

        Yields:
            How far it is, every other line that it writes, and "" twice a second while it writes none.

        Raises:
            RuntimeError: when it fails; holds its last line, which says why, and the path of the log.
        """
        last, log = "", self.plan.folder / "training.log"
        with log.open("w", encoding="utf-8") as file:
            for line in self._lines():
                progress = read_progress(line)
                if line and progress is None:
                    last = line
                    file.write(f"{line}\n")
                    file.flush()
                yield line if progress is None else progress
        failed = self._process.wait() != 0
        atexit.unregister(self.cancel)
        if failed and not self.cancelled:
            raise RuntimeError(f"training must end without an error, got {last!r}; see {log}.")

    def cancel(self) -> None:
        """End the training; `follow` then ends, too."""
        self.cancelled = True
        self._process.terminate()

    def runs(self) -> bool:
        """Tell whether the process is still there."""
        return self._process.poll() is None

    def _lines(self) -> Iterator[str]:
        """Give the lines as they come, and an empty one for each half second without: a reader must not get stuck."""
        waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()

        def read() -> None:
            with self._process.stdout or nullcontext(()) as output:
                # The bar's carriage returns end lines, too: that is how Python reads text.
                for line in output:
                    if line.strip():
                        waiting.put(line.strip())
            waiting.put(None)

        threading.Thread(target=read, daemon=True).start()
        while True:
            try:
                line = waiting.get(timeout=0.5)
            except queue.Empty:
                yield ""
                continue
            if line is None:
                return
            yield line


def _settings_of(weights: Path) -> list[str]:
    """Write the settings of the network that has these weights as words of the command line."""
    options = options_of_weights(shapes_of_weights(load_plane_network(weights).state_dict()))
    return [word for name, value in options.items() for word in (f"--{name}", value)]


def _validation_images(root: Path) -> list[str]:
    """Choose the images that validate, and remember the choice."""
    # With their folders, which tell apart images of one name.
    addresses = [Path(pair["image"]) for pair in find_pairs(root)]
    names = [f"{Path(split_page(str(address))[0]).parent.name}/{address.name}" for address in addresses]
    memory = root / ROUNDS / "split.json"
    earlier = json.loads(memory.read_text(encoding="utf-8")) if memory.is_file() else {}
    uses = grow_split(names, earlier)
    memory.parent.mkdir(exist_ok=True)
    with writing(memory) as part:
        part.write_text(json.dumps(uses, indent=2) + "\n", encoding="utf-8")
    return [name for name in names if uses[name] == VALIDATION]


def _next_folder(rounds: Path) -> Path:
    number = 1 + max((int(entry.name) for entry in rounds.iterdir() if entry.name.isdecimal()), default=0)
    folder = rounds / str(number)
    folder.mkdir()
    return folder
