"""The report of a stored run: one HTML file that needs nothing else."""

from __future__ import annotations

from rag_frozen.evaluation.report.page import render_report, write_report

__all__ = ["render_report", "write_report"]
