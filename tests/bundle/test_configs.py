"""The configs as text: what they may compute, what they share, what MONAI's own checks say."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from pydoc import locate
from typing import Any

import pytest
import torch
import unet_monai
from monai.bundle import ComponentLocator, ConfigParser, ConfigWorkflow, verify_metadata, verify_net_in_out
from monai.data import MetaTensor

from tests.bundle.conftest import REPOSITORY
from tests.bundle.metadata_schema import SCHEMA, TEXTS

CONFIGS = REPOSITORY / "bundle" / "configs"
FILES = sorted(path.name for path in CONFIGS.glob("*.json"))
RUNNABLE = {"train.json": ["train.json"], "evaluate.json": ["train.json", "evaluate.json"]}
RUNNABLE |= {"multi_gpu_train.json": ["train.json", "multi_gpu_train.json"]}
RUNNABLE |= {"multi_gpu_evaluate.json": ["train.json", "evaluate.json", "multi_gpu_evaluate.json"]}
RUNNABLE |= {"multi_gpu_inference.json": ["inference.json", "multi_gpu_inference.json"]}
RUNNABLE |= {"inference_onnx.json": ["inference.json", "inference_onnx.json"]}
RUNNABLE |= {"inference_large.json": ["inference_large.json"]}
RUNNABLE |= {"train_large.json": ["train.json", "train_large.json"]}
RUNNABLE |= {"paper.json": ["train.json", "paper.json"], "inference.json": ["inference.json"]}

# What an expression may be: paths, device, .to(@device), list + list, from_engine, run statements and plain look-ups.
ALLOWED_EXPRESSIONS = [
    r"@\w+ \+ '/[\w./]+'",
    r"torch\.device\('cuda' if torch\.cuda\.is_available\(\) else 'cpu'\)",
    r"@network_def\.to\(@device\)",
    r"@network_def\.(border|poolings|bytes_per_pixel|output_size\(@tile_size\))",
    r"@network\.parameters\(\)",
    r"@[\w#]+( \+ @[\w#]+)+",
    r"@key_metric \| @additional_metrics",
    r"@split\['\w+'\]",
    r"@steps_per_epoch \* @batch_size",
    r"not @(resume|rois)",
    r"@max_minutes is None",
    r"monai\.handlers\.from_engine\(\[[\w', ]+\](, first=True)?\)",
    r"monai\.utils\.set_determinism\(seed=@seed if isinstance\(@seed, int\) else None\)",  # others: check_overrides
    r"@[\w#]+\.run\(\)",
    r"@failed_files\.report\(\)",
    r"import (logging|os|sys|torch\.distributed as dist)",
    r"torch\.device\('cuda', int\(os\.environ\['LOCAL_RANK'\]\)\) "
    r"if torch\.cuda\.is_available\(\) else torch\.device\('cpu'\)",
    r"'LOCAL_RANK' in os\.environ or sys\.exit\('[\w*]+\.json needs torchrun: torchrun --nproc_per_node=2 .*'\)",
    r"os\.environ\.update\(SLURM_LOCALID=os\.environ\['LOCAL_RANK'\]\)",
    r"dist\.(get_rank\(\)( == 0)?|get_world_size\(\)|destroy_process_group\(\))",
    r"@steps_per_epoch \* @batch_size \* dist\.get_world_size\(\)",
    r"not @split\['validation'\]",
    r"dist\.init_process_group\('nccl' if torch\.device\(@device\)\.type == 'cuda' else 'gloo'\)",
    r"torch\.device\(@device\)\.type == 'cuda' and torch\.cuda\.set_device\(@device\)",
    r"logging\.disable\(logging\.INFO if dist\.get_rank\(\) > 0 else logging\.NOTSET\)",
    r"sys\.argv",
]


def load(name: str) -> dict[str, Any]:
    return json.loads((CONFIGS / name).read_text())


def strings(node: Any) -> list[str]:
    if isinstance(node, dict):
        return [s for value in node.values() for s in strings(value)]
    if isinstance(node, list):
        return [s for value in node for s in strings(value)]
    return [node] if isinstance(node, str) else []


@pytest.mark.parametrize("name", FILES)
def test_expressions_are_trivial(name: str) -> None:
    expressions = [s[1:] for s in strings(load(name)) if s.startswith("$")]
    wrong = [e for e in expressions if not any(re.fullmatch(pattern, e) for pattern in ALLOWED_EXPRESSIONS)]
    assert wrong == []


@pytest.mark.parametrize("name", FILES)
def test_no_key_is_written_twice(name: str) -> None:
    def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        assert len(keys) == len(set(keys)), f"duplicate key in {keys}"
        return dict(pairs)

    json.loads((CONFIGS / name).read_text(), object_pairs_hook=refuse_duplicates)


@pytest.mark.parametrize("name", RUNNABLE)
def test_every_setting_is_used(name: str) -> None:
    config = ConfigParser.load_config_files([str(CONFIGS / file) for file in RUNNABLE[name]])
    entries = {"imports", "initialize", "run", "finalize", "training", "evaluating"}
    # To be shown in the report is no use, but for the source of the data.
    entries.add("data_source")
    text = json.dumps({key: value for key, value in config.items() if key != "settings"})
    unused = [key for key in config if key not in entries and not re.search(rf"[@%]{key}\b", text)]
    assert unused == []


@pytest.mark.parametrize("name", FILES)
def test_every_target_can_be_found(name: str) -> None:
    """Short names are MONAI's, which looks them up in its own modules only; all others are full."""
    monai_names = ComponentLocator()
    for target in re.findall(r'"_target_": "([\w.]+)"', (CONFIGS / name).read_text()):
        found = locate(target) if "." in target else monai_names.get_component_module_name(target)
        assert found is not None, target


@pytest.mark.parametrize("name", FILES)
def test_checkpoints_are_loaded_to_the_device(name: str) -> None:
    text = (CONFIGS / name).read_text()
    loaders = re.findall(r'"CheckpointLoader".*', text)
    assert all(re.search(r'"load_dict": {"model": "@\w*network"}, "map_location": "@device"', line) for line in loaders)


def test_training_has_no_checkpoint_loader_of_its_own() -> None:
    """MONAI Label leaves out its own loader where it finds one in the list, even a disabled one."""
    assert "CheckpointLoader" not in [handler["_target_"] for handler in load("train.json")["train"]["handlers"]]


def test_nothing_of_ours_is_made_in_initialize() -> None:
    """The bundle's own package can be imported only after it."""
    for name in FILES:
        assert not any("unet_monai" in s for s in strings(load(name).get("initialize", [])))


def test_the_configs_for_several_processes_agree() -> None:
    train, evaluate, inference = (load(f"multi_gpu_{name}.json") for name in ("train", "evaluate", "inference"))
    for key in ("imports", "device", "finalize"):
        assert train[key] == evaluate[key] == inference[key]
    assert train["initialize"] == evaluate["initialize"]
    assert [*inference["initialize"], *load("train.json")["initialize"]] == train["initialize"]


def test_the_report_shows_every_knob() -> None:
    """A knob is a top-level value of its own; `dataset_dir` and the other places show in the list of the images."""
    train = load("train.json")
    knobs = [k for k, v in train.items() if not isinstance(v, dict | list) and not str(v).startswith(("%", "$@"))]
    shown = dict(load("train.json")["settings"])
    assert shown.pop("command_line")["argv"] == "$sys.argv"
    assert [key for key, value in shown.items() if value == f"@{key}"] == knobs
    assert {k: v for k, v in shown.items() if k not in knobs} == {
        key: f"@network_def#{key}" for key in ("features", "norm", "dropout")
    }


def test_training_and_inference_share_network_and_preprocessing() -> None:
    train, inference = load("train.json"), load("inference.json")
    assert train["network_def"] == {
        **inference["network_def"],
        "image_scale": "@scale",
        "image_smoothing": "@smoothing",
        "cell_diameter": "@cell_diameter",
    }
    of_image = [t for t in train["read_transforms"] if t["keys"] == "image"]
    assert of_image == inference["preprocessing"]["transforms"]
    for knob in ("spatial_dims", "in_channels", "threshold", "min_size", "dataset_dir", "device", "bundle_root"):
        assert train[knob] == inference[knob], knob
    assert train["find_instances"] == inference["find_instances"]
    assert train["validate"]["postprocessing"]["transforms"] == ["@find_instances"]
    assert "@find_instances" in inference["postprocessing"]["transforms"]


@pytest.mark.parametrize("overlay", sorted(path.name for path in (CONFIGS / "experiments").glob("*.json")))
def test_experiments_lie_over_inference_too(overlay: str, tmp_path: Path) -> None:
    config = ConfigParser()
    config.read_config([str(CONFIGS / "inference.json"), str(CONFIGS / "experiments" / overlay)])
    config["output_dir"] = str(tmp_path)
    scores = MetaTensor(torch.zeros(config["network_def#out_channels"], 40, 60))
    scores[1, 5:-5, 5:50] = 9
    scores[0, :, 50:] = 9
    found = config.get_parsed_content("find_instances")({"pred": scores})["pred"]
    assert found.shape == (1, 40, 60)
    assert found[0, 20, 20] == 1


@pytest.mark.parametrize(("name", "kind"), [("train.json", "train"), ("inference.json", "infer")])
def test_monai_finds_all_properties(name: str, kind: str, tmp_path: Path) -> None:
    weights = tmp_path / "model.pt"
    network = ConfigParser(load("inference.json")).get_parsed_content("network_def")
    torch.save(network.state_dict(), weights)
    override = {"checkpoint": str(weights)} if kind == "infer" else {"output_dir": str(tmp_path)}
    workflow = ConfigWorkflow(str(CONFIGS / name), workflow_type=kind, logging_file=False, **override)
    workflow.initialize()
    assert workflow.check_properties() == []


def test_network_agrees_with_the_metadata() -> None:
    verify_net_in_out(
        net_id="network_def", meta_file=str(CONFIGS / "metadata.json"), config_file=str(CONFIGS / "inference.json")
    )


def test_metadata_fits_the_schema_of_the_zoo(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    verify_metadata(str(CONFIGS / "metadata.json"), filepath=str(path))
    metadata = load("metadata.json")
    assert metadata["version"] in metadata["changelog"]
    assert all(metadata[name] for name in TEXTS)
    formats = metadata["network_data_format"]
    assert formats.keys() == {"inputs", "outputs", "post_processed_outputs"}
    assert all(isinstance(tensor, dict) for tensors in formats.values() for tensor in tensors.values())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("authors", None, "'authors' is a required property"),
        ("references", "a paper", "'a paper' is not of type 'array'"),
        ("network_data_format", {"inputs": {}}, "'outputs' is a required property"),
        ("network_data_format", {"inputs": {"image": {"type": "image"}}, "outputs": {}}, "is not valid under any"),
    ],
)
def test_metadata_that_breaks_the_schema_is_refused(tmp_path: Path, key: str, value: Any, message: str) -> None:
    metadata = {**load("metadata.json"), key: value}
    if value is None:
        del metadata[key]
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match=message):
        verify_metadata(str(tmp_path / "metadata.json"), filepath=str(tmp_path / "schema.json"))


def test_versions_are_those_of_the_constraints() -> None:
    pinned = dict(line.split("==") for line in (REPOSITORY / "constraints.txt").read_text().split() if "==" in line)
    metadata = load("metadata.json")
    assert metadata["monai_version"] == pinned["monai"]
    assert metadata["pytorch_version"] == pinned["torch"]
    assert metadata["numpy_version"] == pinned["numpy"]
    for package, version in metadata["required_packages_version"].items():
        assert pinned[package] == version


def test_the_package_knows_its_version() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert unet_monai.__version__ == project["version"] == load("metadata.json")["version"]
