"""Say last what went wrong first."""

from __future__ import annotations

import sys
from types import TracebackType


def first_cause(error: BaseException) -> BaseException:
    """Follow ``raise ... from ...`` back to the error that started it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def explain_errors() -> None:
    """End the traceback of an uncaught error with its first cause.

    MONAI wraps every error of a config's component into a ``RuntimeError`` that names the component only; the line that
    helps then stands far above.
    """

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.__excepthook__(kind, error, trace)
        cause = first_cause(error)
        if cause is not error:
            print(f"\n{type(cause).__name__}: {cause}", file=sys.stderr)

    sys.excepthook = show
