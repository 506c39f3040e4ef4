from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from monai.transforms import ScaleIntensityRangePercentiles
from unet_monai.data import LabelReader
from unet_monai.large_images import PairReader
from unet_monai.large_images.block_grid import Block, block_grid
from unet_monai.large_images.lazy_image import PixelGrid
from unet_monai.large_images.lazy_pairs import count_blocks, find_lazy_pairs, numbered_block

from tests.drawings import draw
from tests.large_images.pairs import random_pair, write_tiff, write_zarr

WHOLE = Block((0, 0), (60, 70))


def written(folder: Path, label: np.ndarray, image: np.ndarray | None = None) -> dict[str, str]:
    image = np.arange(label.size, dtype=np.uint16).reshape(label.shape) if image is None else image
    return {"image": str(write_tiff(folder / "a.tif", image)), "label": str(write_tiff(folder / "b.tif", label))}


class TestFindLazyPairs:
    def test_files_and_folders_of_one_name(self, tmp_path: Path) -> None:
        for name in ("images/b.ome.tif", "images/a.zarr", "images/.c.tif", "labels/a.ome.zarr", "labels/b.tiff"):
            (tmp_path / name).mkdir(parents=True)
        found = [
            [Path(pair[key]).relative_to(tmp_path).as_posix() for key in pair] for pair in find_lazy_pairs(tmp_path)
        ]
        assert found == [["images/a.zarr", "labels/a.ome.zarr"], ["images/b.ome.tif", "labels/b.tiff"]]

    def test_missing_partners(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"dataset_dir must hold images/ and labels/, got no .*images"):
            find_lazy_pairs(tmp_path)
        (tmp_path / "images").mkdir()
        (tmp_path / "labels").mkdir()
        with pytest.raises(FileNotFoundError, match=r"images must hold TIFF, Zarr or NIfTI images, got none\."):
            find_lazy_pairs(tmp_path)
        for name in ("images/a.tif", "labels/a.tif", "labels/b.zarr"):
            (tmp_path / name).touch()
        with pytest.raises(FileNotFoundError, match=r"every image .* must have a label .*, got b\.zarr alone\."):
            find_lazy_pairs(tmp_path)
        (tmp_path / "images" / "a.nii").touch()
        with pytest.raises(ValueError, match=r"images must hold one file of each name, got a\.nii and a\.tif\."):
            find_lazy_pairs(tmp_path)


@pytest.mark.parametrize("box", [Block((0, 0), (1300, 512)), Block((7, 3), (519, 900)), Block((0,) * 3, (65, 64, 200))])
def test_numbered_blocks_are_those_of_the_grid(box: Block) -> None:
    grid = block_grid(box.shape, [{2: 512, 3: 64}[len(box.start)]] * len(box.start))
    shifted = [
        Block(*(tuple(np.add(corner, box.start).tolist()) for corner in (block.start, block.stop)))
        for block in grid.values()
    ]
    assert [numbered_block(box, number) for number in range(count_blocks(box))] == shifted


class TestLabels:
    @pytest.mark.parametrize("ids", [(1, 7, 300), (5,), (1, 2**24 - 1), (9, 2**24 + 1, 2**31)])
    def test_instances_are_those_in_memory(self, tmp_path: Path, ids: tuple[int, ...]) -> None:
        """Many ids, one value for all cells, and ids that float32 does not tell apart."""
        label = np.array([0, 255, *ids], np.uint32)[np.random.default_rng(0).integers(0, len(ids) + 2, (60, 70))]
        pair = written(tmp_path, label)
        reader = LabelReader(ignore_label=255)
        expected, _ = reader.get_data(reader.read(pair["label"]))
        np.testing.assert_array_equal(PairReader(ignore_label=255).read_label(pair, WHOLE), expected)

    def test_one_cell_of_several_pieces_stays_one_in_a_window(self, tmp_path: Path) -> None:
        """The window holds one value, the file two: its values are instances."""
        label = np.zeros((60, 70), np.uint16)
        label[2, [2, 6]], label[50, 50] = 4, 8
        assert PairReader().read_label(written(tmp_path, label), Block((2, 1), (3, 8))).tolist() == [
            [[0, 4, 0, 0, 0, 4, 0]]
        ]

    def test_background_without_cells_counts_where_the_file_tells_what_is_annotated(self, tmp_path: Path) -> None:
        label = np.zeros((1030, 70), np.uint16)
        label[3:5, 3:5] = 1
        pair = written(tmp_path, label)
        assert PairReader().places(pair).tolist() == [[0], [4], [512 * 70 - 4]]
        label[600:] = 9
        pair = written(tmp_path, label)
        assert PairReader(ignore_label=9).places(pair).tolist() == [[0, 1], [4, 0], [512 * 70 - 4, 88 * 70]]

    def test_nifti_says_where_a_smaller_label_lies(self, tmp_path: Path) -> None:
        image, label = random_pair(0, 40, 30, 20)
        affine = np.diag([0.5, 0.5, 2.0, 1.0])
        nibabel.save(nibabel.Nifti1Image(image, affine), tmp_path / "a.nii")
        affine[:3, 3] = 5, 0, 4
        nibabel.save(nibabel.Nifti1Image(label[10:30, :, 2:9], affine), tmp_path / "b.nii")
        pair = {"image": str(tmp_path / "a.nii"), "label": str(tmp_path / "b.nii")}
        found = PairReader(spatial_dims=3).read_ids(pair, Block((0, 0, 0), (40, 30, 20)))
        expected = np.full((40, 30, 20), -1)
        expected[10:30, :, 2:9] = label[10:30, :, 2:9]
        np.testing.assert_array_equal(found, expected)

    def test_margin(self, tmp_path: Path) -> None:
        label = draw(
            """
            .....
            .11..
            1....
            ....2
            """
        )
        found = PairReader(margin=1).read_ids(written(tmp_path, label.astype(np.uint8)), Block((0, 0), (4, 4)))
        expected = draw(
            """
            ????
            ?11.
            1...
            ????
            """
        )
        np.testing.assert_array_equal(found, expected)


def test_images_are_normalised_by_the_whole_file(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 60000, (60, 70, 3)).astype(np.uint16)
    label = np.eye(60, 70, dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image.transpose(1, 0, 2), tile=(16, 16), photometric="rgb")
    pair = {"image": str(tmp_path / "a.tif"), "label": str(write_tiff(tmp_path / "b.tif", label))}
    normalise = ScaleIntensityRangePercentiles(lower=1, upper=99.8, b_min=0, b_max=1, channel_wise=True)
    expected = normalise(np.moveaxis(image.astype(np.float32), -1, 0))[:, 5:20, 30:44]
    found = PairReader(in_channels=3).read_image(pair, Block((5, 30), (20, 44)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


class TestErrors:
    def test_labels_of_another_size_must_say_where_they_lie(self, tmp_path: Path) -> None:
        image, label = random_pair(0, 60, 70)
        pair = written(tmp_path, label[:50], image)
        with pytest.raises(
            ValueError, match=r"b\.tif must have the size of .*a\.tif, \(60, 70\) \(columns first\), or a"
        ):
            PairReader().open(pair)

    @pytest.mark.parametrize(
        "grid",
        [
            None,
            PixelGrid((1.0, 1.0), (0.0, 0.0), "micrometer"),  # no translation
            PixelGrid((1.0, 1.0), (11.0, 0.0), "micrometer"),  # leaves the image
            PixelGrid((1.0, 1.0), (-1.0, 0.0), "micrometer"),
            PixelGrid((1.0, 1.0), (2.5, 0.0), "micrometer"),  # between pixels
            PixelGrid((2.0, 2.0), (4.0, 0.0), "micrometer"),
            PixelGrid((1.0, 1.0), (4.0, 0.0), "nanometer"),
        ],
    )
    def test_translations_that_do_not_fit(self, tmp_path: Path, grid: PixelGrid | None) -> None:
        image, label = random_pair(0, 60, 70)
        image_grid = PixelGrid((1.0, 1.0), (0.0, 0.0), "micrometer")
        files = (write_zarr(tmp_path / "a.zarr", image, image_grid), write_zarr(tmp_path / "b.zarr", label[:50], grid))
        with pytest.raises(ValueError, match=r"b\.zarr must have the size of .*, or a translation"):
            PairReader().open(dict(zip(("image", "label"), map(str, files), strict=True)))

    def test_compressed_nifti(self, tmp_path: Path) -> None:
        pair = written(tmp_path, np.eye(60, 70, dtype=np.uint8))
        nibabel.save(nibabel.Nifti1Image(np.zeros((60, 70)), np.eye(4)), tmp_path / "a.nii.gz")
        with pytest.raises(ValueError, match=r"a\.nii\.gz must not be compressed to be read by windows"):
            PairReader().open({**pair, "image": str(tmp_path / "a.nii.gz")})

    def test_no_cell(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"label map .*b\.tif must hold at least one cell, got none\."):
            PairReader().scan(written(tmp_path, np.zeros((60, 70), np.uint8)))

    def test_numbers_that_are_no_ids(self, tmp_path: Path) -> None:
        label = np.zeros((60, 70), np.float32)
        label[9, 9] = 1.5
        with pytest.raises(ValueError, match=r"label map .*b\.tif must hold whole numbers, got 1\.5\."):
            PairReader().scan(written(tmp_path, label))
        label[9, 9] = -2
        with pytest.raises(ValueError, match=r"b\.tif must hold ids of at least 0 besides ignore_label, got -2\."):
            PairReader().scan(written(tmp_path / "negative", label))
        assert PairReader(ignore_label=-2).read_ids(written(tmp_path / "ignored", label), WHOLE)[9, 9] == -1

    def test_arguments(self) -> None:
        with pytest.raises(ValueError, match=r"border_label must be None .*, got 2\."):
            PairReader(border_label=2)
        with pytest.raises(ValueError, match=r"margin must be at least 0, got -1\."):
            PairReader(margin=-1)
