import pickle
import re

import nibabel
import numpy as np
import pytest
import tifffile
import torch
from monai.data import CacheDataset, DataLoader, MetaTensor, decollate_batch
from monai.transforms import Compose, LoadImaged, SaveImaged
from PIL import Image
from unet_monai.data.datalist import find_images
from unet_monai.data.image_io import CellImageReader, LabelReader
from unet_monai.transforms.image_files import LoadCellImaged, SaveInstancesd

ROWS = np.array([[10, 20, 30], [40, 50, 60]], dtype=np.uint8)
ODD_AFFINE = np.array([[0.0, -0.5, 0.25, 7.0], [0.75, 0.0, 0.0, -3.0], [0.0, 0.125, 2.5, 11.0], [0, 0, 0, 1]])


def through(source, target, spatial_dims=2):
    """Load every image under `source`, batch it, and save its values as instances under `target`."""
    load = LoadCellImaged("image", CellImageReader(spatial_dims), dtype="int32")
    data = CacheDataset(find_images(source, spatial_dims=spatial_dims), load, progress=False)
    save = SaveInstancesd("image", target)
    for batch in DataLoader(data, batch_size=1, num_workers=0):
        for item in decollate_batch(batch):
            save(item)


def test_image_and_label_are_channel_first_metatensors(tmp_path):
    Image.fromarray(ROWS).save(tmp_path / "a.png")
    load = Compose(
        [LoadCellImaged("image", CellImageReader(in_channels=3)), LoadCellImaged("label", LabelReader(), dtype="int32")]
    )
    data = load({"image": tmp_path / "a.png", "label": str(tmp_path / "a.png")})
    assert isinstance(data["image"], MetaTensor)
    assert (data["image"].shape, data["image"].dtype) == ((3, 3, 2), torch.float32)
    assert (data["label"].tolist(), data["label"].dtype) == ([ROWS.T.tolist()], torch.int32)
    assert data["label"].meta["filename_or_obj"] == str(tmp_path / "a.png")


def test_errors_of_the_reader_reach_the_user(tmp_path):
    Image.fromarray(np.stack([ROWS, ROWS, ROWS + 1], axis=-1)).save(tmp_path / "rgb.png")
    with pytest.raises(ValueError, match="must have equal channels"):
        LoadCellImaged("label", LabelReader())({"label": str(tmp_path / "rgb.png")})
    with pytest.raises(TypeError, match="reader must be an ImageReader object, got 'PILReader'"):
        LoadCellImaged("image", "PILReader")


@pytest.mark.parametrize(("suffix", "spatial_dims"), [(".png", 2), (".tif", 3)])
def test_image_and_label_have_one_size(tmp_path, suffix, spatial_dims):
    image, label = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    for path, rows in ((image, ROWS), (label, ROWS.T)):
        tifffile.imwrite(path, [rows] * 2, photometric="minisblack") if spatial_dims == 3 else Image.fromarray(
            rows
        ).save(path)
    load = Compose(
        [LoadCellImaged("image", CellImageReader(spatial_dims)), LoadCellImaged("label", LabelReader(spatial_dims))]
    )
    assert load({"image": image, "label": image})["label"].shape[1:3] == (3, 2)
    with pytest.raises(RuntimeError, match="applying transform") as error:
        load({"image": image, "label": label})
    assert re.search(
        r"b\.\w+ must have the size of .*a\.\w+, \(3, 2[2, ]*\) \(columns first\), got \(2, 3[2, ]*\)\.$",
        str(error.value.__cause__),
    )


def test_another_reader_may_be_given_at_the_call(tmp_path):
    Image.fromarray(ROWS).save(tmp_path / "a.png")
    load = LoadCellImaged("image", CellImageReader())
    assert load({"image": str(tmp_path / "a.png")}, CellImageReader(in_channels=3))["image"].shape == (3, 3, 2)


def test_keys_may_be_missing_if_allowed(tmp_path):
    assert LoadCellImaged("label", LabelReader(), allow_missing_keys=True)({}) == {}
    assert SaveInstancesd("pred", tmp_path, allow_missing_keys=True)({}) == {}
    with pytest.raises(KeyError):
        SaveInstancesd("pred", tmp_path)({})


def test_monai_label_recognises_both(tmp_path):
    assert isinstance(LoadCellImaged("image", CellImageReader()), LoadImaged)
    assert isinstance(SaveInstancesd("pred", tmp_path), SaveImaged)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_non_square_round_trip(tmp_path, suffix):
    Image.fromarray(ROWS).save(tmp_path / f"cell{suffix}")
    through(tmp_path, tmp_path / "new/out")
    output = tmp_path / "new/out" / ("cell.tif" if suffix == ".tif" else "cell.png")
    rows = tifffile.imread(output) if suffix == ".tif" else np.asarray(Image.open(output))
    assert rows.tolist() == ROWS.tolist()
    assert rows.dtype == np.uint16


def test_stack_stays_a_stack(tmp_path):
    pages = np.stack([ROWS, ROWS + 1, ROWS + 2])
    tifffile.imwrite(tmp_path / "stack.tiff", pages, photometric="minisblack", compression="lzw")
    through(tmp_path, tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["stack.tif"]
    assert tifffile.imread(tmp_path / "out/stack.tif").tolist() == pages.tolist()


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2)])
def test_nifti_round_trip_is_exact(tmp_path, shape):
    volume = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    nibabel.save(nibabel.Nifti1Image(volume, ODD_AFFINE), tmp_path / "a.nii.gz")
    through(tmp_path, tmp_path / "out", spatial_dims=len(shape))
    output = nibabel.load(tmp_path / "out/a.nii.gz")
    assert np.asarray(output.dataobj).tolist() == volume.tolist()
    assert output.affine.tolist() == ODD_AFFINE.tolist()
    assert nibabel.aff2axcodes(output.affine) == nibabel.aff2axcodes(ODD_AFFINE)


def test_tiff_volume_round_trip(tmp_path):
    volume = np.stack([ROWS, ROWS + 1, ROWS + 2, ROWS + 3])
    tifffile.imwrite(tmp_path / "a.tif", volume, photometric="minisblack")
    through(tmp_path, tmp_path / "out", spatial_dims=3)
    assert tifffile.imread(tmp_path / "out/a.tif").tolist() == volume.tolist()


def prediction(address="/data/a.png", shape=(1, 3, 2), **meta):
    return {"pred": MetaTensor(torch.ones(shape, dtype=torch.int32), meta={"filename_or_obj": address, **meta})}


def test_data_is_returned_unchanged(tmp_path):
    data = prediction(page=0, num_pages=1)
    assert SaveInstancesd("pred", tmp_path)(data)["pred"] is data["pred"]


def test_names_are_never_guessed(tmp_path):
    save = SaveInstancesd("pred", tmp_path)
    for data in (prediction(), {"pred": torch.ones(1, 3, 2)}):
        with pytest.raises(ValueError, match="pred must be a MetaTensor with filename_or_obj, page and num_pages"):
            save(data)
    with pytest.raises(ValueError, match=r"pred must have the shape \(1, X, Y\[, Z\]\), got \(2, 3, 2\)"):
        save(prediction(shape=(2, 3, 2), page=0, num_pages=1))
    assert not list(tmp_path.iterdir())


def test_no_image_overwrites_another(tmp_path):
    save = SaveInstancesd("pred", tmp_path)
    for address in ("/data/a.png", "/data/a.png", "/data/b.jpg"):
        save(prediction(address, page=0, num_pages=1))
    with pytest.raises(ValueError, match=r"different names, got /data/b.jpg and /data/b.png for b.png"):
        save(prediction("/data/b.png", page=0, num_pages=1))
    with pytest.raises(ValueError, match=r"different names, got /data/a.png and /other/a.png for a.png"):
        save(prediction("/other/a.png", page=0, num_pages=1))


def test_writer_options_are_refused(tmp_path):
    with pytest.raises(TypeError, match="SaveInstancesd must be used without writer options"):
        SaveInstancesd("pred", tmp_path).set_options()


def test_transforms_are_picklable(tmp_path):
    load = pickle.loads(pickle.dumps(LoadCellImaged("label", LabelReader(ignore_label=255))))
    assert load.reader.ignore_label == 255
    assert pickle.loads(pickle.dumps(SaveInstancesd("pred", tmp_path))).output_dir == tmp_path
