import logging
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.filters import gaussian, threshold_local
from skimage.measure import label as label_components
from unet_monai.data import demo
from unet_monai.data.demo import demo_dataset, draw_cells


def touching_cells(labels: np.ndarray) -> set[int]:
    """The cells that have a 4-neighbour pixel in another cell."""
    touching: set[int] = set()
    for one, other in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
        border = (one != other) & (one > 0) & (other > 0)
        touching |= set(one[border].tolist()) | set(other[border].tolist())
    return touching


def seg(labels: np.ndarray, proposal: np.ndarray) -> float:
    """The Cell Tracking Challenge's SEG, straight from its definition."""
    scores = []
    for cell in range(1, labels.max() + 1):
        reference = labels == cell
        score = 0.0
        for candidate in np.unique(proposal[reference & (proposal > 0)]):
            segment = proposal == candidate
            overlap = (reference & segment).sum()
            if overlap > 0.5 * reference.sum():
                score = overlap / (reference | segment).sum()
        scores.append(score)
    return float(np.mean(scores))


def contents(folder: str) -> dict[str, tuple[int, bytes]]:
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in Path(folder).rglob("*.*")}


@pytest.mark.parametrize("size", [(256, 320), (96, 65), (48, 200)])
def test_picture_and_labels_have_the_size_and_dtype(size):
    image, labels = draw_cells(3, size)
    assert image.shape == labels.shape == size
    assert (image.dtype, labels.dtype) == (np.uint8, np.uint16)
    assert 0 < image.min() < image.max() < 255, "clipped: detail is lost"


def test_the_same_seed_draws_the_same_bytes_whatever_the_global_state():
    first = draw_cells(11)
    np.random.seed(0)
    second = draw_cells(11)
    assert [array.tobytes() for array in first] == [array.tobytes() for array in second]
    assert not np.array_equal(first[1], draw_cells(12)[1])


@pytest.mark.parametrize("seed", range(4))
def test_cells_are_whole_counted_from_one_and_of_cell_size(seed):
    _, labels = draw_cells(seed)
    number = labels.max()
    assert np.array_equal(np.unique(labels), np.arange(number + 1))
    assert label_components(labels, connectivity=1, background=0).max() == number
    diameters = 2 * np.sqrt(np.bincount(labels.ravel())[1:] / np.pi)
    assert diameters.min() >= 2 * np.sqrt(30 / np.pi)
    assert 18 <= np.median(diameters) <= 40
    assert diameters.max() < 48
    rim = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    assert rim.any(), "no cell is cut by the edge of the picture"


def test_fragments_and_tiny_cells_are_removed():
    labels = np.zeros((12, 20), np.uint16)
    labels[1:8, 1:8] = 5  # 49 pixels, kept as 1
    labels[8, 8] = 5  # touches by a corner only: not 4-connected
    labels[1:6, 10:15] = 2  # 25 pixels: too small
    labels[7:11, 10:19] = 9  # 36 pixels, kept as 2
    kept = demo._keep_whole_cells(labels)
    expected = np.zeros_like(labels)
    expected[1:8, 1:8], expected[7:11, 10:19] = 1, 2
    np.testing.assert_array_equal(kept, expected)


def test_many_cells_touch_and_no_threshold_separates_them():
    pictures = [draw_cells(seed) for seed in range(4)]
    share = sum(len(touching_cells(labels)) for _, labels in pictures) / sum(labels.max() for _, labels in pictures)
    assert 0.4 <= share <= 0.95
    # even the true foreground merges them, and so does a threshold that follows the uneven light
    assert np.mean([seg(labels, label_components(labels > 0, connectivity=1)) for _, labels in pictures]) < 0.6
    for sign in (1, -1):
        proposals = [
            sign * (gaussian(image, 1) - threshold_local(gaussian(image, 1), 101)) > 0 for image, _ in pictures
        ]
        scores = [
            seg(labels, label_components(p, connectivity=1)) for p, (_, labels) in zip(proposals, pictures, strict=True)
        ]
        assert np.mean(scores) < 0.6


def test_the_seam_between_touching_cells_shows():
    contrasts = []
    for seed in range(4):
        image, labels = draw_cells(seed)
        one, other = labels[:, 1:], labels[:, :-1]
        seam = np.zeros(labels.shape, bool)
        seam[:, 1:] = (one != other) & (one > 0) & (other > 0)
        beside = ndimage.binary_dilation(seam, iterations=6) & ~ndimage.binary_dilation(seam, iterations=3)
        contrasts.append(image[beside & (labels > 0)].mean() - image[seam].mean())
    assert min(contrasts) > 5


@pytest.mark.parametrize("size", [(47, 100), (100, 47)])
def test_a_picture_too_small_for_cells_is_refused(size):
    with pytest.raises(ValueError, match=r"size must be at least 48 pixels along each axis, got \("):
        draw_cells(0, size)


def test_the_set_holds_what_draw_cells_draws(tmp_path, caplog):
    folder = str(tmp_path / "new" / "demo")
    with caplog.at_level(logging.INFO, logger="unet_monai"):
        assert demo_dataset(folder, num_images=2, seed=5) == folder
    assert len(caplog.records) == 1
    assert folder in caplog.text
    image, labels = draw_cells(6)
    np.testing.assert_array_equal(np.asarray(Image.open(f"{folder}/images/cells_01.png")), image)
    np.testing.assert_array_equal(np.asarray(Image.open(f"{folder}/labels/cells_01.png")), labels)
    assert os.listdir(tmp_path / "new") == ["demo"], "the temporary folder is still there"


def test_a_set_that_is_there_is_not_drawn_again(tmp_path):
    folder = demo_dataset(str(tmp_path / "demo"), num_images=1)
    before = contents(folder)
    assert demo_dataset(folder, num_images=1) == folder
    assert len(before) == 3
    assert contents(folder) == before


def test_a_killed_run_leaves_nothing_under_the_final_name(tmp_path, monkeypatch):
    folder = str(tmp_path / "demo")
    (tmp_path / ".demo-left-by-a-killed-run" / "demo" / "images").mkdir(parents=True)
    (tmp_path / "demo").mkdir()

    def fail_at_the_second(seed):
        if seed == 1:
            raise KeyboardInterrupt
        return draw_cells(seed, (48, 48))

    with monkeypatch.context() as patch:
        patch.setattr(demo, "draw_cells", fail_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            demo_dataset(folder, num_images=2, seed=0)
    assert os.listdir(folder) == []
    demo_dataset(folder, num_images=1)
    assert len(contents(folder)) == 3


@pytest.mark.parametrize("rival_num_images", [1, 2])
def test_of_two_runs_at_once_the_first_ones_set_stays(tmp_path, monkeypatch, rival_num_images):
    folder = str(tmp_path / "demo")
    write = demo._write_demo_set

    def write_while_a_rival_finishes(draft, num_images, seed):
        write(draft, num_images, seed)
        write(Path(folder), rival_num_images, seed)

    monkeypatch.setattr(demo, "_write_demo_set", write_while_a_rival_finishes)
    if rival_num_images == 1:
        assert demo_dataset(folder, num_images=1) == folder
    else:
        with pytest.raises(OSError, match="demo"):
            demo_dataset(folder, num_images=1)
    assert len(contents(folder)) == 2 * rival_num_images + 1
    assert os.listdir(tmp_path) == ["demo"]


def test_a_folder_that_is_not_this_demo_set_is_refused_and_untouched(tmp_path):
    refusal = r"folder must be missing, empty, or hold the whole demo set of num_images=\d, seed=2015, got .*"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "cells.tif").touch()
    with pytest.raises(FileExistsError, match=refusal + "mine"):
        demo_dataset(str(tmp_path / "mine"), num_images=1)
    with pytest.raises(FileExistsError, match=refusal + "tif"):
        demo_dataset(str(tmp_path / "mine" / "cells.tif"), num_images=1)
    assert os.listdir(tmp_path / "mine") == ["cells.tif"]

    folder = demo_dataset(str(tmp_path / "demo"), num_images=1)
    with pytest.raises(FileExistsError, match=refusal + "demo"):
        demo_dataset(folder, num_images=2)
    os.remove(f"{folder}/labels/cells_00.png")
    with pytest.raises(FileExistsError, match=refusal + "demo"):
        demo_dataset(folder, num_images=1)


def test_an_empty_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"num_images must be at least 1, got 0\."):
        demo_dataset(str(tmp_path / "demo"), num_images=0)
