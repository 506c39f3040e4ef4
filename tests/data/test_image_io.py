import logging
import pickle

import imagecodecs
import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.measure import label as connected_components
from unet_monai.data.demo import draw_cells
from unet_monai.data.image_formats import count_pages, image_stem, split_page, split_suffix
from unet_monai.data.image_io import IGNORE_LABEL, CellImageReader, LabelReader, output_name, write_instances
from unet_monai.transforms.cell_classes import cell_classes

# 2 rows and 3 columns: the column is X, the first axis in memory.
ROWS = np.array([[10, 20, 30], [40, 50, 60]], dtype=np.uint8)
COLUMNS_FIRST = [[10, 40], [20, 50], [30, 60]]
ODD_AFFINE = np.array([[0.0, -0.5, 0.25, 7.0], [0.75, 0.0, 0.0, -3.0], [0.0, 0.125, 2.5, 11.0], [0, 0, 0, 1]])


def read(path, reader=None):
    reader = reader or CellImageReader()
    return reader.get_data(reader.read(str(path)))


def image(path, reader=None):
    return read(path, reader)[0]


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff"])
def test_columns_come_first(tmp_path, suffix):
    path = tmp_path / f"cell{suffix}"
    Image.fromarray(ROWS).save(path)
    array, meta = read(path)
    assert array.dtype == np.uint8
    assert array.tolist() == [COLUMNS_FIRST]
    assert meta["filename_or_obj"] == str(path)
    assert meta["spatial_shape"].tolist() == [3, 2]
    assert meta["affine"].tolist() == np.eye(3).tolist()
    assert (meta["original_channel_dim"], meta["page"], meta["num_pages"]) == (0, 0, 1)


def test_jpeg(tmp_path):
    Image.fromarray(np.full((16, 32), 90, dtype=np.uint8)).save(tmp_path / "cell.JPG", format="JPEG")
    assert image(tmp_path / "cell.JPG").shape == (1, 32, 16)
    assert (image(tmp_path / "cell.JPG") == 90).all()


def test_16_bit_png_stays_16_bit(tmp_path):
    rows = ROWS.astype(np.uint16) * 1000
    Image.fromarray(rows).save(tmp_path / "grey.png")
    assert image(tmp_path / "grey.png").dtype == np.uint16
    assert image(tmp_path / "grey.png")[0].T.tolist() == rows.tolist()
    rgb = np.stack([rows, rows + 1, rows + 2], axis=-1)
    (tmp_path / "rgb.png").write_bytes(imagecodecs.png_encode(rgb))
    three = image(tmp_path / "rgb.png", CellImageReader(in_channels=3))
    assert three.dtype == np.uint16
    assert three.transpose(2, 1, 0).tolist() == rgb.tolist()


@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", ">u2"])
def test_tiff_kinds(tmp_path, compression, dtype):
    order = ">" if dtype == ">u2" else "<"
    tifffile.imwrite(tmp_path / "cell.tif", ROWS.astype(dtype), compression=compression, byteorder=order)
    array = image(tmp_path / "cell.tif")
    assert array.dtype == np.dtype(dtype).newbyteorder("=")
    assert array.tolist() == [COLUMNS_FIRST]


def test_bilevel_image_is_zero_and_one(tmp_path):
    Image.fromarray(ROWS > 25).save(tmp_path / "cell.png")
    assert image(tmp_path / "cell.png").tolist() == [[[0, 1], [0, 1], [1, 1]]]
    assert image(tmp_path / "cell.png").dtype == np.uint8


def test_rgb_becomes_luminance(tmp_path):
    red, green, blue = ROWS, ROWS + 1, ROWS * 2
    Image.fromarray(np.stack([red, green, blue, np.zeros_like(red)], axis=-1)).save(tmp_path / "rgba.png")
    grey = image(tmp_path / "rgba.png")
    assert grey.dtype == np.float32
    np.testing.assert_allclose(grey[0].T, 0.2125 * red + 0.7154 * green + 0.0721 * blue, rtol=1e-6)
    assert image(tmp_path / "rgba.png", CellImageReader(in_channels=3))[:, 2, 1].tolist() == [60, 61, 120]


def test_grey_becomes_three_equal_channels(tmp_path):
    Image.fromarray(np.stack([ROWS, ROWS * 0], axis=-1)).save(tmp_path / "cell.png")
    assert image(tmp_path / "cell.png", CellImageReader(in_channels=3)).tolist() == [COLUMNS_FIRST] * 3


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("pages", [1, 4])
def test_rgb_tiff_is_no_stack_of_three(tmp_path, planar, pages):
    rows = np.stack([ROWS, ROWS + 1, ROWS + 2], axis=0 if planar else -1)
    stack = np.stack([rows + page for page in range(pages)]) if pages > 1 else rows
    config = "separate" if planar else "contig"
    tifffile.imwrite(tmp_path / "rgb.tif", stack, photometric="rgb", planarconfig=config)
    assert count_pages(str(tmp_path / "rgb.tif")) == pages
    array = image(f"{tmp_path}/rgb.tif#{pages - 1}", CellImageReader(in_channels=3))
    assert array.tolist() == (np.array([COLUMNS_FIRST] * 3) + np.arange(3)[:, None, None] + pages - 1).tolist()
    if pages > 1:
        assert image(tmp_path / "rgb.tif", CellImageReader(3, in_channels=3)).shape == (3, 3, 2, pages)


@pytest.mark.parametrize(
    "options",
    [
        {"photometric": "minisblack"},
        {"photometric": "minisblack", "metadata": None, "compression": "lzw"},
        {"imagej": True, "metadata": {"axes": "TYX"}},
        {"photometric": "minisblack", "truncate": True},  # one directory entry for all pages, as ImageJ above 4 GB
    ],
)
def test_stack_of_pages(tmp_path, options):
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([ROWS, ROWS + 1, ROWS + 2]), **options)
    assert count_pages(str(tmp_path / "stack.tif")) == 3
    for page in range(3):
        array, meta = read(f"{tmp_path}/stack.tif#{page}")
        assert array.tolist() == (np.array([COLUMNS_FIRST]) + page).tolist()
        assert (meta["page"], meta["num_pages"]) == (page, 3)
        assert meta["filename_or_obj"].endswith(f"stack.tif#{page}")
    volume, meta = read(tmp_path / "stack.tif", CellImageReader(spatial_dims=3))
    assert volume.shape == (1, 3, 2, 3)
    assert volume[0, 2, 1].tolist() == [60, 61, 62]
    assert (meta["page"], meta["num_pages"], meta["affine"].shape) == (0, 1, (4, 4))


def test_nifti_keeps_axes_and_affine(tmp_path):
    volume = np.arange(24, dtype=np.int16).reshape(2, 3, 4) - 5
    nibabel.save(nibabel.Nifti1Image(volume[..., None], ODD_AFFINE), tmp_path / "brain.nii.gz")
    array, meta = read(tmp_path / "brain.nii.gz", CellImageReader(spatial_dims=3))
    assert array.tolist() == [volume.tolist()]
    assert meta["affine"].tolist() == ODD_AFFINE.tolist()
    nibabel.save(nibabel.Nifti1Image(volume[:, :, :1], ODD_AFFINE), tmp_path / "slice.nii")
    assert image(tmp_path / "slice.nii").tolist() == [volume[:, :, 0].tolist()]


def test_a_real_file_wins_over_a_page(tmp_path):
    address = str(tmp_path / "a.tif#1")
    assert split_page(address) == (str(tmp_path / "a.tif"), 1)
    (tmp_path / "a.tif#1").touch()
    assert split_page(address) == (address, None)


def test_names():
    assert image_stem("/x/a.b.nii.gz") == "a.b"
    assert [output_name(name) for name in ("/x/A.BMP", "x.TIFF", "x.nii")] == ["A.png", "x.tif", "x.nii"]
    with pytest.raises(ValueError, match=r"file name must end in one of .*\.png.*, got 'a.czi'"):
        split_suffix("a.czi")


def tiff(path, array, **options):
    tifffile.imwrite(path, array, **{"photometric": "minisblack", **options})


@pytest.mark.parametrize(
    ("write", "address", "reader", "message"),
    [
        (lambda p: tiff(p / "a.tif", np.stack([ROWS] * 3)), "a.tif", CellImageReader(), r"a.tif#0 to #2.*\(3, 2, 3\)"),
        (lambda p: tiff(p / "a.tif", np.stack([ROWS] * 3)), "a.tif#3", CellImageReader(), "one of its 3 pages.*got #3"),
        (lambda p: tiff(p / "a.tif", np.stack([ROWS] * 3)), "a.tif#1", CellImageReader(3), "and in 2-D, got #1"),
        (lambda p: tiff(p / "a.tif", ROWS), "a.tif", CellImageReader(3), r"a.tif must have 3 spatial axes.*\(2, 3\)"),
        (
            lambda p: tifffile.imwrite(p / "a.tif", np.stack([ROWS] * 2), imagej=True, metadata={"axes": "CYX"}),
            "a.tif#0",
            CellImageReader(),
            r"a.tif must hold grey or RGB pictures.*got axes CYX of shape \(2, 2, 3\)",
        ),
        (lambda p: tiff(p / "a.tif", np.zeros((4, 5, 6)), planarconfig="separate"), "a.tif", CellImageReader(), "RGB"),
        (
            lambda p: tifffile.imwrite(
                p / "a.tif", np.zeros((2, 3, 4, 5), "u1"), imagej=True, metadata={"axes": "TZYX"}
            ),
            "a.tif",
            CellImageReader(3),
            "must be one volume, got axes TZYX",
        ),
        (lambda p: tiff(p / "a.tif", np.float32([[1, np.nan]])), "a.tif", CellImageReader(), "finite numbers"),
        (
            lambda p: tiff(p / "a.tif", np.complex64([[1, 2]])),
            "a.tif",
            CellImageReader(),
            "real numbers, got complex64",
        ),
        (
            lambda p: tiff(p / "a.tif", np.zeros((5, 6, 5)), photometric="rgb"),
            "a.tif",
            CellImageReader(),
            "grey or RGB",
        ),
        (lambda p: (p / "a.tif").write_text("no"), "a.tif", CellImageReader(), "a.tif must be a readable image file"),
        (lambda p: (p / "a.png").write_text("no"), "a.png", CellImageReader(), "a.png must be a readable image file"),
        (lambda p: (p / "a.nii").write_text("no"), "a.nii", CellImageReader(), "a.nii must be a readable image file"),
        (lambda p: (p / "a.czi").write_text("no"), "a.czi", CellImageReader(), "file name must end in one of"),
        (
            lambda p: nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6, 2)), np.eye(4)), p / "a.nii"),
            "a.nii",
            CellImageReader(3),
            r"a.nii must have 3 spatial axes.*\(4, 5, 6, 2\)",
        ),
    ],
)
def test_refused_files(tmp_path, write, address, reader, message):
    write(tmp_path)
    with pytest.raises(ValueError, match=message):
        image(tmp_path / address, reader)


def test_pages_of_different_shapes_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(ROWS, photometric="minisblack", metadata=None)
        writer.write(ROWS.T, photometric="minisblack", metadata=None)
    with pytest.raises(ValueError, match="pages of one shape and type, got 2 different ones"):
        count_pages(str(tmp_path / "a.tif"))


def test_reader_arguments(tmp_path):
    with pytest.raises(ValueError, match="spatial_dims must be 2 or 3, got 1"):
        LabelReader(spatial_dims=1)
    with pytest.raises(ValueError, match=r"in_channels must be 1 .* or 3 .*, got 2"):
        CellImageReader(in_channels=2)
    with pytest.raises(ValueError, match="data must be one file, got 2"):
        CellImageReader().read(["a.png", "b.png"])
    with pytest.raises(TypeError, match=r"without options, got \['mode'\]"):
        CellImageReader().read("a.png", mode="L")
    with pytest.raises(FileNotFoundError, match=r"image file must exist, got .*a\.png"):
        CellImageReader().read(tmp_path / "a.png")
    assert CellImageReader().verify_suffix(["a.png", "b.TIF#3"])
    assert not CellImageReader().verify_suffix("a.czi")


def labels(tmp_path, rows, reader=None):
    tiff(tmp_path / "label.tif", np.asarray(rows))
    return image(tmp_path / "label.tif", reader or LabelReader())[0].T


def test_instances_stay_as_they_are(tmp_path):
    label = labels(tmp_path, np.uint16([[5, 0, 300], [5, 5, 300]]))
    assert label.dtype == np.int32
    assert label.tolist() == [[5, 0, 300], [5, 5, 300]]
    assert labels(tmp_path, np.float32([[5, 0, 300]])).tolist() == [[5, 0, 300]]


def test_one_value_becomes_4_connected_components_and_is_logged_once(tmp_path, caplog):
    binary = np.uint8([[255, 0, 255], [0, 255, 255]])
    reader = LabelReader()
    for _ in range(2):
        assert labels(tmp_path, binary, reader).tolist() == [[1, 0, 2], [0, 2, 2]]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "label.tif holds one value (255) besides the background: its 4-connected" in caplog.text
    labels(tmp_path, binary, pickle.loads(pickle.dumps(reader)))
    assert len(caplog.records) == 1
    labels(tmp_path, binary, LabelReader())
    assert len(caplog.records) == 2


def test_components_of_a_volume_are_6_connected(tmp_path):
    diagonal = np.zeros((2, 2, 2), dtype=np.uint8)
    diagonal[0, 0, 0] = diagonal[1, 1, 0] = diagonal[1, 1, 1] = 9
    tiff(tmp_path / "label.tif", diagonal)
    volume = image(tmp_path / "label.tif", LabelReader(spatial_dims=3))
    assert sorted(np.unique(volume, return_counts=True)[1]) == [1, 2, 5]


def test_ignored_pixels(tmp_path):
    rows = np.uint8([[255, 0, 7], [255, 3, 7]])
    assert labels(tmp_path, rows, LabelReader(ignore_label=255)).tolist() == [[-1, 0, 7], [-1, 3, 7]]
    assert labels(tmp_path, np.int16([[-1, 3, 4]]), LabelReader(ignore_label=-1)).tolist() == [[-1, 3, 4]]
    assert labels(tmp_path, rows, LabelReader(ignore_label=-1)).tolist() == rows.tolist()
    # Only one cell value remains beside the ignored one, which does not connect its parts.
    binary = labels(tmp_path, np.uint8([[9, 255, 9]]), LabelReader(ignore_label=255))
    assert binary.tolist() == [[1, IGNORE_LABEL, 2]]
    assert labels(tmp_path, np.uint8([[255, 255, 0]]), LabelReader(ignore_label=255)).tolist() == [[-1, -1, 0]]
    assert labels(tmp_path, np.uint8([[0, 0, 0]])).tolist() == [[0, 0, 0]]


def test_border_pixels_tell_cells_apart_and_go_to_the_nearest(tmp_path):
    rows = [[1, 1, 2, 2, 2, 2, 1, 0, 2], [1, 1, 2, 0, 0, 2, 1, 0, 0], [0, 0, 0, 0, 255, 1, 1, 1, 0]]
    found = labels(tmp_path, rows, LabelReader(ignore_label=255, border_label=2))
    # The border pixel at the end of the first row touches no cell.
    assert found.tolist() == [[1, 1, 1, 1, 2, 2, 2, 0, 0], [1, 1, 1, 0, 0, 2, 2, 0, 0], [0, 0, 0, 0, -1, 2, 2, 2, 0]]


@pytest.mark.parametrize("seed", range(4))
def test_classes_turn_back_into_the_cells_they_came_from(tmp_path, seed):
    cells = draw_cells(seed, (150, 200))[1]
    classes = cell_classes(cells, radius=2)
    assert (classes == 2).any(), "test invalid"
    found = labels(tmp_path, classes, LabelReader(border_label=2))
    merged = connected_components(classes > 0, connectivity=1)
    assert found.max() == len(np.unique(cells)) - 1 > merged.max()
    np.testing.assert_array_equal(found > 0, cells > 0)
    pairs = np.unique(np.stack([found, cells])[:, classes == 1], axis=1)
    assert pairs.shape[1] == found.max()


def test_a_border_value_means_nothing_in_lists_of_instances(tmp_path):
    np.save(tmp_path / "a_seg.npy", {"masks": np.array([[1, 2, 3]])})
    assert image(tmp_path / "a_seg.npy", LabelReader(border_label=2)).ravel().tolist() == [1, 2, 3]


def test_refused_classes(tmp_path):
    with pytest.raises(ValueError, match=r"one value besides 0 and the border_label 2, got 2 of them\."):
        labels(tmp_path, [[0, 1, 2, 3]], LabelReader(border_label=2))
    for border, ignore in ((0, None), (7, 7)):
        with pytest.raises(ValueError, match=rf"positive and differ from ignore_label \({ignore}\), got {border}\."):
            LabelReader(ignore_label=ignore, border_label=border)


def test_large_ids_become_compact(tmp_path):
    assert labels(tmp_path, np.uint32([[4_000_000_000, 0, 6, 2**24 + 1]])).tolist() == [[3, 0, 1, 2]]
    assert labels(tmp_path, np.uint32([[2**24, 0, 6]])).tolist() == [[2, 0, 1]]
    assert labels(tmp_path, np.uint32([[2**24 - 1, 0, 6]])).tolist() == [[2**24 - 1, 0, 6]]


def test_equal_channels_and_palettes_are_labels(tmp_path):
    ids = np.uint8([[0, 3, 4], [0, 3, 4]])
    Image.fromarray(np.stack([ids] * 3, axis=-1)).save(tmp_path / "rgb.png")
    assert image(tmp_path / "rgb.png", LabelReader())[0].T.tolist() == ids.tolist()
    indexed = Image.fromarray(ids).convert("P")
    indexed.putpalette([0, 0, 0, 9, 9, 9, 8, 8, 8, 200, 0, 0, 0, 100, 0])
    indexed.save(tmp_path / "palette.png")
    assert image(tmp_path / "palette.png", LabelReader())[0].T.tolist() == ids.tolist()
    assert image(tmp_path / "palette.png", CellImageReader(in_channels=3))[:, 1, 0].tolist() == [200, 0, 0]


def test_refused_labels(tmp_path):
    with pytest.raises(ValueError, match=r"label.tif must hold ids of at least 0 besides ignore_label, got -2"):
        labels(tmp_path, np.int16([[-2, 3, -1]]), LabelReader(ignore_label=-1))
    with pytest.raises(ValueError, match=r"must hold whole numbers, got 0\.5"):
        labels(tmp_path, np.float32([[0, 0.5]]))
    Image.fromarray(np.stack([ROWS, ROWS, ROWS + 1], axis=-1)).save(tmp_path / "rgb.png")
    with pytest.raises(ValueError, match=r"rgb.png must have equal channels, .* \(3, 3, 2\)"):
        image(tmp_path / "rgb.png", LabelReader())
    Image.fromarray(ROWS).save(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="must be of a lossless kind"):
        image(tmp_path / "a.jpg", LabelReader())


@pytest.mark.parametrize("name", ["cell.png", "cell.tif", "cell.tiff", "cell.nii", "cell.nii.gz"])
def test_instances_round_trip(tmp_path, name):
    instances = np.array([[0, 1], [2, 2], [0, 65_535]])
    write_instances(tmp_path / name, instances)
    assert image(tmp_path / name, LabelReader())[0].tolist() == instances.tolist()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_written_rows_are_y(tmp_path):
    instances = np.array([[0, 1], [2, 2], [0, 3]])
    for name in ("cell.png", "cell.tif"):
        write_instances(tmp_path / name, instances)
    with Image.open(tmp_path / "cell.png") as png:
        assert np.asarray(png).tolist() == [[0, 2, 0], [1, 2, 3]]
    with tifffile.TiffFile(tmp_path / "cell.tif") as tif:
        assert tif.asarray().tolist() == [[0, 2, 0], [1, 2, 3]]
        assert (tif.asarray().dtype, tif.pages[0].compression) == (np.uint16, tifffile.COMPRESSION.ADOBE_DEFLATE)


def test_ids_above_uint16(tmp_path):
    instances = np.array([[0, 1], [70_000, 2], [0, 3]])
    for name in ("cell.tif", "cell.nii.gz"):
        write_instances(tmp_path / name, instances)
        assert image(tmp_path / name).dtype == np.uint32
        assert image(tmp_path / name)[0].tolist() == instances.tolist()
    with pytest.raises(ValueError, match=r"at most 65535 in PNG \(use TIFF\), got 70000"):
        write_instances(tmp_path / "cell.png", instances)


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2)])
def test_nifti_round_trip_keeps_the_affine(tmp_path, shape):
    instances = np.arange(np.prod(shape)).reshape(shape)
    write_instances(tmp_path / "a.nii.gz", instances, affine=ODD_AFFINE)
    array, meta = read(tmp_path / "a.nii.gz", LabelReader(spatial_dims=len(shape)))
    assert array[0].tolist() == instances.tolist()
    assert meta["affine"].tolist() == ODD_AFFINE.tolist()


def test_tiff_volume_round_trip(tmp_path):
    instances = np.arange(24).reshape(4, 3, 2)
    write_instances(tmp_path / "a.tif", instances)
    assert tifffile.imread(tmp_path / "a.tif").shape == (2, 3, 4)
    assert image(tmp_path / "a.tif", LabelReader(spatial_dims=3))[0].tolist() == instances.tolist()


def test_stack_appears_with_its_last_page(tmp_path):
    path = tmp_path / "stack.tif"
    pages = [np.array([[1, 2], [3, 4], [5, largest]]) for largest in (6, 70_000, 8)]
    write_instances(path, pages[0], page=(0, 3))  # of a run that stopped here: page 0 starts anew
    for page in range(3):
        assert not path.exists()
        write_instances(path, pages[page], page=(page, 3))
    assert [file.name for file in tmp_path.iterdir()] == ["stack.tif"]
    for page in range(3):
        assert image(f"{path}#{page}", LabelReader())[0].tolist() == pages[page].tolist()


def test_pages_come_in_order(tmp_path):
    with pytest.raises(RuntimeError, match=r"page must follow the 0 pages written to .*, got 1"):
        write_instances(tmp_path / "a.tif", ROWS, page=(1, 3))
    write_instances(tmp_path / "a.tif", ROWS, page=(0, 3))
    with pytest.raises(RuntimeError, match=r"page must follow the 1 pages written to .*, got 2"):
        write_instances(tmp_path / "a.tif", ROWS, page=(2, 3))


@pytest.mark.parametrize(
    ("name", "instances", "page", "message"),
    [
        ("a.jpg", ROWS, None, r"path must end in .png, .tif, .tiff, .nii or .nii.gz, got .jpg"),
        ("a.png", ROWS[None], None, r"integers \(X, Y\), got uint8 of shape \(1, 2, 3\)"),
        ("a.tif", ROWS[0], None, r"integers \(X, Y\[, Z\]\), got uint8 of shape \(3,\)"),
        ("a.tif", ROWS * 1.0, None, r"integers \(X, Y\[, Z\]\), got float64"),
        ("a.tif", np.array([[-1, 2]]), None, "at least 0, got -1"),
        ("a.png", ROWS, (0, 2), r"page must be \(i, n\), i < n, of a 2-D TIFF stack, got \(0, 2\) of a.png"),
        ("a.tif", ROWS, (2, 2), r"page must be \(i, n\), .* got \(2, 2\) of a.tif"),
        ("a.tif", ROWS[None], (0, 2), r"page must be \(i, n\)"),
    ],
)
def test_refused_instances(tmp_path, name, instances, page, message):
    with pytest.raises(ValueError, match=message):
        write_instances(tmp_path / name, instances, page=page)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("reader", [CellImageReader(3, in_channels=3), LabelReader(2, ignore_label=255)])
def test_readers_are_picklable(reader):
    assert vars(pickle.loads(pickle.dumps(reader))) == vars(reader)
