"""Run the benchmarks, print one table of ratios and write it as JSON.

    python -m benchmarks                       # all that need no data
    python -m benchmarks weight_map deformation
    python -m benchmarks time_to_seg --dataset_dir DSB2018

Each module named here has a function ``rows(options)`` that yields its lines of the table.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

import torch

from benchmarks.harness import Row, save, table

MODULES = ("weight_map", "deformation", "overlap_tile", "training_step", "start_up", "patch_classifier", "time_to_seg")


def main() -> None:
    """Run the named benchmarks, each line printed as soon as it is there."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"any of {', '.join(MODULES)}; none for all")
    parser.add_argument("--threads", type=int, default=2, help="threads of both sides (2)")
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds of each comparison (7)")
    parser.add_argument("--dataset_dir", help="the DSB2018 images and labels, for time_to_seg")
    parser.add_argument("--seg", type=float, default=0.85, help="SEG to reach in time_to_seg (0.85)")
    parser.add_argument("--minutes", type=float, default=30, help="longest training of a side in time_to_seg (30)")
    parser.add_argument("--epochs", type=int, default=60, help="epochs of 30 steps in time_to_seg's schedule (60)")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results.json"), help="where to write the table")
    options = parser.parse_args()
    unknown = sorted(set(options.modules) - set(MODULES))
    if unknown:
        parser.error(f"MODULE must be one of {', '.join(MODULES)}, got {', '.join(unknown)}.")
    chosen = options.modules or [name for name in MODULES if name != "time_to_seg" or options.dataset_dir]
    if "time_to_seg" in chosen and not options.dataset_dir:
        parser.error("time_to_seg needs --dataset_dir.")
    torch.set_num_threads(options.threads)
    rows: list[Row] = []
    for name in chosen:
        for row in import_module(f"benchmarks.{name}").rows(options):
            rows.append(row)
            print(f"{row.what} / {row.against}: {row.ratio:.3g} {row.kind}", flush=True)
            save(rows, options.json)
    print(f"\n{table(rows)}\n\nwritten to {options.json}")


if __name__ == "__main__":
    main()
