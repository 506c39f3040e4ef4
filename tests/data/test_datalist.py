import logging
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from unet_monai.data.datalist import find_images, find_pairs, load_split, split_pairs


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".tif"):
            stack(root / name, 1)
        else:
            (root / name).touch()


def stack(path, pages):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.zeros((pages, 2, 3), dtype=np.uint8)
    tifffile.imwrite(path, rows if pages > 1 else rows[0], photometric="minisblack")


def drawing(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(path)


def short(pairs, root):
    return [tuple(Path(pair[key]).relative_to(root).as_posix() for key in ("image", "label")) for pair in pairs]


def frames(*names):
    return [{"image": f"/data/{name}.tif", "label": f"/labels/{name}.tif"} for name in names]


def names(split):
    return {part: [Path(pair["image"]).stem for pair in pairs] for part, pairs in split.items()}


def test_images_and_labels_pair_by_stem_in_natural_order(tmp_path):
    touch(tmp_path, "images/t10.png", "images/t9.JPG", "images/b.nii.gz", "images/notes.txt", "images/.part-x.png")
    touch(tmp_path, "labels/t10.tif", "labels/t9.png", "labels/b.nii.gz")
    assert short(find_pairs(tmp_path), tmp_path) == [
        ("images/b.nii.gz", "labels/b.nii.gz"),
        ("images/t9.JPG", "labels/t9.png"),
        ("images/t10.png", "labels/t10.tif"),
    ]


def test_relative_folders_give_absolute_addresses(tmp_path, monkeypatch):
    touch(tmp_path, "data/images/a.png", "data/labels/a.png")
    monkeypatch.chdir(tmp_path)
    assert Path(find_pairs("data")[0]["label"]).is_absolute()
    assert Path(find_images("data/images")[0]["image"]).is_absolute()


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        (
            ["images/a.png", "images/b.png", "labels/a.png"],
            FileNotFoundError,
            "a label .* got none for b.png in .*labels",
        ),
        (
            ["images/a.png", "labels/a.png", "labels/c.png"],
            FileNotFoundError,
            "an image .* got none for c.png in .*images",
        ),
        (["images/a.png", "images/a.tif", "labels/a.png"], ValueError, "one file for each image, got a.png and a.tif"),
        (["images/a.png", "labels/a.png", "labels/a.tif"], ValueError, "labels must hold one file .*a.png and a.tif"),
        (["images/a.png", "labels/a.txt"], FileNotFoundError, r"labels must hold labels of the images in .*, got none"),
        (["images/a.png", "labels/a_masks.png", "labels/a.png"], ValueError, "got a.png and a_masks.png"),
        (["images/a.png", "labels/a.png", "labels/b_seg.npy"], FileNotFoundError, "an image .* got none for b_seg.npy"),
        (["images/a.png", "labels/a.png", "labels/a_overlay.png"], FileNotFoundError, "got none for a_overlay.png"),
        (["a.png", "b.png"], FileNotFoundError, "as a.png with a_seg.npy.*, got a.png, b.png in"),
        (["a.png", "a_seg.npy", "b_seg.npy"], FileNotFoundError, "must have an image in .* got none for b_seg.npy"),
        (["a.png", "a_seg.npy", "b_cp_masks.png"], FileNotFoundError, "got none for b_cp_masks.png"),
        (["a.png", "a.tif", "a_seg.npy"], ValueError, "must hold one file for each image, got a.png and a.tif"),
        (["images/a.txt", "labels/a.png"], FileNotFoundError, r"images must hold images \(.*\.png.*\), got none"),
        (["images/a.png"], FileNotFoundError, "hold images/ with labels/ or masks/, .*, got images/ in"),
        (["01/t000.tif"], FileNotFoundError, "01/ with 01_GT/SEG/ or 01_ST/SEG/, .*, got 01/ in"),
        (["01/t000.tif", "01_GT/SEG/notes.txt"], FileNotFoundError, r"hold GT labels man_seg\*.tif, got none"),
        (
            ["01/t000.tif", "01_GT/SEG/man_seg001.tif"],
            FileNotFoundError,
            "a frame in .*01, got none for man_seg001.tif",
        ),
        (["01/t0.tif", "01_GT/SEG/man_seg_000_005.tif"], ValueError, "whole frames, .* slices .man_seg_000_005.tif"),
        (
            ["01/t0.tif", "01_GT/SEG/man_seg0.tif", "01_ST/SEG/man_seg0.tif"],
            ValueError,
            "label_source must be GT or ST where both are present, got None",
        ),
    ],
)
def test_refused_folders(tmp_path, files, error, message):
    touch(tmp_path, *files)
    with pytest.raises(error, match=message):
        find_pairs(tmp_path)


def test_only_some_of_many_missing_labels_are_named(tmp_path):
    touch(tmp_path, *[f"images/{i}.png" for i in range(9)], "labels/0.png")
    with pytest.raises(FileNotFoundError, match=r"got none for 1.png, 2.png, 3.png, 4.png, 5.png and 3 more in"):
        find_pairs(tmp_path)


def test_refused_arguments(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"dataset_dir must be an existing folder, got .*nowhere"):
        find_pairs(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="label_source must be GT, ST or None, got 'gold'"):
        find_pairs(tmp_path, label_source="gold")
    touch(tmp_path, "images/a.png", "labels/a.png")
    with pytest.raises(ValueError, match="label_source must be None outside the challenge's layout, got 'GT'"):
        find_pairs(tmp_path, label_source="GT")


def test_challenge_leaves_frames_without_label_out_and_counts_them(tmp_path, caplog):
    touch(tmp_path, "01/t000.tif", "01/t001.tif", "01/t010.tif", "02/t0000.tif", "01_GT/TRA/man_track000.tif")
    touch(tmp_path, "01_ST/SEG/man_seg010.tif", "01_ST/SEG/man_seg001.tif", "02_ST/SEG/man_seg0000.tif")
    with caplog.at_level(logging.INFO):
        pairs = find_pairs(tmp_path)
    assert short(pairs, tmp_path) == [
        ("01/t001.tif", "01_ST/SEG/man_seg001.tif"),
        ("01/t010.tif", "01_ST/SEG/man_seg010.tif"),
        ("02/t0000.tif", "02_ST/SEG/man_seg0000.tif"),
    ]
    assert "3 frames with ST labels, 1 frames without one are left out" in caplog.text


@pytest.mark.parametrize(("label_source", "count"), [("GT", 1), ("ST", 2)])
def test_challenge_never_mixes_label_sources(tmp_path, label_source, count):
    touch(tmp_path, "01/t000.tif", "01/t001.tif", "01_GT/SEG/man_seg001.tif")
    touch(tmp_path, "01_ST/SEG/man_seg000.tif", "01_ST/SEG/man_seg001.tif")
    pairs = find_pairs(tmp_path, label_source=label_source)
    assert len(pairs) == count
    assert all(f"01_{label_source}" in pair["label"] for pair in pairs)


def test_pages_of_a_stack_are_items(tmp_path):
    stack(tmp_path / "images/train.tif", 3)
    stack(tmp_path / "labels/train.tif", 3)
    assert short(find_pairs(tmp_path), tmp_path) == [
        (f"images/train.tif#{i}", f"labels/train.tif#{i}") for i in range(3)
    ]
    assert short(find_pairs(tmp_path, spatial_dims=3), tmp_path) == [("images/train.tif", "labels/train.tif")]
    assert names(split_pairs(find_pairs(tmp_path), ["train#0"]))["validation"] == ["train"]
    stack(tmp_path / "labels/train.tif", 2)
    with pytest.raises(ValueError, match=r"as many pages as its image \(3\), got 2"):
        find_pairs(tmp_path)


@pytest.mark.parametrize(
    ("count", "share", "size"),
    [
        (10, 0.2, 2),
        (115, 0.2, 23),
        (3, 0.01, 1),
        (2, 0.9, 1),
        (1, 0.2, 0),
        (4, 0, 0),
        (4, 1.0, 4),
        (4, 1, 4),
        (0, 0.2, 0),
    ],
)
def test_a_share_is_the_last_contiguous_one(count, share, size):
    pairs = frames(*[f"t{i}" for i in range(count)])
    split = split_pairs(pairs, share)
    assert len(split["validation"]) == max(size, 0)
    assert split["training"] + split["validation"] == pairs


def test_patterns_and_lists():
    pairs = [*frames("01/t001", "01/t011", "02/t001"), {"image": "/data/s.tif#3", "label": "/labels/s.tif#3"}]
    t001, t011, other, page = pairs
    for validation, expected in [
        ("*11", [t011]),
        ("t00[0-9]", [t001, other]),
        ("02/*", [other]),
        ("0*", None),  # no stem begins so, only folders do
        ("s#?", [page]),
        ("s.tif#[3-4]", [page]),
        ("data/s.TIF#*", None),
        ("0?/t001.tif", [t001, other]),
        ("*.tif", [t001, t011, other]),  # of the whole name: a page has its number behind the suffix
        ("*[!1]", [page]),  # without a suffix in the pattern only stems count
        (["t011", "s#3"], [t011, page]),
        (["t011.tif", "s.tif#3"], [t011, page]),
        (["02/t001"], [other]),
        (["01/t001.tif", "data/s.tif#3"], [t001, page]),
        (["t001"], [t001, other]),
        ([], []),
    ]:
        if expected is None:
            with pytest.raises(ValueError, match="match the name of an image"):
                split_pairs(pairs, validation)
            continue
        split = split_pairs(pairs, validation)
        assert split["validation"] == expected
        assert split["training"] == [pair for pair in pairs if pair not in expected]


def test_validation_folder(tmp_path):
    touch(tmp_path, "train/images/a.png", "train/labels/a.png", "val/images/a.png", "val/labels/a.png")
    split = load_split(tmp_path / "train", validation=str(tmp_path / "val"))
    assert short(split["training"], tmp_path) == [("train/images/a.png", "train/labels/a.png")]
    assert short(split["validation"], tmp_path) == [("val/images/a.png", "val/labels/a.png")]
    with pytest.raises(ValueError, match=r"other images than training's, got .*a.png in both"):
        load_split(tmp_path / "train", validation=str(tmp_path / "train"))


@pytest.mark.parametrize(
    ("count", "chosen"), [(1, [4]), (2, [2, 6]), (3, [1, 4, 6]), (8, [0, 1, 2, 3, 4, 5, 6, 7]), (None, list(range(8)))]
)
def test_training_images_are_spread_evenly_over_those_that_do_not_validate(tmp_path, count, chosen):
    touch(tmp_path, *[f"{folder}/{i}.png" for i in range(10) for folder in ("images", "labels")])
    split = load_split(tmp_path, training_images=count)
    assert short(split["training"], tmp_path) == [(f"images/{i}.png", f"labels/{i}.png") for i in chosen]
    assert len(split["validation"]) == 2


@pytest.mark.parametrize("count", [0, 4])
def test_training_images_must_be_there(tmp_path, count):
    touch(tmp_path, *[f"{folder}/{i}.png" for i in range(4) for folder in ("images", "labels")])
    with pytest.raises(ValueError, match=f"training_images must be between 1 and 3, got {count}"):
        load_split(tmp_path, training_images=count)


def test_validation_folder_takes_the_label_source(tmp_path):
    for part in ("train", "val"):
        touch(
            tmp_path, *[f"{part}/{name}" for name in ("01/t0.tif", "01_GT/SEG/man_seg0.tif", "01_ST/SEG/man_seg0.tif")]
        )
    split = load_split(tmp_path / "train", validation=str(tmp_path / "val"), label_source="ST")
    assert short(split["validation"], tmp_path) == [("val/01/t0.tif", "val/01_ST/SEG/man_seg0.tif")]


@pytest.mark.parametrize(
    ("validation", "error", "message"),
    [
        ("u*", ValueError, "existing folder or match the name of an image, got 'u.' .nearest: 't"),
        ("", ValueError, "got ''"),
        (["02/t1"], ValueError, r"by stem or file name, got '02/t1' \(nearest: 't1'\)"),
        (["t1", "t33"], ValueError, r"by stem or file name, got 't33' \(nearest: 't3'\)"),
        ([3], TypeError, "must list strings, got 3"),
        (1.5, ValueError, "a share between 0 and 1, got 1.5"),
        (-0.1, ValueError, "a share between 0 and 1, got -0.1"),
        (True, TypeError, "a number, a string or a list of strings, got True"),
        (None, TypeError, "a number, a string or a list of strings, got None"),
    ],
)
def test_refused_splits(validation, error, message):
    with pytest.raises(error, match=message):
        split_pairs(frames("t1", "t2", "t3"), validation)


def test_split_is_logged_in_one_line(tmp_path, caplog):
    touch(tmp_path, *[f"{folder}/{i}.png" for folder in ("images", "labels") for i in range(10)])
    with caplog.at_level(logging.INFO):
        assert len(load_split(tmp_path)["training"]) == 8
        load_split(tmp_path, validation=0)
    assert [record.message.removeprefix(str(tmp_path)) for record in caplog.records] == [
        ": 8 training, 2 validation images (validation=0.2: 8..9).",
        ": 10 training, 0 validation images (validation=0).",
    ]


def test_names_say_the_folder_where_stems_repeat(tmp_path, caplog):
    touch(tmp_path, *[f"{folder}/t{i}.tif" for folder in ("01", "02") for i in range(3)])
    touch(tmp_path, *[f"{folder}_GT/SEG/man_seg{i}.tif" for folder in ("01", "02") for i in range(3)])
    with caplog.at_level(logging.INFO):
        split = load_split(tmp_path, validation="02/*")
    assert [image for image, _ in short(split["training"], tmp_path)] == [f"01/t{i}.tif" for i in range(3)]
    assert "(validation='02/*': 02/t0..02/t2)" in caplog.text
    assert short(load_split(tmp_path)["validation"], tmp_path) == [("02/t2.tif", "02_GT/SEG/man_seg2.tif")]
    with pytest.raises(ValueError, match=r"match the name of an image, got '02' .nearest: '02/t"):
        load_split(tmp_path, validation="02")


LABEL_NAMES = ["a.tif", "a_cp_masks.png", "a_cp_masks.tif", "a_masks.tif", "a_seg.npy"]
ROI_NAMES = ["a_rois.zip", "a.zip", "a_RoiSet.zip", "RoiSet_a.zip"]


@pytest.mark.parametrize("label", LABEL_NAMES + ROI_NAMES)
def test_names_of_labels_in_two_folders(tmp_path, label):
    drawing(tmp_path / "images/a.png")
    touch(tmp_path, f"labels/{label}", "labels/notes.txt", "labels/a_flows.tif", "labels/a_cp_output_cp_masks.png")
    address = label + "#3x2" if label.endswith(".zip") else label
    assert short(find_pairs(tmp_path), tmp_path) == [("images/a.png", f"labels/{address}")]


@pytest.mark.parametrize("label", LABEL_NAMES[1:] + ROI_NAMES)
def test_labels_beside_their_images(tmp_path, label, caplog):
    drawing(tmp_path / "a.png")
    drawing(tmp_path / "b.png")
    touch(tmp_path, label, "a_flows.tif", "a_outlines_cp_masks.png", "a_cp_outlines.txt", "other.zip")
    address = label + "#3x2" if label.endswith(".zip") else label
    with caplog.at_level(logging.INFO):
        assert short(find_pairs(tmp_path), tmp_path) == [("a.png", address)]
    assert "1 images with labels, 1 without one are left out" in caplog.text
    assert [Path(item["image"]).name for item in find_images(tmp_path)] == ["a.png", "b.png"]


def test_of_several_labels_the_one_of_the_gui_is_read_then_pictures(tmp_path, caplog):
    drawing(tmp_path / "a.png")
    touch(tmp_path, "a_seg.npy", "a_cp_masks.png", "a_rois.zip")
    with caplog.at_level(logging.INFO):
        assert short(find_pairs(tmp_path), tmp_path) == [("a.png", "a_seg.npy")]
    assert "have several labels: a_seg.npy is read, not a_cp_masks.png" in caplog.text
    (tmp_path / "a_seg.npy").unlink()
    assert short(find_pairs(tmp_path), tmp_path) == [("a.png", "a_cp_masks.png")]
    touch(tmp_path, "a_masks.tif")
    with pytest.raises(ValueError, match=r"must hold one file for each image, got a_cp_masks.png and a_masks.tif"):
        find_pairs(tmp_path)


def test_a_name_is_a_label_only_beside_its_image(tmp_path):
    touch(tmp_path, "a_masks.png", "b_flows.tif", "c_overlay.png", "d.png", "d_overlay.png", "e_cp_masks.png")
    names_found = ["a_masks.png", "b_flows.tif", "c_overlay.png", "d.png", "d_overlay.png", "e_cp_masks.png"]
    assert [Path(item["image"]).name for item in find_images(tmp_path)] == names_found
    touch(tmp_path, "d_cells.csv")
    names_found.remove("d_overlay.png")
    assert [Path(item["image"]).name for item in find_images(tmp_path)] == names_found
    touch(tmp_path, "two/images/a_masks.png", "two/labels/a_masks.png", "two/images/b.zip.png", "two/labels/b.zip.png")
    assert short(find_pairs(tmp_path / "two"), tmp_path / "two") == [
        ("images/a_masks.png", "labels/a_masks.png"),
        ("images/b.zip.png", "labels/b.zip.png"),
    ]


def test_rois_of_a_stack_are_addressed_by_page(tmp_path):
    stack(tmp_path / "a.tif", 2)
    touch(tmp_path, "a_rois.zip")
    pairs = [("a.tif#0", "a_rois.zip#3x2#0"), ("a.tif#1", "a_rois.zip#3x2#1")]
    assert short(find_pairs(tmp_path), tmp_path) == pairs


def test_images_of_a_folder(tmp_path):
    touch(tmp_path, "t10.png", "t9.tif", "sub/t1.png", ".part-t1.tif", "notes.txt")
    stack(tmp_path / "stack.tif", 2)
    found = [Path(item["image"]).name for item in find_images(tmp_path)]
    assert found == ["stack.tif#0", "stack.tif#1", "t9.tif", "t10.png"]
    assert [Path(item["image"]).name for item in find_images(tmp_path, spatial_dims=3)] == [
        "stack.tif",
        "t9.tif",
        "t10.png",
    ]
    assert find_images(tmp_path / "t10.png") == [{"image": str(tmp_path / "t10.png")}]
    assert len(find_images(tmp_path / "stack.tif")) == 2


def test_refused_images(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path must be an existing image or folder of images, got .*nowhere"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="must hold images"):
        find_images(tmp_path)
    touch(tmp_path, "a.txt")
    with pytest.raises(ValueError, match=r"file name must end in one of .*, got 'a.txt'"):
        find_images(tmp_path / "a.txt")
