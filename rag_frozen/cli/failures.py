"""From an exception to one message on stderr and the exit code of the process."""

from __future__ import annotations

import sys
import traceback
from typing import Any

from rag_frozen.errors import InputError, RagFrozenError

__all__ = ["told", "usage_message"]


def told(error: Exception, *, debug: bool = False) -> int:
    """Print what went wrong on stderr, with the traceback for ``debug``; return the exit code."""
    if debug:
        traceback.print_exception(error)
    if isinstance(error, RagFrozenError):
        print(f"rag-frozen: {error}", file=sys.stderr)
        return error.exit_code
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # of typer's command line
        message = usage_message(error)
        if message:
            print(f"rag-frozen: {message}", file=sys.stderr)
        return InputError.exit_code
    print(
        f"rag-frozen: unexpected {type(error).__name__}: {error}. For the traceback run: "
        "rag-frozen --debug …",
        file=sys.stderr,
    )
    return 1


def usage_message(error: Any) -> str:  # Any: typer keeps its usage errors' class private
    """Say in one line what is wrong with a command's words, and where its help is.

    Empty for a group without a command: its help was printed instead.
    """
    said = " ".join(str(error.format_message()).split())
    if not said:
        return ""
    if said.startswith("Got unexpected extra argument"):
        extra = said.partition(" (")[2].removesuffix(")")
        said = f"Too many arguments: {extra}. Put an argument of several words in quotes"
    elif near := getattr(error, "possibilities", None):
        said = f"{error.message}. Did you mean {' or '.join(sorted(near))}?"
    else:
        said = said.replace(": Value error, ", ": ") + _found(error)
    end = "" if said.endswith((".", "?")) else "."
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "rag-frozen"
    return f"{said}{end} See: {command} --help"


def _found(error: BaseException) -> str:
    """The value that a check of pydantic's refused, where the message does not show it."""
    problems = getattr(error.__cause__, "errors", None)
    if problems is None:
        return ""
    value = repr(problems()[0]["input"])
    return "" if value in str(error) else f" (found {value})"
