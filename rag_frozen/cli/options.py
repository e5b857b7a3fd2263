"""What several commands share: their options, and the exit codes that their help ends with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["EXIT_CODES", "STOPPED", "Json", "Overrides", "Root"]

EXIT_CODES = (
    "Exit codes: 0 done; 2 wrong input or recipe; 3 an artifact is missing, damaged or does not "
    "fit; 4 a model or a package is missing; 5 the disk is full or read-only; 6 a score or a "
    "prompt's proof failed its check; 1 anything else; 130 stopped by Ctrl-C."
)
STOPPED = 130
"""Exit code after Ctrl-C."""

Root = Annotated[
    Path | None,
    typer.Option(
        "--root", help="Folder of artifacts (default: RAG_FROZEN_HOME, else the user's cache)."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="a.b=c", help="Change a setting of the recipe; repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
