"""The loss plot of a training: losses, and validation metrics beside them."""

from __future__ import annotations

from pathlib import Path

from rag_frozen.training.loop import LoopResult

__all__ = ["plot_training"]


def plot_training(path: Path, result: LoopResult, *, title: str) -> None:
    """Write an SVG with the loss by step and each validation metric by step.

    Draws without a window and without changing matplotlib's settings for others.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    FigureCanvasSVG(figure)
    left = figure.add_subplot()
    left.plot(
        [row["step"] for row in result.losses],
        [row["loss"] for row in result.losses],
        color="tab:gray",
        linewidth=1,
        label="loss",
    )
    left.set_xlabel("step")
    left.set_ylabel("loss")
    left.set_title(title)
    names = dict.fromkeys(name for row in result.metrics for name in row if name != "step")
    if names:
        right = left.twinx()
        right.set_ylabel("validation")
        for name in names:
            points = [(row["step"], row[name]) for row in result.metrics if name in row]
            right.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
        right.legend(loc="lower right", fontsize="small")
    if result.best_step is not None:
        left.axvline(result.best_step, color="tab:gray", linestyle=":", linewidth=1)
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
