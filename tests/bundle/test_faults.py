"""Bad files and mistaken settings, through the real configs: what is lost, what is said, and when."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fire.parser
import nibabel
import numpy as np
import pytest
import tifffile
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image
from unet_monai.bundle.errors import first_cause, says_all
from unet_monai.data import draw_cells
from unet_monai.data.fault_tolerant_dataset import FailedFilesError
from unet_monai.networks import ValidUNet

from tests.bundle.conftest import REPOSITORY, TINY, run_bundle

CONFIGS = REPOSITORY / "bundle" / "configs"
FEATURES = [2, 4, 8, 16, 32]
CELLS = draw_cells(0, (48, 56))[0]


def run(folder: Path, *configs: str, **settings: Any) -> None:
    """Run configs in this process, with a network that takes no time."""
    tiny = {"bundle_root": str(folder), "network_def#features": FEATURES, "device": "cpu"}
    files = [str(CONFIGS / config) for config in configs]
    workflow = ConfigWorkflow(files, logging_file=False, **{**tiny, **settings})
    workflow.initialize()
    workflow.run()


def infer(folder: Path, **settings: Any) -> None:
    run(folder, "inference.json", **{"input": str(folder / "in"), "output_dir": str(folder / "out"), **settings})


def train(folder: Path, **settings: Any) -> None:
    short = {"tile_size": 204, "epochs": 1, "steps_per_epoch": 2, "val_interval": 1, "dataset_dir": str(folder)}
    run(folder, "train.json", **{**short, **settings})


def cause_of(call: Callable[[], None]) -> str:
    """Return what the command shows of an error: one line and nothing else, or one for each file that failed."""
    with pytest.raises((RuntimeError, ValueError, OSError)) as error:
        call()
    cause = first_cause(error.value)
    assert says_all(cause), repr(cause)
    assert isinstance(cause, FailedFilesError) or "\n" not in str(cause)
    return str(cause)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle with weights, and a folder with two good images, `a.png` and `z ä 细胞.png`."""
    torch.manual_seed(0)
    (tmp_path / "models").mkdir()
    torch.save(
        ValidUNet(out_channels=3, features=FEATURES, norm="batch").state_dict(), tmp_path / "models" / "model.pt"
    )
    (tmp_path / "in").mkdir()
    for name in ("a.png", "z ä 细胞.png"):
        Image.fromarray(CELLS).save(tmp_path / "in" / name)
    return tmp_path


def cut(path: Path) -> None:
    Image.fromarray(CELLS).save(path)
    path.write_bytes(path.read_bytes()[:200])


BAD_FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut.png": (cut, r"\S+/cut\.png must be a readable image file, got OSError: .*"),
    "empty.tif": (Path.touch, r"\S+/empty\.tif must be a readable image file, got TiffFileError: .*"),
    "link.png": (lambda path: path.symlink_to(path), r"image file must exist, got \S+/link\.png \(a link that .*"),
    "nan.tif": (
        lambda path: tifffile.imwrite(path, np.full((5, 6), np.nan)),
        r"\S+/nan\.tif must hold finite numbers.*",
    ),
    "outlier.tif": (
        lambda path: tifffile.imwrite(path, np.pad([[1e30]], 20)),
        r"\S+/outlier\.tif must hold no values far outside .*",
    ),
    "huge.tif": (
        lambda path: tifffile.imwrite(path, np.full((5, 6), 1e300)),
        r"\S+/huge\.tif must hold numbers of at .*",
    ),
    "inf.tif": (
        lambda path: tifffile.imwrite(path, np.full((5, 6), np.inf, np.float32)),
        r"\S+/inf\.tif must hold finite numbers, got NaN or infinity in shape \(5, 6\)\.",
    ),
    "zero.tif": (lambda path: tifffile.imwrite(path, np.zeros((0, 6), "u1")), r"\S+/zero\.tif must hold .*\(0, 6\)\."),
    "four.nii": (
        lambda path: nibabel.save(nibabel.Nifti1Image(np.zeros((5, 6, 2, 3), np.uint8), np.eye(4)), path),
        r"\S+/four\.nii must have 2 spatial axes, got axes XYZT of shape \(5, 6, 2, 3\)\.",
    ),
    "line.nii": (
        lambda path: nibabel.save(nibabel.Nifti1Image(np.zeros(6, np.uint8), np.eye(4)), path),
        r"\S+/line\.nii must have 2 spatial axes, got axes X of shape \(6,\)\.",
    ),
    "twin.png": (
        lambda path: Image.fromarray(CELLS).save(path),
        r"\S+/twin\.png must not share the name of a result with another image, got twin\.tif beside it\.",
    ),
    "twin.tif": (
        lambda path: tifffile.imwrite(path, CELLS),
        r"\S+/twin\.tif must not share the name of a result with another image, got twin\.png beside it\.",
    ),
    "axes.nii": (
        lambda path: path.write_bytes((path.parent / "a.png").read_bytes()),
        r"\S+/axes\.nii must be a readable image file, got ImageFileError: .*",
    ),
    "channels.tif": (
        lambda path: tifffile.imwrite(path, np.zeros((5, 6, 5), "u1"), photometric="rgb"),
        r"\S+/channels\.tif must be grey or RGB, got .*",
    ),
}


def test_inference_goes_on_past_bad_files_and_lists_them(folder: Path) -> None:
    for name, (write, _) in BAD_FILES.items():
        write(folder / "in" / name)
    lines = cause_of(lambda: infer(folder)).splitlines()
    assert lines[0] == f"{len(BAD_FILES)} files failed, the others are done:"
    for name, line in zip(sorted(BAD_FILES), lines[1:], strict=True):
        assert re.fullmatch(BAD_FILES[name][1], line), line
    written = sorted(path.name for path in (folder / "out").iterdir())
    assert written == [f"{n}{e}" for n in ("a", "z ä 细胞") for e in (".png", "_cells.csv", "_overlay.png")]


def test_one_pixel_and_constant_images_are_images(folder: Path) -> None:
    tifffile.imwrite(folder / "in" / "pixel.tif", np.full((1, 1), 7, np.uint8))
    tifffile.imwrite(folder / "in" / "constant.tif", np.full((20, 30), 7, np.uint16))
    infer(folder)
    for name, shape in (("pixel", (1, 1)), ("constant", (20, 30))):
        np.testing.assert_array_equal(tifffile.imread(folder / "out" / f"{name}.tif"), np.zeros(shape))


@pytest.mark.parametrize("full_after", [0, 1, 2])
def test_a_full_disk_leaves_nothing_partial(folder: Path, monkeypatch: pytest.MonkeyPatch, full_after: int) -> None:
    """The disk is full while the label image, the overlay, and the next image are written."""
    save, saved = Image.Image.save, []

    def save_on_a_small_disk(image: Image.Image, path: Path, **options: Any) -> None:
        if len(saved) >= full_after:
            Path(path).write_bytes(b"\x89PNG")
            raise OSError(errno.ENOSPC, "No space left on device")
        saved.append(path)
        save(image, path, **options)

    monkeypatch.setattr(Image.Image, "save", save_on_a_small_disk)
    lines = cause_of(lambda: infer(folder)).splitlines()
    full = "must be writable, got OSError: [Errno 28] No space left on device"
    expected = [("a.png", ["a.png", "a_overlay.png"][full_after])] if full_after < 2 else []
    expected.append(("z ä 细胞.png", "z ä 细胞.png"))
    assert lines[1:] == [f"{folder}/in/{image}: OSError: {folder}/out/{result} {full}" for image, result in expected]
    monkeypatch.undo()
    assert not list((folder / "out").glob(".part-*"))
    for path in (folder / "out").glob("*.png"):
        Image.open(path).load()


@pytest.mark.parametrize("bad_page", [0, 1, 2, 3])
def test_a_bad_page_keeps_its_stack_from_appearing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, bad_page: int
) -> None:
    tifffile.imwrite(folder / "in" / "stack.tif", np.stack([CELLS] * 4), photometric="minisblack")
    read = tifffile.TiffFile.asarray

    def read_but_one(tif: tifffile.TiffFile, key: int, series: int) -> np.ndarray:
        if key == bad_page:
            raise RuntimeError("corrupt")
        return read(tif, key=key, series=series)

    monkeypatch.setattr(tifffile.TiffFile, "asarray", read_but_one)
    lines = cause_of(lambda: infer(folder, rois=True)).splitlines()
    assert lines[1:] == [f"{folder}/in/stack.tif must be a readable image file, got RuntimeError: corrupt"]
    left = {path.name for path in (folder / "out").iterdir()}
    assert left == {f"{n}{e}" for n in ("a", "z ä 细胞") for e in (".png", "_cells.csv", "_overlay.png", "_rois.zip")}


def test_a_run_with_a_bad_file_ends_with_its_line_and_code_1(folder: Path) -> None:
    cut(folder / "in" / "m.png")
    args = ["--config_file", CONFIGS / "inference.json", "--bundle_root", folder, "--input", folder / "in"]
    args += ["--output_dir", folder / "out", "--network_def#features", str(FEATURES).replace(" ", "")]
    result = run_bundle(folder, "run", *args)
    assert result.returncode == 1
    *_, title, line = result.stderr.strip().splitlines()
    assert title == "FailedFilesError: 1 file failed, the others are done:"
    assert line.startswith(f"{folder}/in/m.png must be a readable image file, got ")
    assert "Traceback" not in result.stderr
    assert "2 images segmented" in result.stdout
    assert len(list((folder / "out").iterdir())) == 6


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (["--input", "missing.png"], r"FileNotFoundError: path must be an existing image or folder of images, got .*"),
        (["--roi_sise", "500"], r"ValueError: unknown setting '--roi_sise': did you mean '--roi_size'\?"),
        (["--network_def#out_channels", "2"], "ValueError: checkpoint must .*: add --network_def#out_channels 3"),
        (["--network_def#dropout", "2"], r"ValueError: dropout must be between 0 and 1, got 2\."),
        (["--device", "gpu"], r"ValueError: --device must be a device that torch finds here, .*, got 'gpu'\."),
    ],
)
def test_a_mistake_is_one_line(folder: Path, settings: list[str], line: str) -> None:
    args = ["--config_file", CONFIGS / "inference.json", "--bundle_root", folder, "--input", folder / "in"]
    args += ["--output_dir", folder / "out", "--network_def#features", str(FEATURES).replace(" ", ""), *settings]
    result = run_bundle(folder, "run", *args)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert re.fullmatch(line, result.stderr.strip().splitlines()[-1])


def test_what_nobody_expected_keeps_its_traceback(folder: Path) -> None:
    args = ["--config_file", CONFIGS / "inference.json", "--bundle_root", folder, "--device", "$1 / 0"]
    result = run_bundle(folder, "run", *args, "--input", folder / "in", "--output_dir", folder / "out")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert result.stderr.strip().endswith("ZeroDivisionError: division by zero")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"roi_size": 500}, r"input size must be one that the poolings fit, such as 492 or 508, got 500\."),
        (
            {"network_def#features": [4, 8, 16, 32, 64]},
            r"checkpoint must .*: add --network_def#features '\[2,4,8,16,32\]'",
        ),
        ({"network_def#out_channels": 2}, "checkpoint must .*: add --network_def#out_channels 3"),
        ({"in_channels": 3}, "checkpoint must .*: add --in_channels 1"),
        ({"cell_diameter": 30}, r"cell_diameter must be None for a network that knows none, got 30\."),
        ({"output_dir": "{folder}/in"}, r"output_dir must be another folder than the images', got \S+\."),
        ({"output_dir": "{folder}/in/a.png"}, "output_dir must be a folder to write to, got FileExistsError: .*"),
        ({"input": "{folder}/models/model.pt"}, r"file name must end in one of .*, got 'model\.pt'\."),
    ],
)
def test_mistaken_settings_stop_before_the_first_image(folder: Path, settings: dict, message: str) -> None:
    settings = {k: v.format(folder=folder) if isinstance(v, str) else v for k, v in settings.items()}
    assert re.fullmatch(message, cause_of(lambda: infer(folder, **settings)))
    assert not list((folder / "out").glob("*"))


def pairs(folder: Path, *labels: np.ndarray) -> Path:
    """Write a data set of one noisy image for each label image."""
    random = np.random.default_rng(0)
    for i, label in enumerate(labels):
        for name, array in (("images", random.integers(0, 99, label.shape).astype(np.uint8)), ("labels", label)):
            (folder / name).mkdir(exist_ok=True)
            tifffile.imwrite(folder / name / f"{i}.tif", array)
    return folder


CELL = np.pad(np.full((9, 9), 3, np.uint16), 15)
BAD_IMAGES: dict[str, tuple[np.ndarray, str]] = {
    "NaN": (np.where(CELL > 0, np.nan, 1), "must hold finite numbers, got NaN or infinity"),
    "infinity": (np.where(CELL > 0, np.inf, 1).astype(np.float32), "must hold finite numbers, got NaN or infinity"),
    "huge": (CELL * 1e300, "must hold numbers of at most"),
    "outlier": (np.pad([[1e30]], 19), "must hold no values far outside of the others"),
    "no pixel": (CELL[:0], "must hold "),
    "complex": (CELL.astype(np.complex64), "must hold real numbers, got complex64"),
}


@pytest.mark.parametrize("bad", [0, 1], ids=["of training", "of validation"])
@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_training_stops_at_a_bad_image_before_the_first_step(tmp_path: Path, kind: str, bad: int) -> None:
    pixels, rule = BAD_IMAGES[kind]
    path = pairs(tmp_path, CELL, CELL) / "images" / f"{bad}.tif"
    tifffile.imwrite(path, pixels)
    assert cause_of(lambda: train(tmp_path, validation=0.5)).startswith(f"{path} {rule}")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("axes", ["volume", "two channels"])
def test_training_stops_at_an_image_of_other_axes(tmp_path: Path, axes: str) -> None:
    pairs(tmp_path, CELL, CELL)
    for name, pixels in (("images", np.ones((39, 39, 5), np.uint8)), ("labels", np.ones((39, 39, 5), np.uint8))):
        (tmp_path / name / "0.tif").unlink()
        if axes == "volume":
            nibabel.save(nibabel.Nifti1Image(pixels, np.eye(4)), tmp_path / name / "0.nii")
        else:
            tifffile.imwrite(tmp_path / name / "0.tif", pixels, photometric="rgb")
    rule = r"0\.nii must have 2 spatial axes, got .*" if axes == "volume" else r"0\.tif must be grey or RGB, got .*"
    assert re.fullmatch(rf"{tmp_path}/labels/{rule}", cause_of(lambda: train(tmp_path, validation=["1"])))
    assert not (tmp_path / "models").exists()


def test_training_copes_with_constant_images(tmp_path: Path) -> None:
    pairs(tmp_path, CELL, CELL)
    for i in range(2):
        tifffile.imwrite(tmp_path / "images" / f"{i}.tif", np.full(CELL.shape, 7, np.uint8))
    train(tmp_path, validation=0.5)
    weights = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert all(torch.isfinite(weight).all() for weight in weights.values())


@pytest.mark.parametrize("bad", [0, 1], ids=["of training", "of validation"])
@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda root, i: cut(root / f"images/{i}.png"), "{i}\\.png must be a readable image file, got "),
        (lambda root, i: tifffile.imwrite(root / f"labels/{i}.tif", CELL[1:]), "labels/{i}.tif must have the size of "),
        (
            lambda root, i: tifffile.imwrite(root / f"labels/{i}.tif", CELL / 2),
            "labels/{i}.tif must hold whole numbers",
        ),
        (
            lambda root, i: tifffile.imwrite(root / f"labels/{i}.tif", -CELL.astype(int)),
            "{i}.tif must hold ids of at le",
        ),
        (
            lambda root, i: tifffile.imwrite(root / f"labels/{i}.tif", CELL * np.nan),
            "labels/{i}.tif must hold finite numbers, got NaN",
        ),
        (
            lambda root, i: tifffile.imwrite(root / f"labels/{i}.tif", CELL * 1e300),
            "labels/{i}.tif must hold numbers of at most",
        ),
        (
            lambda root, i: tifffile.imwrite(root / f"labels/{i}.tif", CELL[:0]),
            r"labels/{i}.tif must hold .* got .*shape \(0, 39\)",
        ),
        (
            lambda root, i: os.truncate(root / f"labels/{i}.tif", 900),
            "labels/{i}.tif must be a readable image file, got ",
        ),
        (
            lambda root, i: os.truncate(root / f"labels/{i}.tif", 0),
            "labels/{i}.tif must be a readable image file, got ",
        ),
        (lambda root, i: (root / f"labels/{i}.tif").unlink(), "every image must have a label .* got none for {i}.tif"),
        (lambda root, i: (root / f"images/{i}.tif").unlink(), "every label must have an image .* got none for {i}.tif"),
    ],
)
def test_training_stops_at_a_bad_file_before_the_first_step(
    tmp_path: Path, write: Callable[[Path, int], Any], message: str, bad: int
) -> None:
    pairs(tmp_path, CELL, CELL)
    if "png" in message:
        (tmp_path / f"images/{bad}.tif").unlink()
    write(tmp_path, bad)
    line = cause_of(lambda: train(tmp_path, validation=0.5))
    assert re.search(message.format(i=bad), line), line
    assert "\n" not in line
    assert not (tmp_path / "models").exists()


def test_training_copes_with_labels_of_few_and_tiny_cells(tmp_path: Path) -> None:
    nothing, pixels = np.zeros_like(CELL), np.zeros_like(CELL)
    pixels[::5, ::5] = np.arange(1, 65).reshape(8, 8)
    train(pairs(tmp_path, nothing, CELL, pixels, pixels), validation=["0", "1", "2"])
    weights = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert all(torch.isfinite(weight).all() for weight in weights.values())


@pytest.mark.parametrize(
    ("configs", "settings", "bad", "lines"),
    [
        (["train"], [], "labels/0.tif", [r"RefusedFileError: \S+/labels/0\.tif must be a readable image file, got .*"]),
        (
            ["train", "evaluate"],
            ["--validation", "1.0"],
            "images/0.tif",
            ["FailedFilesError: 1 file failed, the others are done:", r"\S+/images/0\.tif must be a readable image .*"],
        ),
        (
            ["train"],
            ["--learning_rate", "1e30"],
            None,
            [r"ValueError: loss must stay finite, got \w+ at step \d: .*, try a lower --learning_rate\."],
        ),
    ],
    ids=["training", "evaluation", "divergence"],
)
def test_training_and_evaluation_end_with_their_line_and_code_1(
    folder: Path, configs: list[str], settings: list[str], bad: str | None, lines: list[str]
) -> None:
    pairs(folder, CELL, CELL, CELL)
    if bad is not None:
        os.truncate(folder / bad, 100)
    files = ",".join(f"'{CONFIGS}/{name}.json'" for name in configs)
    places = ["--config_file", f"[{files}]", "--bundle_root", folder, "--dataset_dir", folder]
    if configs == ["train"]:
        places += ["--ckpt_dir", folder / "new"]
    result = run_bundle(folder, "run", *places, *TINY, "--epochs", 3, *settings)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    for said, line in zip(result.stderr.strip().splitlines()[-len(lines) :], lines, strict=True):
        assert re.fullmatch(line, said)
    assert not list(folder.rglob("new/*.pt"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"network_def#features": [4, 8, 16, 32, 64]},
            r"got the weights of another .*: add --network_def#features '\[2,",
        ),
        ({"network_def#out_channels": 2}, "got the weights of another one, .*: add --network_def#out_channels 3"),
        ({"network_def#norm": None}, "got the weights of another one, .*: add --network_def#norm batch"),
        ({"epochs": 1}, r"epochs must exceed the 1 already trained to resume, got 1\."),
        (
            {"optimizer": {"_target_": "torch.optim.SGD", "params": "$@network.parameters()", "lr": 0.1}},
            "training to resume must have the same kind of optimiser, got another one in .*: .*momentum",
        ),
    ],
)
def test_a_training_that_another_one_cannot_go_on_with_stays(tmp_path: Path, settings: dict, message: str) -> None:
    pairs(tmp_path, CELL, CELL)
    train(tmp_path, validation=0.5)
    files = [tmp_path / "models" / "model.pt", tmp_path / "output" / "last.pt"]
    before = [path.read_bytes() for path in files]
    line = cause_of(lambda: train(tmp_path, validation=0.5, resume=True, **{"epochs": 2, **settings}))
    assert re.search(message, line), line
    assert "\n" not in line
    assert [path.read_bytes() for path in files] == before


@pytest.mark.parametrize("seed", ["abc", "1.5", "[1]"])
def test_a_seed_that_is_none_stops_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: str) -> None:
    """Seeding comes before the command line is checked, for the package can be imported only then."""
    pairs(tmp_path, CELL, CELL)
    value = fire.parser.DefaultParseValue(seed)
    monkeypatch.setattr("sys.argv", ["run", "training", "--config_file", str(CONFIGS / "train.json"), "--seed", seed])
    assert cause_of(lambda: train(tmp_path, seed=value)) == f"--seed must be a whole number, got {value!r}."
    monkeypatch.setattr("sys.argv", ["from Python"])
    with pytest.raises(RuntimeError) as error:
        train(tmp_path, seed=value)
    assert isinstance(first_cause(error.value), TypeError)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("place", ["ckpt_dir", "output_dir"])
def test_training_stops_where_it_cannot_write(tmp_path: Path, place: str) -> None:
    pairs(tmp_path, CELL, CELL)
    (tmp_path / "taken").touch()
    line = cause_of(lambda: train(tmp_path, **{place: str(tmp_path / "taken")}))
    assert re.search(r"\[Errno \d+\] .*taken", line)
    assert not list(tmp_path.rglob("*.pt"))
