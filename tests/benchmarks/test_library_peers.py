"""The exchange with a peer that only thresholds, in an interpreter that has nothing of ours but its arrays."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import experiments, library_peers
from benchmarks.experiments import Length, Row, RowError
from benchmarks.peer_job import divide_steps, hold_out, read_job, write_inputs

# Started as `PYTHON -W ignore -m benchmarks.peer_stardist INPUTS ...`, from the repository.
THRESHOLDING = """#!{python}
import sys
from scipy.ndimage import label
from benchmarks.peer_job import read_job, write_results
assert sys.argv[1:5] == ["-W", "ignore", "-m", "benchmarks.peer_stardist"], sys.argv
job = read_job(sys.argv[5:])
assert (job.minutes, job.seed, job.threads) == (0.5, 7, 1), job
assert all(instances.min() == 0 for _, instances in job.training)
{body}
write_results(job, found, steps=3, seconds=90, packages=["numpy"])
"""
FOUND = "found = [label(image > 0.5)[0] for image in job.validation]"


def make_peer(folder: Path, body: str = FOUND) -> Path:
    """Write an interpreter that is the peer, whatever it is asked to run."""
    path = folder / "python"
    path.write_text(THRESHOLDING.format(python=sys.executable, body=body))
    path.chmod(0o755)
    return path


@pytest.fixture
def data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three bright drawings in the folder of a set, not square: two cells alone, two that touch along an edge."""
    monkeypatch.setenv("PYTHONPATH", str(experiments.REPOSITORY))
    for i in (1, 2, 3):
        label = np.zeros((72, 88 + 8 * i), dtype=np.uint8)
        label[5:15, 5:15], label[5:15, 40:60] = 1, 2
        label[30:40, 10:20], label[40:44, 10:20] = 3, 4
        for folder, array in (("images", 200 * (label > 0).astype(np.uint8)), ("labels", label)):
            path = tmp_path / "data" / "dsb2018_fluo" / folder / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    return tmp_path / "data"


def run_main(data_root: Path, python: Path, *words: str) -> Path:
    results = data_root.parent / "rows"
    knobs = ["--peer", "stardist", "--sets", "nuclei_dsb2018", "--seeds", "7", "--minutes", "0.5"]
    places = ["--data_root", str(data_root), "--python", str(python), "--results", str(results)]
    library_peers.main([*knobs, *places, *words])
    return results / "peers-nuclei_dsb2018-stardist-7.json"


def test_a_peer_leaves_a_row_that_the_tables_read(data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run_main(data_root, make_peer(data_root.parent))
    (row,) = experiments.read_rows(path.parent)
    assert row == json.loads(path.read_text())
    assert (row["steps"], row["minutes"], row["minutes_asked"], row["threads"]) == (3, 1.5, 0.5, 1)
    assert row["images"] == {"training": 2, "validation": 1}
    assert set(row["measures"]["identity"]) >= {"SEG", "AP50", "AP75", "AP50_of_images", "AP75_of_images"}
    # The touching cells, of 100 and 40 pixels, are found as one.
    assert row["measures"]["identity"]["SEG"] == pytest.approx((1 + 1 + 100 / 140 + 40 / 140) / 4)
    assert row["measures"]["identity"]["AP50"] == pytest.approx(3 / 4)
    assert row["peer_versions"] == {"numpy": np.__version__}
    assert row["commands"]["training"] == (
        "OMP_NUM_THREADS=1 stardist_env/bin/python -W ignore -m benchmarks.peer_stardist OUT/inputs/inputs.json "
        "--minutes 0.5 --seed 7 --threads 1 --output_dir OUT"
    )
    assert str(data_root.parent) not in path.read_text()
    assert "3 steps, 1.5 min" in capsys.readouterr().out


def test_finished_rows_are_not_run_again(data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    python = make_peer(data_root.parent)
    before = run_main(data_root, python).read_bytes()
    make_peer(data_root.parent, "raise SystemExit('run again')")
    assert run_main(data_root, python).read_bytes() == before
    assert "finished before" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"got \{.minutes_asked.: 0\.5, .threads.: 1\}"):
        run_main(data_root, python, "--minutes", "9")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("print('epoch 1'); raise SystemExit('out of rays')", r"FAILED:\nexit status 1\n.*out of rays"),
        ("found = []", r"0000.npy must be written by the peer, got no such file\."),
        ("found = [job.validation[0].T]", r"0000.npy must have its image's shape \(72, \d+\), got \(\d+, 72\)\."),
    ],
)
def test_a_peer_that_fails_leaves_no_row(data_root: Path, body: str, message: str) -> None:
    with pytest.raises(
        SystemExit, match=f"(?s)peers-nuclei_dsb2018-stardist-7 {message}" if "FAILED" in message else message
    ):
        run_main(data_root, make_peer(data_root.parent, body))
    assert not list((data_root.parent / "rows").iterdir())


def test_interpreter_must_be_there(data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_main(data_root, data_root / "no_python")
    assert f"--python must be an interpreter, got {data_root / 'no_python'}." in capsys.readouterr().err


def test_membranes_have_no_such_row(data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_main(data_root, Path(sys.executable), "--sets", "em_isbi2012")
    assert "invalid choice: 'em_isbi2012'" in capsys.readouterr().err


def test_arrays_have_their_rows_first(data_root: Path) -> None:
    config = library_peers.read_set("nuclei_dsb2018", data_root / "dsb2018_fluo")
    ((image, label),) = library_peers.read_images(config, "validation")
    drawn = np.asarray(Image.open(data_root / "dsb2018_fluo" / "labels" / "1.png"))
    np.testing.assert_array_equal(label, drawn)
    assert image.shape == drawn.shape == (72, 96)


def test_score_is_that_of_the_set(data_root: Path) -> None:
    config = library_peers.read_set("nuclei_dsb2018", data_root / "dsb2018_fluo")
    config["min_size"] = 2
    label = np.array([[1, 1, 0, 2], [1, 1, 0, 2], [0, 0, 0, 0], [-1, -1, -1, -1]], dtype=np.int32)
    # The first cell is half found, the second is; a lone pixel is too small, and what is ignored costs nothing.
    pred = np.array([[5, 5, 0, 9], [5, 0, 0, 9], [3, 0, 0, 0], [7, 7, 0, 0]], dtype=np.int32)
    scores = library_peers.score(config, [(pred, label), (np.zeros_like(pred), np.zeros_like(label))])
    assert scores["SEG"] == pytest.approx((3 / 4 + 1) / 2)
    assert scores["AP50"] == scores["AP50_of_images"] == 1
    config["min_size"] = 1
    assert library_peers.score(config, [(pred, label)])["AP50"] == pytest.approx(2 / 3)


def test_the_margin_is_cut_off_what_trains() -> None:
    label = np.zeros((5, 6), dtype=np.int32)
    label[0], label[2, 2] = -1, 4
    image, inner = library_peers.inside(np.arange(30.0).reshape(5, 6), label, 1)
    np.testing.assert_array_equal(inner, [[0, 0, 0, 0], [0, 4, 0, 0], [0, 0, 0, 0]])
    assert (image[0, 0], image[-1, -1]) == (7, 22)
    with pytest.raises(RowError, match=r"labels must have ignored pixels in the margin only, got others\."):
        library_peers.inside(image, label, 0)


def test_inputs_come_back_without_labels_to_validate_by(tmp_path: Path) -> None:
    image, label = np.ones((2, 3), dtype=np.float32), np.full((2, 3), 4, dtype=np.int32)
    inputs = write_inputs(tmp_path / "inputs", [(image, label)], [2 * image])
    row = Row("peers", "dic_hela", "cellpose", 5)
    words = library_peers.peer_command(row, Length(1.5, 2), str(inputs), str(tmp_path / "out"))
    job = read_job(words[words.index(str(inputs)) :])
    np.testing.assert_array_equal(job.training[0], (image, label))
    np.testing.assert_array_equal(job.validation, [2 * image])
    assert (job.minutes, job.seed, job.threads, job.output_dir) == (1.5, 5, 2, tmp_path / "out")
    assert len(list((tmp_path / "inputs").glob("*label*"))) == 1


@pytest.mark.parametrize("count", [2, 7, 48])
def test_held_out_images_are_drawn_from_all_and_never_all(count: int) -> None:
    train, held_out = hold_out(count, share=0.15, seed=3)
    assert sorted(train + held_out) == list(range(count))
    assert len(held_out) == max(1, round(0.15 * count))
    assert hold_out(count, share=0.99, seed=3)[0]
    assert hold_out(48, share=0.15, seed=3) != hold_out(48, share=0.15, seed=4)


@pytest.mark.parametrize("steps", [0, 1, 13, 199, 200, 390, 401, 5000])
def test_epochs_take_hardly_less_than_the_steps(steps: int) -> None:
    epochs, of_epoch = divide_steps(steps, epochs=200)
    assert max(steps, 1) - of_epoch < epochs * of_epoch <= max(steps, 1)
    assert epochs >= min(max(steps, 1), 200)


def test_peers_are_not_run_as_commands_of_the_bundle() -> None:
    assert not set(experiments.LIBRARY_PEERS) & set(experiments.ROWS["peers"])
    assert all(
        (experiments.REPOSITORY / "benchmarks" / f"peer_{name}.py").is_file() for name in experiments.LIBRARY_PEERS
    )
