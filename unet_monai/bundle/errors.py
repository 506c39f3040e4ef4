"""Say last what went wrong first."""

from __future__ import annotations

import sys
from types import TracebackType

from unet_monai.data.fault_tolerant_dataset import FailedFilesError, first_cause


def explain_errors() -> None:
    """End the traceback of an uncaught error with its first cause, or show that line alone where it says all.

    MONAI wraps every error of a config's component into a ``RuntimeError`` that names the component only; the line that
    helps then stands far above. Mistakes in files and settings that this package looks for, and files that the system
    refuses, are shown without the traceback; Python's development mode shows it: ``python -X dev -m monai.bundle ...``.
    """

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        cause = first_cause(error)
        alone = says_all(cause) and not sys.flags.dev_mode
        if not alone:
            sys.__excepthook__(kind, error, trace)
        if alone or cause is not error:
            print(f"\n{type(cause).__name__}: {cause}", file=sys.stderr)

    sys.excepthook = show


def says_all(cause: BaseException) -> bool:
    """Tell whether an error was raised by a check of this package, or by the system for a file that it names.

    Example:
        >>> says_all(FileNotFoundError(2, "No such file or directory", "a.png")), says_all(ValueError("of a library"))
        (True, False)
    """
    if isinstance(cause, FailedFilesError) or (isinstance(cause, OSError) and cause.filename is not None):
        return True
    trace = cause.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = "" if trace is None else trace.tb_frame.f_globals.get("__name__", "")  # an expression of a config has none
    return module.partition(".")[0] == __name__.partition(".")[0] and isinstance(cause, ValueError | OSError)
