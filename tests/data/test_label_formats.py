import pickle

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image
from roifile import ROI_TYPE, ImagejRoi, roiwrite
from unet_monai.data.image_formats import picture_size
from unet_monai.data.image_io import CellImageReader, LabelReader
from unet_monai.data.imagej_rois import rois_from_instances

from tests.drawings import draw, random_discs

MASKS = np.array([[10, 20, 30], [40, 50, 60]], dtype=np.uint8)


def read(path, reader):
    return reader.get_data(reader.read(str(path)))


def image(path, reader):
    return read(path, reader)[0]


def save_seg(path, masks, **more):
    """Save what Cellpose saves."""
    content = {"outlines": masks, "masks": masks, "chan_choose": [0, 0], "ismanual": np.zeros(3, bool), "diameter": 7.5}
    content |= {"filename": "a.png", "flows": [masks[None], [], None], "est_diam": np.float64(30), **more}
    np.save(path, content)


def test_cellpose_seg(tmp_path):
    masks = np.array([[0, 3, 3], [300, 0, 0]], dtype=np.uint16)
    save_seg(tmp_path / "a_seg.npy", masks)
    label, meta = read(tmp_path / "a_seg.npy", LabelReader())
    assert label[0].T.tolist() == masks.tolist()
    assert label.dtype == np.int32
    assert (meta["filename_or_obj"], meta["page"], meta["num_pages"]) == (str(tmp_path / "a_seg.npy"), 0, 1)
    save_seg(tmp_path / "flat_seg.npy", np.asfortranarray(masks)[None])
    assert image(tmp_path / "flat_seg.npy", LabelReader())[0].T.tolist() == masks.tolist()
    volume = np.arange(24).reshape(2, 3, 4)
    save_seg(tmp_path / "volume_seg.npy", volume)
    assert image(tmp_path / "volume_seg.npy", LabelReader(3))[0].T.tolist() == volume.tolist()
    with pytest.raises(ValueError, match=r"volume_seg.npy must have 2 spatial axes, got axes ZYX of shape \(2, 3, 4\)"):
        image(tmp_path / "volume_seg.npy", LabelReader())


def test_cellpose_seg_of_numpy_1(tmp_path):
    pickled = pickle.dumps(np.array({"masks": MASKS, "est_diam": np.float64(30)}), protocol=3)
    with open(tmp_path / "a_seg.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        file.write(pickled.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert image(tmp_path / "a_seg.npy", LabelReader())[0].T.tolist() == MASKS.tolist()


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("key", ["masks", "filename"])
def test_a_pickle_that_runs_code_is_refused(tmp_path, key):
    masks = np.array([[1, 2]])
    np.save(tmp_path / "a_seg.npy", {"masks": masks, key: Malicious(tmp_path / "broken in")})
    (tmp_path / "broken in").unlink(missing_ok=True)
    with pytest.raises(
        ValueError, match=r"a_seg.npy must be .* it wants to call \w+.open, and calling is not allowed; sav"
    ):
        image(tmp_path / "a_seg.npy", LabelReader())
    assert not (tmp_path / "broken in").exists()
    np.load(tmp_path / "a_seg.npy", allow_pickle=True)
    assert (tmp_path / "broken in").exists(), "test invalid"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((2, 3)), r"it holds float64 of shape \(2, 3\) instead of a dictionary"),
        ({"img": 3}, 'hold an array of two or three axes under "masks", got .*NoneType'),
        ({"masks": np.zeros(3)}, "two or three axes"),
        ([3], r"object of shape \(1,\) instead of a dictionary"),
        ({"masks": np.array([[{}]])}, "real numbers, got object"),
    ],
)
def test_other_npy_files_are_refused(tmp_path, content, message):
    np.save(tmp_path / "a_seg.npy", np.array(content, dtype=None if isinstance(content, np.ndarray) else object))
    with pytest.raises(ValueError, match=rf"a_seg.npy must .*{message}"):
        image(tmp_path / "a_seg.npy", LabelReader())


def test_broken_label_files_are_named(tmp_path):
    save_seg(tmp_path / "a_seg.npy", MASKS)
    whole = (tmp_path / "a_seg.npy").read_bytes()
    for kept in (0, 5, 60, 140, 200, len(whole) - 3):
        (tmp_path / "a_seg.npy").write_bytes(whole[:kept])
        with pytest.raises(ValueError, match=r"a_seg.npy must be a readable image file"):
            image(tmp_path / "a_seg.npy", LabelReader())
    (tmp_path / "a.zip").write_bytes(whole)
    with pytest.raises(ValueError, match=r"a.zip must be a readable image file, got BadZipFile"):
        image(f"{tmp_path}/a.zip#3x2", LabelReader())
    with pytest.raises(FileNotFoundError, match=r"must exist, got .*b_seg.npy"):
        image(tmp_path / "b_seg.npy", LabelReader())


def test_sets_of_rois(tmp_path):
    instances = random_discs(0, (20, 31), count=5)
    roiwrite(tmp_path / "a_rois.zip", rois_from_instances(instances))
    label, meta = read(f"{tmp_path}/a_rois.zip#31x20", LabelReader())
    ids = np.unique(instances)
    assert label[0].T.tolist() == np.searchsorted(ids, instances).tolist()
    assert meta["filename_or_obj"] == f"{tmp_path}/a_rois.zip#31x20"
    for address in ("a_rois.zip", "a_rois.zip#31"):
        with pytest.raises(ValueError, match=r"must be addressed with its image's size|file name must end in one of"):
            image(tmp_path / address, LabelReader())
    with pytest.raises(ValueError, match=r"a_rois.zip must be addressed with its .*#640x512, and in 2-D"):
        image(f"{tmp_path}/a_rois.zip#31x20", LabelReader(3))
    roiwrite(tmp_path / "line.zip", [ImagejRoi(roitype=ROI_TYPE.LINE)])
    with pytest.raises(ValueError, match=r"line.zip must be .* rois must be areas"):
        image(f"{tmp_path}/line.zip#31x20", LabelReader())


def test_rois_of_a_page_are_those_set_to_it_or_to_none(tmp_path):
    everywhere, first, second, of_time = (rois_from_instances(np.eye(4, dtype=int)[[i]] * 7)[0] for i in range(4))
    first.position, second.position, of_time.t_position = 1, 2, 2
    roiwrite(tmp_path / "a.zip", [everywhere, first, second, of_time], name=list("0123"))
    reader = LabelReader()
    assert image(f"{tmp_path}/a.zip#4x1", reader)[0].T.tolist() == [[1, 2, 3, 4]]
    assert image(f"{tmp_path}/a.zip#4x1#0", reader)[0].T.tolist() == [[1, 2, 0, 0]]
    assert image(f"{tmp_path}/a.zip#4x1#1", reader)[0].T.tolist() == [[1, 0, 2, 3]]


def test_lists_of_instances_are_neither_split_nor_ignored(tmp_path):
    two_pieces = np.array([[255, 0, 255]])
    save_seg(tmp_path / "a_seg.npy", two_pieces)
    assert image(tmp_path / "a_seg.npy", LabelReader(ignore_label=255))[0].T.tolist() == two_pieces.tolist()
    roiwrite(tmp_path / "a.zip", rois_from_instances(two_pieces))
    assert image(f"{tmp_path}/a.zip#3x1", LabelReader(ignore_label=1))[0].T.tolist() == [[1, 0, 1]]


def masks(folder, drawing, *values):
    """Write a file for every number in a drawing, of one of the values in turn."""
    folder.mkdir(exist_ok=True)
    label = draw(drawing)
    for i in range(1, label.max() + 1):
        Image.fromarray((label == i).astype(np.uint8) * np.uint8(values[i % len(values)])).save(folder / f"{i}.png")
    return label


def test_masks_are_instances_in_the_order_of_their_names(tmp_path):
    label = masks(tmp_path / "masks", "11..3\n1.2.3", 255, 1)
    (tmp_path / "masks/.hidden.png").touch()
    (tmp_path / "masks/notes.txt").touch()
    found, meta = read(tmp_path / "masks", LabelReader(ignore_label=2))
    assert found[0].T.tolist() == label.tolist()
    assert (found.dtype, meta["filename_or_obj"]) == (np.int32, str(tmp_path / "masks"))
    (tmp_path / "masks/1.png").rename(tmp_path / "masks/z.png")
    assert image(tmp_path / "masks", LabelReader())[0].T.tolist() == draw("33..2\n3.1.2").tolist()


def test_one_mask_is_one_instance_also_in_pieces(tmp_path):
    label = masks(tmp_path / "masks", "1.1", 255)
    assert image(tmp_path / "masks", LabelReader())[0].T.tolist() == label.tolist()


def test_where_masks_overlap_the_last_counts(tmp_path):
    masks(tmp_path / "masks", "111.", 255)
    Image.fromarray(np.array([[0, 0, 255, 255]], np.uint8)).save(tmp_path / "masks/2.png")
    Image.fromarray(np.zeros((1, 4), np.uint8)).save(tmp_path / "masks/3.png")
    Image.fromarray(np.array([[255, 0, 0, 0]], np.uint8)).save(tmp_path / "masks/4.png")
    assert image(tmp_path / "masks", LabelReader())[0].T.tolist() == [[4, 1, 2, 2]]


def test_alpha_of_a_mask_says_nothing(tmp_path):
    (tmp_path / "masks").mkdir()
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[..., 3] = 255
    rgba[0, 1, 0] = 255  # red, as someone may have drawn it
    Image.fromarray(rgba).save(tmp_path / "masks/1.png")
    assert image(tmp_path / "masks", LabelReader())[0].T.tolist() == [[0, 1, 0]]


def test_masks_of_volumes(tmp_path):
    (tmp_path / "masks").mkdir()
    for i in (0, 1):
        volume = np.zeros((2, 3, 4), np.uint8)
        volume[i] = 255
        tifffile.imwrite(tmp_path / f"masks/{i}.tif", volume, photometric="minisblack")
    assert image(tmp_path / "masks", LabelReader(3))[0, 0, 0].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("b.png", np.array([[0, 7, 9]]), ValueError, r"mask .*b.png must hold one value besides 0, got 2 of them"),
        ("b.png", np.array([[0], [255]]), ValueError, r"b.png must have the shape of a.png, \(3, 1\), got \(1, 2\)"),
        ("b.jpg", np.array([[0, 0, 0]]), ValueError, r"mask .*b.jpg must be of a lossless kind.*, got JPEG"),
        (".a.png", None, FileNotFoundError, r"masks must hold a mask for each instance \(.*\.png.*\), got none"),
    ],
)
def test_refused_masks(tmp_path, name, content, error, message):
    (tmp_path / "masks").mkdir()
    if content is None:
        (tmp_path / "masks" / name).touch()
    else:
        masks(tmp_path / "masks", "11.", 255)
        (tmp_path / "masks/1.png").rename(tmp_path / "masks/a.png")
        Image.fromarray(content.astype(np.uint8)).save(tmp_path / "masks" / name)
    with pytest.raises(error, match=message):
        image(tmp_path / "masks", LabelReader())


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.nii.gz"])
def test_sizes_without_pixels(tmp_path, name):
    if name == "a.nii.gz":
        nibabel.save(nibabel.Nifti1Image(MASKS.T, np.eye(4)), tmp_path / name)
    else:
        Image.fromarray(MASKS).save(tmp_path / name)
    assert picture_size(str(tmp_path / name)) == (3, 2)
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((4, 2, 3, 3), np.uint8), photometric="rgb")
    assert picture_size(str(tmp_path / "rgb.tif")) == (3, 2)


def test_readers_know_their_kinds_of_files(tmp_path):
    assert LabelReader().verify_suffix([tmp_path, "a.png"])
    assert not LabelReader().verify_suffix([tmp_path, "a.npy"])
    assert LabelReader().verify_suffix(["a_seg.npy", "a_rois.zip#640x512#3", "a.tif#1", "a.png"])
    assert not LabelReader().verify_suffix("a.npy")
    assert not CellImageReader().verify_suffix("a_seg.npy")
