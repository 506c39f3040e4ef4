"""The real server of MONAI Label with the packed bundle, used as its clients use it.

It runs where `UNET_MONAI_LABEL_VENV` names an environment made by `monai_label/set_up.py`.
"""

from __future__ import annotations

import hashlib
import http.client
import importlib
import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
import torch
from monai.transforms import ScaleIntensityRangePercentiles
from PIL import Image
from scipy import ndimage
from skimage.draw import polygon2mask
from unet_monai import segment
from unet_monai.data import LabelReader, draw_cells, median_cell_diameter
from unet_monai.inferers import OverlapTileInferer, RescalingInferer
from unet_monai.networks import ValidUNet
from unet_monai.transforms.cell_classes import CELL, TOUCHING, cell_classes

from tests.bundle.conftest import REPOSITORY

VENV = os.environ.get("UNET_MONAI_LABEL_VENV", "")
pytestmark = pytest.mark.skipif(
    not VENV, reason="NOT RUN: UNET_MONAI_LABEL_VENV names no environment made by monai_label/set_up.py"
)

WEIGHTS = REPOSITORY / "bundle" / "weights" / "nuclei.pt"
NAME = "cell_unet_segmentation"
SIZE = (120, 164)  # rows, columns
IMAGES = ("a.png", "b.png", "c.png", "deep.png", "stack.tif")
MINUTES = 60
# ITK, with which 3D Slicer writes: a volume of one slice with the picture's geometry.
AS_SLICER = """
import sys, numpy as np, SimpleITK as sitk
picture, array, target = sys.argv[1:]
label = sitk.GetImageFromArray(np.load(array)[None])
label.CopyInformation(sitk.JoinSeries(sitk.ReadImage(picture)))
sitk.WriteImage(label, target)
"""


class Client:
    """What a client asks of the server."""

    def __init__(self, port: int, app: Path, studies: Path) -> None:
        self.url, self.app, self.studies = f"http://127.0.0.1:{port}", app, studies

    def request(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> bytes:
        headers = {"Content-Type": kind} if body else {}
        request = urllib.request.Request(self.url + path, body or None, headers, method=method)
        with urllib.request.urlopen(request, timeout=20 * MINUTES) as answer:
            return answer.read()

    def info(self) -> dict[str, Any]:
        return json.loads(self.request("GET", "/info/"))

    def infer(self, model: str, image: str) -> np.ndarray:
        """Return the label image (rows, columns) that the server gives for an image of its folder."""
        path = f"/infer/{model}?image={Path(image).stem}&output=image"
        content = self.request("POST", path, *form({"params": ("", b'{"device": "cpu"}')}))
        return tifffile.imread(io.BytesIO(content)) if image.endswith(".tif") else np.asarray(picture(content))

    def region(self, path: str, body: bytes, kind: str = "") -> tuple[int, str]:
        """Ask for a region's polygons, without a content type unless one is given: status and answer."""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=20 * MINUTES)
        connection.request("POST", f"/infer/{path}", body, {"Content-Type": kind} if kind else {})
        answer = connection.getresponse()
        content = answer.read().decode()
        connection.close()
        return answer.status, content

    def submit(self, image: str, label: Path) -> None:
        path = f"/datastore/label?image={Path(image).stem}&tag=final"
        self.request("PUT", path, *form({"label": (label.name, label.read_bytes())}))

    def train(self, model: str) -> None:
        """Train as 3D Slicer does: send all settings listed, of a choice the first one, and ask until it is over."""
        config = self.info()["trainers"][model]["config"]
        settings = {name: value[0] if isinstance(value, list) else value for name, value in config.items()}
        settings |= {"max_epochs": 1, "steps_per_epoch": 2, "val_interval": 1, "tile_size": 204, "val_split": 0.34}
        task = json.loads(self.request("POST", f"/train/{model}", json.dumps(settings).encode()))
        deadline = time.monotonic() + 10 * MINUTES
        while task["status"] in ("SUBMITTED", "RUNNING") and time.monotonic() < deadline:
            time.sleep(1)
            task = json.loads(self.request("GET", "/train/"))
        assert task["status"] == "DONE", task

    def next_image(self, strategy: str) -> str:
        return self.next_sample(strategy)["id"]

    def next_sample(self, strategy: str) -> dict[str, Any]:
        return json.loads(self.request("POST", f"/activelearning/{strategy}", b'{"device": "cpu"}'))

    @property
    def weights(self) -> Path:
        return self.app / "model" / NAME / "models" / "model.pt"


def picture(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def form(fields: dict[str, tuple[str, bytes]]) -> tuple[bytes, str]:
    """Encode fields of (file name or nothing, content) as a form with files."""
    boundary = uuid.uuid4().hex
    body = b""
    for name, (file, content) in fields.items():
        of_file = f'; filename="{file}"' if file else ""
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{of_file}\r\n\r\n'.encode()
        body += content + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def read_image(path: Path) -> np.ndarray:
    return tifffile.imread(path) if path.suffix == ".tif" else np.asarray(Image.open(path))


def drawn(image: str) -> tuple[np.ndarray, np.ndarray]:
    """Draw bright nuclei, as the shipped weights know them, and their instances, rows first."""
    seed = IMAGES.index(image)
    cells = draw_cells(seed, SIZE)[1]
    bright = ndimage.gaussian_filter(100.0 * (cell_classes(cells, radius=1) == CELL), sigma=1)
    noise = np.random.default_rng(seed).normal(0, 2, SIZE)
    return np.rint(20 + bright + noise).clip(0, 255).astype(np.uint8), cells


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("monai label")
    studies, app = folder / "images", folder / "app"
    studies.mkdir()
    for name in IMAGES:
        image = drawn(name)[0]
        if name == "deep.png":
            image = image.astype(np.uint16) * 200 + 300
        if name.endswith(".tif"):
            tifffile.imwrite(studies / name, image)
        else:
            Image.fromarray(image).save(studies / name)
    scripts = [[sys.executable, str(REPOSITORY / "monai_label" / name)] for name in ("set_up.py", "start.py")]
    places = ["--venv", VENV, "--app", str(app)]
    subprocess.run([*scripts[0], *places, "--weights", str(WEIGHTS)], check=True, cwd=REPOSITORY)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with open(folder / "server.log", "w") as log:
        server = subprocess.Popen(
            [*scripts[1], *places, "--studies", str(studies), "--port", str(port)], stdout=log, stderr=log
        )
    try:
        client = Client(port, app, studies)
        wait_for(client, server, folder / "server.log")
        yield client
    finally:
        server.terminate()
        server.wait(timeout=MINUTES)


def wait_for(client: Client, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 10 * MINUTES
    while time.monotonic() < deadline and server.poll() is None:
        try:
            client.info()
        except urllib.error.URLError:
            time.sleep(1)
        else:
            return
    raise AssertionError(log.read_text())


def test_only_this_machine_reaches_it(client: Client) -> None:
    port = int(client.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=MINUTES):
        pass
    with pytest.raises(ConnectionRefusedError):  # by another address of this machine, as by its network's
        socket.create_connection(("127.0.0.2", port), timeout=MINUTES)


def test_says_what_it_serves(client: Client) -> None:
    info = client.info()
    assert info["models"][NAME]["labels"] == {"cell": 1}
    assert info["models"][f"{NAME}_classes"]["labels"] == {"cell": 1, "border": 2}
    assert info["trainers"].keys() == info["models"].keys()
    assert info["trainers"][NAME]["config"]["steps_per_epoch"] == 30
    assert info["strategies"].keys() == {"first", "random", "uncertain_borders"}
    assert info["strategies"]["uncertain_borders"] == {
        "description": "The image with the most uncertain borders of cells"
    }
    assert info["datastore"]["total"] == len(IMAGES)


@pytest.mark.parametrize("image", ["a.png", "deep.png", "stack.tif"])
def test_segments_as_the_package_does(client: Client, image: str) -> None:
    found = client.infer(NAME, image)
    expected = segment(read_image(client.studies / image), WEIGHTS)
    assert expected.max() > 1, "test invalid"
    assert found.dtype == np.uint16
    assert found.shape == SIZE
    np.testing.assert_array_equal(found, expected)


def test_serves_background_cell_and_border(client: Client) -> None:
    expected = cell_classes(segment(read_image(client.studies / "b.png"), WEIGHTS), radius=2)
    assert set(np.unique(expected)) == {0, 1, 2}, "test invalid"
    np.testing.assert_array_equal(client.infer(f"{NAME}_classes", "b.png"), expected)


def uncertainty(path: Path, monkeypatch: pytest.MonkeyPatch) -> float:
    """Measure the borders of an image by the package's own parts, without a server."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "monai_label" / "app"))
    measure = importlib.import_module("uncertain_borders").border_uncertainty
    image = read_image(path)
    network = ValidUNet.from_state_dict(torch.load(WEIGHTS, weights_only=True)).eval()
    normalise = ScaleIntensityRangePercentiles(lower=1, upper=99.8, b_min=0, b_max=1)
    tiles = OverlapTileInferer(border=network.border, poolings=network.poolings)
    with torch.inference_mode():
        scores = RescalingInferer(tiles)(torch.as_tensor(normalise(image.T[None].astype(np.float32)))[None], network)
    return measure(scores[0].softmax(dim=0).numpy(), segment(image, WEIGHTS).T)


def test_next_image_has_the_most_uncertain_borders(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {Path(name).stem: uncertainty(client.studies / name, monkeypatch) for name in IMAGES}
    expected = max(measured, key=lambda name: measured[name])
    assert expected != "a", "test invalid: the first image would be chosen anyway"
    assert sorted(measured.values())[-2] < 0.99 * measured[expected], "test invalid"
    for _ in range(2):
        answer = client.next_sample("uncertain_borders")
        assert answer["id"] == expected
        assert answer["uncertainty"] == pytest.approx(measured[expected], rel=1e-4)


def as_qupath(location: tuple[int, ...], size: tuple[int, ...], **others: Any) -> bytes:
    """Write what QuPath's extension 0.3.1 asks, in pixels of the image, columns first."""
    asked = {"level": 0, "location": location, "size": size, "tile_size": (1024, 1024), "min_poly_area": 30}
    clicks: dict[str, Any] = {"foreground": [], "background": [], "max_workers": 1}
    return json.dumps(asked | {"params": clicks} | others).encode()


def check_polygons(polygons: list[list[list[float]]], corner: tuple[int, int], expected: np.ndarray) -> None:
    """Each polygon, moved back by the region's corner, holds the pixels of one cell, and each cell has one."""
    cells = [i for i, area in enumerate(np.bincount(expected.ravel())) if i and area >= 30]
    assert len(cells) > 3, "test invalid"
    assert ndimage.label(expected)[1] < len(cells), "test invalid: no cells touch"
    assert len(polygons) == len(cells)
    for i, polygon in zip(cells, polygons, strict=True):
        rows_first = (np.array(polygon) - corner)[:, ::-1] - 0.5  # from the corners of pixels to their centres
        mask = polygon2mask(expected.shape, rows_first)
        assert (mask & (expected == i)).sum() / (mask | (expected == i)).sum() >= 0.95


def polygons_of(xml: str) -> list[list[list[float]]]:
    """Read ASAP's XML as QuPath's extension does."""
    annotations = list(ET.fromstring(xml).iter("Annotation"))
    assert {(one.get("Name"), one.get("Type"), one.get("PartOfGroup")) for one in annotations} <= {
        ("cell", "Polygon", "cell")
    }
    return [[[float(at.attrib["X"]), float(at.attrib["Y"])] for at in one.iter("Coordinate")] for one in annotations]


@pytest.mark.parametrize("image", ["a.png", "deep.png", "stack.tif"])
def test_qupath_asks_for_a_region_of_an_image_of_the_server(client: Client, image: str) -> None:
    name, (x, y), (width, height) = Path(image).stem, (31, 7), (120, 97)
    client.request("HEAD", f"/datastore/image?image={name}")
    expected = segment(read_image(client.studies / image)[y : y + height, x : x + width], client.weights)
    body = as_qupath((x, y), (width, height))
    status, xml = client.region(f"wsi/{NAME}?output=asap&image={name}", body)
    assert status == 200, xml
    assert "cell" in client.info()["models"][NAME]["labels"]  # by which QuPath finds the cells to replace
    check_polygons(polygons_of(xml), (x, y), expected)
    status, text = client.region(f"wsi/{NAME}_classes?output=json&image={name}", body)
    (element,) = json.loads(text)["annotations"][0]["annotation"]["elements"]
    assert (status, element["label"]) == (200, "cell")
    check_polygons(element["contours"], (x, y), expected)
    status, text = client.region(f"wsi/{NAME}?output=dsa&image={name}", body)
    elements = json.loads(text)["elements"]
    assert {(element["group"], element["closed"]) for element in elements} == {("cell", True)}
    check_polygons([[point[:2] for point in element["points"]] for element in elements], (x, y), expected)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_qupath_sends_a_region_of_an_image_of_its_own(client: Client, mode: str) -> None:
    region = drawn("b.png")[0][5:110, 20:150]
    content = io.BytesIO()
    Image.fromarray(region).convert(mode).save(content, "PNG")
    fields = {"file": ("patch123.png", content.getvalue()), "wsi": ("", as_qupath((0, 0), (0, 0)))}
    status, xml = client.region(f"wsi_v2/{NAME}?output=asap", *form(fields))
    assert status == 200, xml
    check_polygons(polygons_of(xml), (0, 0), segment(region, client.weights))


def test_a_region_without_cells_as_large_as_asked_for_has_no_polygons(client: Client) -> None:
    for body in (as_qupath((0, 0), (1, 1)), as_qupath((0, 0), (0, 0), min_poly_area=SIZE[0] * SIZE[1])):
        status, xml = client.region(f"wsi/{NAME}?output=asap&image=a", body)
        assert status == 200, xml
        assert polygons_of(xml) == []


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        (f"wsi/{NAME}?image=a", as_qupath((100, 40), (65, 80)), 422, "region must lie in the image of 164 x 120, got"),
        (f"wsi/{NAME}?image=a", as_qupath((9, 9), (0, 0)), 422, "size must be at least 1 x 1, or 0 x 0 at 0, 0 for"),
        (f"wsi/{NAME}?image=a", as_qupath((0, 0), (9, 9), level=2), 422, "level must be 0, the image's own resolution"),
        (f"wsi/{NAME}?image=x", as_qupath((0, 0), (9, 9)), 404, "image must be one of the server's folder, got x."),
        ("wsi/other?image=a", as_qupath((0, 0), (9, 9)), 404, f"model must be one of {NAME}, {NAME}_classes, got"),
    ],
)
def test_refuses_what_is_not_there(client: Client, path: str, body: bytes, status: int, message: str) -> None:
    assert client.region(path, body)[0] == status
    assert json.loads(client.region(path, body)[1])["detail"].startswith(message)


def paint(image: str, client: Client, folder: Path, *, as_slicer: bool) -> Path:
    """Write the cells of an image as a client that paints classes does."""
    classes = cell_classes(drawn(image)[1], radius=2)
    path = folder / f"label of {Path(image).stem}{'.nii.gz' if as_slicer else '.png'}"
    if not as_slicer:
        Image.fromarray(classes).save(path)
        return path
    array, python = folder / "classes.npy", Path(VENV).absolute() / "bin" / "python"
    np.save(array, classes)
    command = [str(python), "-c", AS_SLICER, str(client.studies / image), str(array), str(path)]
    subprocess.run(command, check=True)
    return path


def test_slicer_writes_what_is_tested_here(client: Client, tmp_path: Path) -> None:
    label: Any = nibabel.load(paint("a.png", client, tmp_path, as_slicer=True))
    assert label.shape == (SIZE[1], SIZE[0], 1)
    np.testing.assert_array_equal(label.affine, np.diag([-1, -1, 1, 1]))


def test_rounds_of_annotation_and_training(client: Client, tmp_path: Path) -> None:
    """One, two and three labels: each image keeps its use, touching cells stay apart, the model changes."""
    model, split = f"{NAME}_classes", client.weights.parent / "split.json"
    versions = [hashlib.sha256(client.weights.read_bytes()).hexdigest()]
    uses: dict[str, str] = {}
    for image, as_slicer in (("a.png", True), ("b.png", False), ("c.png", True)):
        assert client.next_image("first") == Path(image).stem
        client.submit(image, paint(image, client, tmp_path, as_slicer=as_slicer))
        client.train(model)
        versions.append(hashlib.sha256(client.weights.read_bytes()).hexdigest())
        lists = json.loads(split.read_text())
        now = {Path(item["image"]).name: use for use in lists for item in lists[use]}
        assert uses == {name: now[name] for name in uses}
        uses = now
    assert uses == {"a.png": "training", "b.png": "training", "c.png": "validation"}
    assert len(set(versions)) == 4
    assert client.next_image("random") in ("deep", "stack")
    assert client.next_image("uncertain_borders") in ("deep", "stack")
    check_touching_cells_stay_apart([item for use in lists.values() for item in use])
    learnt = torch.load(client.weights, weights_only=True)["cell_diameter"]
    assert float(learnt) == pytest.approx(median_cell_diameter(lists["training"], border_label=TOUCHING))
    np.testing.assert_array_equal(
        client.infer(NAME, "deep.png"), segment(read_image(client.studies / "deep.png"), client.weights)
    )


def check_touching_cells_stay_apart(items: list[dict[str, str]]) -> None:
    """The labels that trained hold as many cells as were drawn, each over its own one."""
    reader = LabelReader(border_label=TOUCHING)
    for item in items:
        cells = drawn(Path(item["image"]).name)[1]
        label = reader.get_data(reader.read(item["label"]))[0][0].T
        assert label.shape == cells.shape
        np.testing.assert_array_equal(label > 0, cells > 0)
        pairs = np.unique(np.stack([label, cells])[:, (cells > 0) & (cell_classes(cells, radius=2) == CELL)], axis=1)
        assert pairs.shape[1] == label.max() == len(np.unique(cells)) - 1
