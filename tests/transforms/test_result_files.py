import csv
import pickle

import nibabel
import numpy as np
import pytest
import tifffile
import torch
from monai.data import MetaTensor
from monai.transforms import SaveImaged
from PIL import Image
from roifile import roiread
from unet_monai.data import CellImageReader, find_images, find_pairs, instances_from_rois
from unet_monai.pictures import draw_overlay
from unet_monai.transforms import LoadCellImaged, SaveCellTabled, SaveInstancesd, SaveOverlayd, SaveRoisd

from tests.drawings import draw, random_discs

WRITERS = (SaveInstancesd, SaveCellTabled, SaveOverlayd, SaveRoisd)


def sure(instances, certainty=20.0):
    """Scores of background and cell: `certainty` apart."""
    return torch.stack([torch.zeros(instances.shape), torch.where(torch.as_tensor(instances) > 0, certainty, -30.0)])


def found(address, rows, spatial_dims=2, **options):
    """What the pipeline holds after the network: the file's image, and instances (given rows first) with scores."""
    data = LoadCellImaged("image", CellImageReader(spatial_dims))({"image": str(address)})
    data["image"] = data["image"] / 1000 - 1  # as if normalised
    columns_first = np.ascontiguousarray(rows.T)
    pred = MetaTensor(torch.as_tensor(columns_first)[None], meta=data["image"].meta)
    return {**data, "pred": pred, "scores": sure(columns_first, **options)}


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def write_all(data, folder):
    for writer in WRITERS:
        writer("pred", folder)(data)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_the_table_agrees_with_the_label_map_as_it_is_opened(tmp_path, suffix):
    image = np.random.default_rng(0).integers(0, 255, (30, 45), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / f"a.b{suffix}")
    write_all(found(tmp_path / f"a.b{suffix}", random_discs(0, (30, 45), count=5), certainty=1.0), tmp_path / "out")
    written = "a.b.tif" if suffix == ".tif" else "a.b.png"
    label_map = np.asarray(Image.open(tmp_path / "out" / written))
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        *(written, "a.b_cells.csv", "a.b_overlay.png", "a.b_rois.zip")
    }
    cells = table(tmp_path / "out/a.b_cells.csv")
    assert len(cells) == len(np.unique(label_map)) - 1 > 2
    for cell in cells:
        pixels = label_map == int(cell["label"])
        assert [float(cell["centroid_row"]), float(cell["centroid_column"])] == pytest.approx(
            np.argwhere(pixels).mean(axis=0).tolist()
        )
        assert int(cell["area"]) == pixels.sum()
        assert float(cell["mean_intensity"]) == pytest.approx(image[pixels].mean())
        assert float(cell["confidence"]) == pytest.approx(1 / (1 + np.exp(-1)))


def test_intensities_are_those_of_the_file(tmp_path):
    grey = np.array([[1000, 50_001], [7, 9]], dtype=np.uint16)
    tifffile.imwrite(tmp_path / "deep.tif", grey)
    write_all(found(tmp_path / "deep.tif", draw("11\n..")), tmp_path / "out")
    assert table(tmp_path / "out/deep_cells.csv")[0]["mean_intensity"] == "25500.5"
    colours = np.stack([grey // 300, grey // 900, grey // 4500], axis=-1).astype(np.uint8)
    Image.fromarray(colours).save(tmp_path / "rgb.png")
    write_all(found(tmp_path / "rgb.png", draw("1.\n..")), tmp_path / "out")
    (cell,) = table(tmp_path / "out/rgb_cells.csv")
    assert [cell[f"mean_{colour}"] for colour in ("red", "green", "blue")] == ["3", "1", "0"]


def test_a_stack_has_one_table_one_set_of_rois_and_the_middle_page_as_picture(tmp_path):
    pages = np.random.default_rng(0).integers(0, 200, (3, 20, 30), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "stack.tif", pages, photometric="minisblack")
    labels = np.stack([random_discs(seed, (20, 30), count=4) for seed in range(3)])
    writers = [writer("pred", tmp_path / "out") for writer in WRITERS]
    for item, label in zip(find_images(tmp_path / "stack.tif"), labels, strict=True):
        for writer in writers:
            writer(found(item["image"], label))
    out = tmp_path / "out"
    names = {"stack.tif", "stack_cells.csv", "stack_overlay.png", "stack_rois.zip"}
    assert {file.name for file in out.iterdir()} == names
    cells = table(out / "stack_cells.csv")
    assert list(cells[0])[:2] == ["page", "label"]
    for page in range(3):
        of_page = [cell for cell in cells if int(cell["page"]) == page]
        assert [int(cell["label"]) for cell in of_page] == np.unique(labels[page])[1:].tolist()
        ids, pixels = labels[page].max(), labels[page] == labels[page].max()
        assert float(of_page[-1]["mean_intensity"]) == pytest.approx(pages[page][pixels].mean())
        rois = [roi for roi in roiread(out / "stack_rois.zip") if roi.position == page + 1]
        filled = instances_from_rois(rois, (20, 30))
        assert ids > 1
        assert (filled > 0).tolist() == (labels[page] > 0).tolist()
    overlay = np.asarray(Image.open(out / "stack_overlay.png"))
    np.testing.assert_array_equal(overlay, draw_overlay(pages[1] / np.float32(1000) - 1, labels[1]))


@pytest.mark.parametrize("suffix", [".tif", ".nii.gz"])
def test_volumes_have_three_coordinates_and_the_middle_slice(tmp_path, suffix):
    volume = np.random.default_rng(0).integers(0, 200, (5, 20, 30), dtype=np.uint8)
    instances = random_discs(3, volume.shape, count=3, radius=(4, 7))
    path = tmp_path / f"a{suffix}"
    if suffix == ".tif":
        tifffile.imwrite(path, volume, photometric="minisblack")
    else:
        nibabel.save(nibabel.Nifti1Image(volume.T, np.eye(4)), path)
    data = found(path, instances, spatial_dims=3)
    for writer in WRITERS[:3]:
        writer("pred", tmp_path / "out")(data)
    for cell in table(tmp_path / "out/a_cells.csv"):
        pixels = instances == int(cell["label"])
        centroid = [float(cell[f"centroid_{axis}"]) for axis in ("slice", "row", "column")]
        assert centroid == pytest.approx(np.argwhere(pixels).mean(axis=0).tolist())
        assert float(cell["mean_intensity"]) == pytest.approx(volume[pixels].mean())
    overlay = np.asarray(Image.open(tmp_path / "out/a_overlay.png"))
    np.testing.assert_array_equal(overlay, draw_overlay(volume[2] / np.float32(1000) - 1, instances[2]))
    with pytest.raises(ValueError, match=r"rois must be false for volumes, got instances of shape \(30, 20, 5\)"):
        SaveRoisd("pred", tmp_path / "out")(data)


def test_large_images_are_reduced_and_keep_their_contours(tmp_path):
    image, instances = np.zeros((1000, 3200), np.uint8), np.zeros((1000, 3200), np.int32)
    instances[400:600, 1000:1800] = 70_000
    image[instances > 0] = 200
    Image.fromarray(image).save(tmp_path / "a.png")
    SaveOverlayd("pred", tmp_path / "out")(found(tmp_path / "a.png", instances))
    overlay = np.asarray(Image.open(tmp_path / "out/a_overlay.png"))
    assert overlay.shape == (500, 1600, 3)
    np.testing.assert_array_equal(overlay, draw_overlay(image[::2, ::2], instances[::2, ::2]))


def test_rgb_images_have_rgb_overlays(tmp_path):
    colours = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "a.png")
    data = LoadCellImaged("image", CellImageReader(in_channels=3))({"image": str(tmp_path / "a.png")})
    pred = MetaTensor(torch.zeros(1, 30, 20, dtype=torch.int32), meta=data["image"].meta)
    SaveOverlayd("pred", tmp_path / "out")({**data, "pred": pred})
    overlay = np.asarray(Image.open(tmp_path / "out/a_overlay.png"))
    np.testing.assert_array_equal(overlay, draw_overlay(colours.astype(np.float32), np.zeros((20, 30), int)))


def test_an_image_without_cells_has_a_table_without_rows(tmp_path):
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "a.png")
    write_all(found(tmp_path / "a.png", np.zeros((4, 5), np.int32)), tmp_path / "out")
    assert (tmp_path / "out/a_cells.csv").read_text().startswith("label,area,centroid_row")
    assert table(tmp_path / "out/a_cells.csv") == []
    assert roiread(tmp_path / "out/a_rois.zip") == []


def test_results_are_neither_images_nor_labels_of_their_own(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / f"images/{name}.png")
        write_all(found(tmp_path / f"images/{name}.png", draw("12...\n12...\n.....\n.....")), tmp_path / "labels")
    assert [item["image"][-5:] for item in find_images(tmp_path / "labels")] == ["a.png", "b.png"]
    labels = [pair["label"].removeprefix(str(tmp_path)) for pair in find_pairs(tmp_path)]
    assert labels == ["/labels/a.png", "/labels/b.png"]
    with pytest.raises(ValueError, match=r"got label maps with overlays and tables, .*labels \(a, b\): put the images"):
        find_pairs(tmp_path / "labels")


def test_no_result_overwrites_its_image(tmp_path):
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"output_dir must be another folder than the images', got "):
        SaveInstancesd("pred", tmp_path)(found(tmp_path / "a.png", np.ones((4, 5), np.int32)))


def test_no_result_overwrites_another(tmp_path):
    save = SaveOverlayd("pred", tmp_path / "out")
    for name in ("a.png", "a.tif"):
        Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / name)
    save(found(tmp_path / "a.png", np.ones((4, 5), np.int32)))
    with pytest.raises(ValueError, match=r"different names, got .*a.png and .*a.tif for a_overlay.png"):
        save(found(tmp_path / "a.tif", np.ones((4, 5), np.int32)))


def test_an_image_file_of_another_shape_is_refused(tmp_path):
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "a.png")
    data = found(tmp_path / "a.png", np.ones((4, 5), np.int32))
    data["pred"], data["scores"] = data["pred"][:, :4], data["scores"][:, :4]
    with pytest.raises(ValueError, match=r"image must have the shape of instances, \(4, 4\), or RGB, got \(4, 5\)"):
        SaveCellTabled("pred", tmp_path / "out")(data)


@pytest.mark.parametrize("writer", WRITERS)
def test_monai_label_leaves_them_out(tmp_path, writer):
    save = pickle.loads(pickle.dumps(writer("pred", tmp_path)))
    assert isinstance(save, SaveImaged)
    with pytest.raises(TypeError, match=f"{writer.__name__} must be used without writer options"):
        save.set_options()
    assert writer("pred", tmp_path, allow_missing_keys=True)({}) == {}
