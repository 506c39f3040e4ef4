from __future__ import annotations

import json
from pathlib import Path

import pytest
from unet_monai.bundle import check_overrides
from unet_monai.bundle.overrides import (
    NUMBERS,
    PATHS,
    SWITCHES,
    WHOLE_NUMBERS,
    WHOLE_NUMBERS_PER_AXIS,
    command_line_settings,
    mistyped_value,
    unknown_override,
)

from tests.bundle.conftest import REPOSITORY

DEVICE = "--device must be a device that torch finds here, such as cpu or cuda:0"
PER_AXIS = "must be a whole number above 0 or a list of them"
CONFIG = {
    "epochs": 20,
    "val_interval": 1,
    "network_def": {"_target_": "unet_monai.networks.ValidUNet", "features": [16, 32]},
    "train": {"handlers": [{"_target_": "StatsHandler"}], "trainer": {"_target_": "SupervisedTrainer"}},
}


class TestCommandLineSettings:
    @pytest.mark.parametrize(
        ("line", "names"),
        [
            ("run training --config_file a.json --epochs 5", ["config_file", "epochs"]),
            ("--epochs=5 --seed = --w0=1=2", ["epochs", "seed", "w0"]),
            ("--network_def#dropout 0.1 --network_def::norm batch", ["network_def#dropout", "network_def::norm"]),
            ("--val-interval 2", ["val_interval"]),
            ("--elastic_magnitude -1 -5 - --", ["elastic_magnitude"]),
            ("", []),
        ],
    )
    def test_what_a_command_line_sets(self, line: str, names: list[str]) -> None:
        assert list(command_line_settings(line.split())) == names

    def test_single_hyphens_set_values_too(self) -> None:
        # The command line's parser takes `-epochs 5` for `--epochs 5`, and `-1` for a number.
        argv = ["-epocs", "5", "-lr=1", "--w0", "-1", "--sigma", "-.5"]
        assert command_line_settings(argv) == {"epocs": "5", "lr": "1", "w0": "-1", "sigma": "-.5"}

    def test_a_switch_needs_no_value(self) -> None:
        assert command_line_settings(["--resume", "--epochs", "5", "--rois"]) == {
            "resume": "True",
            "epochs": "5",
            "rois": "True",
        }


class TestMistypedValue:
    @pytest.mark.parametrize(
        "line",
        [
            "--epochs 5 --learning_rate 1e-4 --w0 10 --sigma 5.5 --threshold 1 --seed=0",
            "--tile_size 444 --roi_size [204,220] --roi_size (204,220) --network_def#features [2,4,8]",
            "--tile_size $a --epochs @b --w0 %c --largest_diameter $None",
            "--resume --rois true --resume False --rois=True",
            "--validation t1* --views all --dataset_dir ./5 --checkpoint None --network_def#norm ten",
            "--device cpu --device cpu:0",
        ],
    )
    def test_right_values(self, line: str) -> None:
        assert mistyped_value(command_line_settings(line.split())) is None

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("--epochs ten", "--epochs must be a whole number, got 'ten'."),
            ("--epochs 2.5", "--epochs must be a whole number, got 2.5."),
            ("--epochs [1,2]", "--epochs must be a whole number, got [1, 2]."),
            ("--epochs 0", "--epochs must be at least 1, got 0."),
            ("--steps_per_epoch 0", "--steps_per_epoch must be at least 1, got 0."),
            ("--batch_size -2", "--batch_size must be at least 1, got -2."),
            ("--seed True", "--seed must be a whole number, got True."),
            ("--epochs --resume", "--epochs must be a whole number, got True."),
            ("--tile_size 444.5", f"--tile_size {PER_AXIS}, got 444.5."),
            ("--tile_size [444,'b']", f"--tile_size {PER_AXIS}, got [444, 'b']."),
            ("--tile_size []", f"--tile_size {PER_AXIS}, got []."),
            ("--network_def::features big", f"--network_def::features {PER_AXIS}, got 'big'."),
            ("--network_def#features [0,8]", f"--network_def#features {PER_AXIS}, got [0, 8]."),
            ("--threshold abc", "--threshold must be a number, got 'abc'."),
            ("--seed -1", "--seed must be at least 0, got -1."),
            ("--learning_rate -0.1", "--learning_rate must be at least 0, got -0.1."),
            ("--join_threshold abc", "--join_threshold must be a number, got 'abc'."),
            ("--learning_rate 0,1", "--learning_rate must be a number, got (0, 1)."),
            ("--largest_diameter null", "--largest_diameter must be '$None', in quotes, for none, got 'null'."),
            ("--min_size None", "--min_size must be '$None', in quotes, for none, got None."),
            ("--rois false", "--rois must be True or False, with a capital letter, got 'false'."),
            ("--resume yes", "--resume must be True or False, with a capital letter, got 'yes'."),
            ("--device gpu", f"{DEVICE}, got 'gpu'."),
            ("--device cuda:99", f"{DEVICE}, got 'cuda:99'."),
        ],
    )
    def test_wrong_values(self, line: str, message: str) -> None:
        assert mistyped_value(command_line_settings(["--views", "all", *line.split()])) == message

    @pytest.mark.parametrize(
        ("path", "reason"),
        [
            ("2024", "got '2024', which is read as 2024: write './2024'."),
            ("1e5", "got '1e5', which is read as 100000.0: write './1e5'."),
            ("a,b", "got 'a,b', which is read as ('a', 'b'): write './a,b'."),
            ("True", "got 'True', which is read as True: write './True'."),
        ],
    )
    def test_paths_that_the_command_line_takes_for_something_else(self, path: str, reason: str) -> None:
        assert mistyped_value({"input": path}) == f"--input must be a path, {reason}"
        assert mistyped_value({"input": f"./{path}"}) is None

    @pytest.mark.parametrize("path", ["exp #3/a.png", "/data/exp #3", "stack.tif#3"])
    def test_a_path_that_the_configs_would_cut(self, path: str) -> None:
        reason = "must be a path without '#', which configs take for a sign of their own"
        assert mistyped_value({"output_dir": path}) == f"--output_dir {reason}, got {path!r}."

    def test_every_path_of_the_configs_is_checked(self) -> None:
        for path in (REPOSITORY / "bundle" / "configs").rglob("*.json"):
            config = json.loads(path.read_text())
            texts = {key for key, value in config.items() if isinstance(value, str) and "bundle_root + '/" in value}
            folders = {key for key in config if key.endswith("_dir")} - {"check_output_dir"}
            assert texts | folders <= set(PATHS), path.name

    def test_every_number_and_switch_of_the_configs_is_checked(self) -> None:
        known = {*WHOLE_NUMBERS, *WHOLE_NUMBERS_PER_AXIS, *NUMBERS, *SWITCHES, "validation"}
        for path in (REPOSITORY / "bundle" / "configs").rglob("*.json"):
            config = json.loads(path.read_text())
            numbers = {key for key, value in config.items() if isinstance(value, int | float)}
            assert path.name == "metadata.json" or numbers <= known, path.name
            unset = {key for key, value in config.items() if value is None}
            others = {"class_weights", "data_source", "label_source", "roi", "network_def#norm"}
            assert unset <= known | set(PATHS) | others, path.name


class TestUnknownOverride:
    @pytest.mark.parametrize(
        "name",
        [
            "epochs",
            "config_file",
            "run_id",
            "logging_file",
            "meta_file",
            "network_def",
            "network_def#features",
            "network_def#dropout",
            "network_def::dropout",
            "network_def#features#0",
            "train#trainer#max_epochs",
            "train#handlers#0#name",
            "train::handlers::0::name",
        ],
    )
    def test_real_names(self, name: str) -> None:
        assert unknown_override([name], CONFIG) is None

    @pytest.mark.parametrize(
        ("name", "nearest"),
        [
            ("epocs", "epochs"),
            ("epoch", "epochs"),
            ("valinterval", "val_interval"),
            ("netwrok_def", "network_def"),
            ("netwrok_def#dropout", "network_def"),
            ("confg_file", "config_file"),
            ("train#trianer#max_epochs", "train#trainer"),
            ("network_def#featurs", "network_def#features"),
            ("network_def#kernel", "network_def#kernel_size"),
        ],
    )
    def test_names_the_nearest_real_key(self, name: str, nearest: str) -> None:
        assert unknown_override([name], CONFIG) == f"unknown setting '--{name}': did you mean '--{nearest}'?"

    @pytest.mark.parametrize("target", ["builtins.dict", "BasicUNet", "unet_monai", "unet_monai.no_such"])
    def test_a_component_that_does_not_tell_its_arguments(self, target: str) -> None:
        assert unknown_override(["made#x"], {"made": {"_target_": target}}) is None

    def test_lists_the_settings_where_none_is_near(self) -> None:
        message = unknown_override(["zzz"], CONFIG)
        assert message == "unknown setting '--zzz': the config has epochs, val_interval, network_def, train."

    @pytest.mark.parametrize(
        "name", ["train#trianer#max_epochs", "train#handlers#5#name", "train#handlers#x#name", "epochs#0", "val#x#y"]
    )
    def test_a_component_that_does_not_exist(self, name: str) -> None:
        message = unknown_override([name], CONFIG)
        assert message is not None
        assert f"unknown setting '--{name}'" in message

    def test_the_first_mistake_is_named(self) -> None:
        assert "--epocs" in str(unknown_override(["epochs", "epocs", "sed"], CONFIG))

    def test_a_name_with_a_line_break_stays_in_one_line(self) -> None:
        message = unknown_override(["epocs\r\n"], CONFIG)
        assert message == r"unknown setting '--epocs\r\n': did you mean '--epochs'?"

    def test_keys_of_an_overlay_are_real(self) -> None:
        assert unknown_override(["validate#handlers"], {"validate#handlers": []}) is None


class TestCheckOverrides:
    @pytest.fixture
    def config_file(self, tmp_path: Path) -> str:
        path = tmp_path / "train.json"
        path.write_text(json.dumps(CONFIG), encoding="utf-8")
        return str(path)

    @pytest.mark.parametrize("option", ["--config_file {}", "--config_file={}", "--config-file {}", "--config-file={}"])
    def test_a_mistyped_override_stops(self, config_file: str, option: str) -> None:
        argv = ["run", "training", *option.format(config_file).split()]
        check_overrides([*argv, "--epochs", "5"])
        with pytest.raises(ValueError, match=r"unknown setting '--epocs': did you mean '--epochs'\?"):
            check_overrides([*argv, "--epocs", "5"])

    def test_a_value_of_another_type_stops(self, config_file: str) -> None:
        with pytest.raises(ValueError, match=r"^--epochs must be a whole number, got 'ten'\.$"):
            check_overrides(["run", "--config_file", config_file, "--epochs", "ten"])

    def test_several_config_files(self, config_file: str, tmp_path: Path) -> None:
        overlay = tmp_path / "paper.json"
        overlay.write_text(json.dumps({"momentum": 0.99}), encoding="utf-8")
        files = f"['{config_file}','{overlay}']"
        check_overrides(["run", "--config_file", files, "--momentum", "0.5", "--epochs", "1"])
        with pytest.raises(ValueError, match="did you mean '--momentum'"):
            check_overrides(["run", "--config_file", files, "--momentun", "0.5"])
        with pytest.raises(ValueError, match="unknown setting '--momentum'"):
            check_overrides(["run", "--config_file", config_file, "--momentum", "0.5"])

    def test_other_programs_are_left_alone(self) -> None:
        check_overrides(["server", "--port", "8000", "--epocs", "5"])
        check_overrides([])
