"""Say last what went wrong first."""

from __future__ import annotations

import sys
from types import TracebackType

from unet_monai.data.fault_tolerant_dataset import FailedFilesError, first_cause


def explain_errors() -> None:
    """End the traceback of an uncaught error with its first cause.

    MONAI wraps every error of a config's component into a ``RuntimeError`` that names the component only; the line that
    helps then stands far above. A list of files that failed is shown alone.
    """

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        cause = first_cause(error)
        if not isinstance(cause, FailedFilesError):
            sys.__excepthook__(kind, error, trace)
        if cause is not error:
            print(f"\n{type(cause).__name__}: {cause}", file=sys.stderr)

    sys.excepthook = show
