from __future__ import annotations

import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from unet_monai.large_images.block_grid import Block, block_grid
from unet_monai.large_images.claims import take_claim
from unet_monai.large_images.stages import finish_blocks, finish_json, finish_table

BLOCKS = block_grid((40, 40), (8, 8))


def test_workers_do_each_block_once_and_all_get_all_tables(tmp_path: Path) -> None:
    done: list[Block] = []

    def work(block: Block) -> dict[str, np.ndarray]:
        done.append(block)
        threading.Event().wait(0.002)
        return {"start": np.array(block.start)}

    with ThreadPoolExecutor(4) as pool:
        tables = list(pool.map(lambda _: finish_blocks(tmp_path / "a", BLOCKS, work), range(4)))
    assert sorted(done) == sorted(BLOCKS.values())
    for each in tables:
        assert {position: tuple(table["start"]) for position, table in each.items()} == {
            position: block.start for position, block in BLOCKS.items()
        }


def test_a_table_and_a_json_file_are_made_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def work() -> dict[str, list[int]]:
        calls.append(1)
        threading.Event().wait(0.1)
        return {"a": [1, 2]}

    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(lambda _: finish_json(tmp_path / "a.json", work), range(4)))
        tables = list(
            pool.map(lambda _: finish_table(tmp_path / "b.npz", lambda: {"a": np.array(work()["a"])}), range(4))
        )
    assert (len(calls), numbers) == (2, [{"a": [1, 2]}] * 4)
    assert all(table["a"].tolist() == [1, 2] and list(table) == ["a"] and len(table) == 1 for table in tables)


def test_the_block_of_another_process_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a").mkdir()
    claim = take_claim(tmp_path / "a" / "2-3.npz")
    assert claim is not None

    def finish_late() -> None:
        threading.Event().wait(0.3)
        np.savez(tmp_path / "draft.npz", owner="the other")
        os.replace(tmp_path / "draft.npz", tmp_path / "a" / "2-3.npz")

    other = threading.Thread(target=finish_late)
    with caplog.at_level(logging.INFO), claim:
        other.start()
        tables = finish_blocks(tmp_path / "a", BLOCKS, lambda block: {"owner": np.array("me")})
    assert [position for position, table in tables.items() if table["owner"] == "the other"] == [(2, 3)]
    assert "a: other processes are at the last 1, waiting for them" in caplog.text


def test_the_block_of_one_that_died_is_done_here(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    dead = take_claim(tmp_path / "a" / "2-3.npz")
    assert dead is not None
    os.utime(dead.file, (0, 0))
    dead.draft.write_bytes(b"cut off")
    tables = finish_blocks(tmp_path / "a", BLOCKS, lambda block: {"owner": np.array("me")})
    assert tables[2, 3]["owner"] == "me"


def test_an_error_ends_the_run_and_the_next_one_continues(tmp_path: Path) -> None:
    def fail(block: Block) -> dict[str, np.ndarray]:
        if block.start == (16, 24):
            raise ValueError("no memory")
        return {"turn": np.array(1)}

    with pytest.raises(ValueError, match="no memory"):
        finish_blocks(tmp_path / "a", BLOCKS, fail)
    tables = finish_blocks(tmp_path / "a", BLOCKS, lambda block: {"turn": np.array(2)})
    assert [int(table["turn"]) for table in tables.values()] == [1] * 13 + [2] * 12


def test_a_folder_that_vanished_ends_the_wait(tmp_path: Path) -> None:
    """Other processes finished everything: nothing may be written anew."""
    with pytest.raises(FileNotFoundError):
        finish_blocks(tmp_path / "gone" / "a", BLOCKS, lambda block: {})
    with pytest.raises(FileNotFoundError):
        finish_json(tmp_path / "gone" / "a.json", dict)
    assert not (tmp_path / "gone").exists()
