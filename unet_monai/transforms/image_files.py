"""Image files at both ends of a pipeline: load a cell image or label map, save instances."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.config import DtypeLike, KeysCollection
from monai.data import ImageReader, MetaTensor
from monai.transforms import LoadImaged, MapTransform, SaveImaged
from unet_monai.data.image_formats import split_page
from unet_monai.data.image_io import NIFTI_SUFFIXES, output_name, write_instances


class LoadCellImaged(LoadImaged):
    """Load files by one given reader into MetaTensors (C, X, Y[, Z]).

    Differs from `LoadImaged` in that no other reader is tried when the given one refuses a file: its error reaches the
    user. Images that were loaded before, such as the one that a label belongs to, must have the same size. MONAI Label
    wants a `LoadImaged` as the first transform.

    Args:
        keys: keys of the addresses of image files (see `unet_monai.data.image_formats.split_page`).
        reader: a `CellImageReader` or `LabelReader`.
        dtype: type of the loaded arrays; "int32" for labels.
        allow_missing_keys: whether keys may be absent.

    Raises:
        TypeError: if `reader` is no `ImageReader` object.
        ValueError: in a call, as the reader does, and naming both files if they differ in size.

    Example:
        >>> import tempfile
        >>> from unet_monai.data.image_io import LabelReader
        >>> load = LoadCellImaged("label", LabelReader(), dtype="int32")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_instances(f"{folder}/cell.png", np.array([[1, 0], [1, 2], [0, 2]]))
        ...     label = load({"label": f"{folder}/cell.png"})["label"]
        >>> label.shape, label.dtype, Path(label.meta["filename_or_obj"]).name
        (torch.Size([1, 3, 2]), torch.int32, 'cell.png')
    """

    def __init__(
        self, keys: KeysCollection, reader: ImageReader, dtype: DtypeLike = np.float32, allow_missing_keys: bool = False
    ) -> None:
        if not isinstance(reader, ImageReader):
            raise TypeError(f"reader must be an ImageReader object, got {reader!r}.")
        super().__init__(
            keys,
            dtype=np.dtype(dtype),
            ensure_channel_first=True,
            image_only=True,
            allow_missing_keys=allow_missing_keys,
        )
        self.reader = reader

    def __call__(self, data: Mapping[Hashable, Any], reader: ImageReader | None = None) -> dict[Hashable, Any]:
        """Load the files of all keys, by `reader` in place of the constructor's if it is given."""
        loaded = super().__call__(data, self.reader if reader is None else reader)
        images = [
            image for image in loaded.values() if isinstance(image, MetaTensor) and "filename_or_obj" in image.meta
        ]
        for image in images[1:]:
            if image.shape[1:] != images[0].shape[1:]:
                names = [str(one.meta["filename_or_obj"]) for one in (image, images[0])]
                raise ValueError(
                    f"{names[0]} must have the size of {names[1]}, {tuple(images[0].shape[1:])} (columns first), "
                    f"got {tuple(image.shape[1:])}."
                )
        return loaded


class Result(NamedTuple):
    """What a network found in one image: `instances` (X, Y[, Z]) on the CPU, and the image that they were found in."""

    instances: np.ndarray
    affine: np.ndarray
    address: str
    page: int
    num_pages: int


class SaveResultd(SaveImaged):
    """What the writers of results share: one file for each image file, under its name, from the instances found in it.

    They are `SaveImaged`s because MONAI Label leaves those out of its pipelines and writes results itself. The pages of
    a stack come in order from the first to the last. The data is returned unchanged.

    Args:
        keys: keys of instances (1, X, Y[, Z]): MetaTensors with the `filename_or_obj`, `page` and `num_pages` that the
            readers give.
        output_dir: folder to write to; created with the first file.
        allow_missing_keys: whether keys may be absent.

    Raises:
        ValueError: for data without these metadata or of another shape, when a second image would overwrite the
            results of a first of the same name, and when a result would overwrite its image.
    """

    def __init__(self, keys: KeysCollection, output_dir: str | Path, allow_missing_keys: bool = False) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)  # SaveImaged's own would build writers never used
        self.output_dir = Path(output_dir)
        self._written: dict[str, str] = {}

    def set_options(self, *args: Any, **kwargs: Any) -> None:
        """Refuse the writer options of `SaveImaged`: there are none.

        Raises:
            TypeError: always.
        """
        raise TypeError(f"{type(self).__name__} must be used without writer options, got a call of set_options.")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the results of all keys."""
        for key in self.key_iterator(dict(data)):
            result = self._result(data[key], key)
            path = self.output_dir / self.file_name(result.address)
            source = split_page(result.address)[0] if result.num_pages > 1 else result.address
            if self._written.setdefault(path.name, source) != source:
                first = self._written[path.name]
                raise ValueError(f"images must have different names, got {first} and {source} for {path.name}.")
            if path.resolve() == Path(source).resolve():
                raise ValueError(f"output_dir must be another folder than the images', got {self.output_dir}.")
            self.output_dir.mkdir(parents=True, exist_ok=True)
            self.write(path, result, data)
        return dict(data)

    def file_name(self, address: str) -> str:
        """Return the name of the file for the image at an address."""
        raise NotImplementedError

    def write(self, path: Path, result: Result, data: Mapping[Hashable, Any]) -> None:
        """Write one result, of a stack one page of it."""
        raise NotImplementedError

    def _result(self, instances: Any, key: Hashable) -> Result:
        if not isinstance(instances, MetaTensor) or not {"filename_or_obj", "page", "num_pages"} <= set(instances.meta):
            raise ValueError(
                f"{key} must be a MetaTensor with filename_or_obj, page and num_pages, got {type(instances)}."
            )
        if instances.ndim not in (3, 4) or len(instances) != 1:
            raise ValueError(f"{key} must have the shape (1, X, Y[, Z]), got {tuple(instances.shape)}.")
        address, page, pages = (instances.meta[name] for name in ("filename_or_obj", "page", "num_pages"))
        array = instances.as_tensor().cpu().numpy()[0]
        return Result(array, instances.affine.cpu().numpy(), str(address), int(page), int(pages))


class SaveInstancesd(SaveResultd):
    """Write instances (1, X, Y[, Z]) to `output_dir` under their image's name, in a kind of file that holds instances.

    See `unet_monai.data.image_io.output_name` and `write_instances`: PNG, JPEG and BMP become `<stem>.png`, TIFF and
    NIfTI keep their kind, and NIfTI its affine. The pages of a stack become one stack. For the arguments see
    `SaveResultd`.

    Example:
        >>> import tempfile, torch
        >>> meta = {"filename_or_obj": "/data/cell.jpg", "page": 0, "num_pages": 1}
        >>> instances = MetaTensor(torch.tensor([[[0, 1], [0, 1], [2, 2]]]), meta=meta)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = SaveInstancesd("pred", folder)({"pred": instances})
        ...     [path.name for path in Path(folder).iterdir()]
        ['cell.png']
    """

    def file_name(self, address: str) -> str:
        """Return the image's name with the suffix of a kind that holds instances."""
        return output_name(address)

    def write(self, path: Path, result: Result, data: Mapping[Hashable, Any]) -> None:
        """Write the label map, or a page of it."""
        write_instances(
            path,
            result.instances,
            affine=result.affine if path.name.endswith(NIFTI_SUFFIXES) else None,
            page=(result.page, result.num_pages) if result.num_pages > 1 else None,
        )
