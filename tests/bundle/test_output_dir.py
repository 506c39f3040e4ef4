from __future__ import annotations

from pathlib import Path

import pytest
from unet_monai.bundle import check_output_dir


def test_the_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    check_output_dir(str(tmp_path / "new" / "ä b"), [{"image": str(tmp_path / "a.png")}])
    assert list((tmp_path / "new" / "ä b").iterdir()) == []


def test_a_file_in_the_folders_place(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    for folder in (tmp_path / "out", tmp_path / "out" / "in it"):
        with pytest.raises(ValueError, match=r"^output_dir must be a folder to write to, got \w+: .*out.*'\.$"):
            check_output_dir(str(folder), [])


def test_a_folder_without_leave_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(dir: Path) -> None:  # noqa: A002
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(ValueError, match=r"folder to write to, got PermissionError: .*Permission denied: '.*'\.$"):
        check_output_dir(str(tmp_path), [])


def test_no_label_image_takes_its_images_place(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("a.png", "a.tif", "stack.tif#0"):
        with pytest.raises(ValueError, match=r"^output_dir must be another folder than the images', got .*link\.$"):
            check_output_dir(str(tmp_path / "link"), [{"image": str(tmp_path / name)}])
    check_output_dir(str(tmp_path), [{"image": str(tmp_path / "a.jpg")}])


def test_a_link_to_itself_is_an_image_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("a.png")
    check_output_dir(str(tmp_path / "out"), [{"image": str(tmp_path / "a.png")}])
