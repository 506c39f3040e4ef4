import logging

import numpy as np
import pytest
import tifffile
from monai.bundle import ConfigParser
from PIL import Image
from unet_monai.data import CellImageReader, LabelReader, find_images, load_split
from unet_monai.data.layouts import labelled_files
from unet_monai.transforms import LoadCellImaged

from tests.drawings import draw

READ_IMAGE = LoadCellImaged("image", CellImageReader())
READ_LABEL = LoadCellImaged("label", LabelReader(), dtype="int32")


def write(path, array):
    """Write a drawing or an array; stacks as TIFF."""
    array = np.asarray(draw(array) if isinstance(array, str) else array, dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array, photometric="minisblack")
    else:
        Image.fromarray(array).save(path)


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def relative(files, root):
    return [(image.relative_to(root).as_posix(), label.relative_to(root).as_posix()) for image, label in files]


def loaded(pair):
    """Return image and label in rows and columns, through the transforms of the bundle."""
    item = READ_LABEL(READ_IMAGE(pair))
    return tuple(item[key][0].numpy().T.tolist() for key in ("image", "label"))


def pages(pairs):
    return [int(pair["image"].rpartition("#")[2]) for pair in pairs]


@pytest.fixture
def em_challenge(tmp_path):
    """The ISBI 2012 challenge: page i is grey i everywhere; label 0 is a membrane, 255 the inside of a cell."""
    volume = np.arange(30)[:, None, None] * np.ones((1, 2, 4))
    write(tmp_path / "train-volume.tif", volume)
    write(tmp_path / "train-labels.tif", np.tile([[[255, 0, 255, 255], [255, 0, 255, 0]]], (30, 1, 1)))
    write(tmp_path / "test-volume.tif", volume)
    return tmp_path


def test_em_challenge_pages_are_images(em_challenge, caplog):
    with caplog.at_level(logging.INFO):
        split = load_split(em_challenge)
    assert "train-volume.tif with train-labels.tif; 1 other images are left out" in caplog.text
    assert "24 training, 6 validation images (validation=0.2: train-volume#24..train-volume#29)" in caplog.text
    assert pages(split["training"]) == list(range(24))
    assert pages(split["validation"]) == list(range(24, 30))
    image, label = loaded(split["validation"][3])
    assert image == [[27] * 4] * 2
    assert label == [[1, 0, 2, 2], [1, 0, 2, 0]]  # 255 only says "cell": the components are the cells
    assert split["validation"][3]["label"] == str(em_challenge / "train-labels.tif#27")


@pytest.mark.parametrize(
    ("validation", "expected"),
    [
        ("train-volume.tif#2[4-9]", range(24, 30)),
        ("train-volume#2[4-9]", range(24, 30)),
        ("*#[0-4]", range(5)),
        (["train-volume.tif#0", "train-volume#29"], [0, 29]),
        ("train-volume::2[4-9]", range(24, 30)),
        (["train-volume.tif::0"], [0]),
    ],
)
def test_em_challenge_validation_names_pages(em_challenge, validation, expected):
    split = load_split(em_challenge, validation=validation)
    assert pages(split["validation"]) == list(expected)
    assert sorted(pages(split["training"] + split["validation"])) == list(range(30))


@pytest.mark.parametrize("validation", ["train-volume.tif#2[4-9]", [f"train-volume#{i}" for i in range(24, 30)]])
def test_em_challenge_validation_in_a_config(em_challenge, validation):
    split = {"_target_": "unet_monai.data.load_split", "dataset_dir": str(em_challenge), "validation": "@validation"}
    parser = ConfigParser({"validation": validation, "split": split})
    parser.parse()
    assert "::2" in str(parser.config["validation"]), "test invalid"  # MONAI has put it in place of #
    assert pages(parser.get_parsed_content("split")["validation"]) == list(range(24, 30))


def test_em_challenge_in_3d_is_one_volume(em_challenge):
    (pair,) = load_split(em_challenge, spatial_dims=3)["training"]
    assert pair == {
        key: str(em_challenge / f"train-{name}.tif") for key, name in (("image", "volume"), ("label", "labels"))
    }


def test_em_challenge_without_labels_is_no_such_layout(em_challenge):
    (em_challenge / "train-labels.tif").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"train-volume.tif with train-.*, got test-volume.tif, train-volume.tif in"
    ):
        load_split(em_challenge)


def test_em_challenge_needs_a_label_for_every_page(em_challenge):
    write(em_challenge / "train-labels.tif", np.zeros((29, 2, 4)))
    with pytest.raises(ValueError, match=r"train-labels.tif must have as many pages as its image \(30\), got 29"):
        load_split(em_challenge)


def test_cell_tracking_challenge_with_two_sequences(tmp_path):
    for sequence in (1, 2):
        for t in range(2):
            write(tmp_path / f"0{sequence}/t00{t}.tif", [[10 * sequence + t, 0]])
            write(tmp_path / f"0{sequence}_GT/SEG/man_seg00{t}.tif", [[3, 10 * sequence + t]])
            write(tmp_path / f"0{sequence}_GT/TRA/man_track00{t}.tif", [[0, 0]])
        touch(tmp_path, f"0{sequence}_GT/TRA/man_track.txt")
    split = load_split(tmp_path, validation="02/*")
    assert [loaded(pair) for pair in split["training"]] == [([[10, 0]], [[3, 10]]), ([[11, 0]], [[3, 11]])]
    assert [loaded(pair) for pair in split["validation"]] == [([[20, 0]], [[3, 20]]), ([[21, 0]], [[3, 21]])]
    (only,) = load_split(tmp_path, validation=["02/t000"])["validation"]
    assert only["image"] == str(tmp_path / "02/t000.tif")


@pytest.fixture
def stage1_train(tmp_path):
    """BBBC038: RGBA images in folders of their own, each nucleus in a file of its own."""
    for name, grey in (("b2", 20), ("b10", 100)):
        rgba = np.full((2, 3, 4), grey)
        rgba[..., 3] = 255
        write(tmp_path / f"stage1_train/{name}/images/{name}.png", rgba)
        write(tmp_path / f"stage1_train/{name}/masks/00ff.png", np.array([[255, 0, 255], [0, 0, 0]]))
        write(tmp_path / f"stage1_train/{name}/masks/0a.png", np.array([[0, 0, 255], [0, 0, 255]]))
    return tmp_path / "stage1_train"


def test_bbbc038_grey_image_and_label_of_rgba_and_masks(stage1_train):
    assert relative(labelled_files(stage1_train), stage1_train) == [
        ("b2/images/b2.png", "b2/masks"),
        ("b10/images/b10.png", "b10/masks"),
    ]
    split = load_split(stage1_train)
    image, label = loaded(split["validation"][0])
    np.testing.assert_allclose(image, np.full((2, 3), 100), rtol=1e-6)
    assert label == [[1, 0, 2], [0, 0, 2]]
    by_name = load_split(stage1_train, validation=["b2"])["validation"]
    assert by_name == split["training"]


def test_bbbc038_refused_folders(stage1_train):
    touch(stage1_train, "c/images/c.png")
    with pytest.raises(FileNotFoundError, match=r"stage1_train must hold both images and masks, got one only in c"):
        load_split(stage1_train)
    touch(stage1_train, "c/images/d.png", "c/masks/1.png")
    with pytest.raises(
        ValueError, match=r"images must hold one image .*, got c.png, d.png; .*, dataset_dir must be .*stage1_train.c"
    ):
        load_split(stage1_train)
    for name in ("c", "d"):
        (stage1_train / f"c/images/{name}.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"c.images must hold images .*, got none"):
        load_split(stage1_train)


def test_masks_are_labels_in_two_folders(tmp_path, caplog):
    for part, name, value in (("train", "a", 1), ("train", "b", 2), ("test", "c", 3)):
        write(tmp_path / f"{part}/images/{name}.tif", [[value, 0]])
        write(tmp_path / f"{part}/masks/{name}.tif", [[value, 9]])
    split = load_split(tmp_path / "train", validation=str(tmp_path / "test"))
    assert [loaded(pair) for pair in split["training"]] == [([[1, 0]], [[1, 9]]), ([[2, 0]], [[2, 9]])]
    assert [loaded(pair) for pair in split["validation"]] == [([[3, 0]], [[3, 9]])]
    touch(tmp_path, "test/labels/c.png")
    with caplog.at_level(logging.INFO):
        assert relative(labelled_files(tmp_path / "test"), tmp_path) == [("test/images/c.tif", "test/labels/c.png")]
    assert "labels/ is read, not masks/" in caplog.text


def test_two_folders_of_a_release_are_no_dataset_together(tmp_path):
    touch(
        tmp_path,
        *[f"{part}/{kind}/{i}.tif" for part in ("train", "test") for kind in ("images", "masks") for i in "ab"],
    )
    with pytest.raises(ValueError, match=r"got a.tif, b.tif; .* file for each image, dataset_dir must be .*test\."):
        labelled_files(tmp_path)


@pytest.fixture
def usiigaci(tmp_path):
    """Usiigaci's folders, with what else lies in them."""
    for part, sets in (("train", (1, 2, 10)), ("val", (46,))):
        for i in sets:
            write(tmp_path / f"Mask R-CNN/{part}/set{i}/raw.tif", [[i, 0]])
            write(tmp_path / f"Mask R-CNN/{part}/set{i}/instances_ids.png", np.array([[2, i]]))
            more = ("RoiSet.zip", "feature_0.png", "labeled.png", "phase.png", "phase_normalized.png")
            touch(tmp_path, *[f"Mask R-CNN/{part}/set{i}/{name}" for name in more])
    return tmp_path / "Mask R-CNN"


def test_usiigaci(usiigaci, caplog):
    touch(usiigaci / "train", ".git/raw.tif", "notes/readme.txt", "readme.txt")
    with caplog.at_level(logging.INFO):
        split = load_split(usiigaci / "train", validation=str(usiigaci / "val"))
    assert [loaded(pair) for pair in split["training"]] == [
        ([[1, 0]], [[2, 1]]),
        ([[2, 0]], [[1, 1]]),  # one value is one foreground, here in one piece
        ([[10, 0]], [[2, 10]]),
    ]
    assert [loaded(pair) for pair in split["validation"]] == [([[46, 0]], [[2, 46]])]
    assert ": set46/raw..set46/raw)" in caplog.text
    for validation in ("set1?/*", "set10/raw.tif", ["set10/raw"]):
        (chosen,) = load_split(usiigaci / "train", validation=validation)["validation"]
        assert chosen["label"] == str(usiigaci / "train/set10/instances_ids.png")


@pytest.mark.parametrize("name", ["raw.tif", "instances_ids.png"])
def test_usiigaci_needs_both_files(usiigaci, name):
    (usiigaci / "train/set2" / name).unlink()
    with pytest.raises(
        FileNotFoundError, match=r"must hold both raw.tif and instances_ids.png, got one only in set2\."
    ):
        load_split(usiigaci / "train")


def test_a_folder_each_counts_only_where_no_image_lies_beside(usiigaci):
    touch(usiigaci / "train", "a.png", "a_masks.png")
    assert relative(labelled_files(usiigaci / "train"), usiigaci) == [("train/a.png", "train/a_masks.png")]
    assert len(find_images(usiigaci / "train")) == 1


def test_a_folder_of_no_layout_is_told_with_what_it_holds(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"dataset_dir must hold images/ with labels/ .*, got nothing in"):
        labelled_files(tmp_path)
    touch(tmp_path, *[f"set{i}/phase.png" for i in (1, 2, 10)], "set4/.raw.tif", "readme.txt", "set5/a", ".hidden")
    with pytest.raises(FileNotFoundError, match=r"got readme.txt, set1/, set2/, set4/, set5/ and 1 more in"):
        labelled_files(tmp_path)
