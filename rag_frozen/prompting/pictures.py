"""Pictures of what a prompt generator looks at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from rag_frozen.artifacts.writing import atomic_writer

__all__ = ["draw_attention"]


def draw_attention(path: Path, tokens: Sequence[str], weights: Tensor, *, title: str) -> None:
    """Write an SVG or PNG: tokens across, query vectors down, the mean over heads of each block.

    Args:
        path: ends in .svg or .png.
        tokens: of the encoder's input, T of them.
        weights: ``[depth, heads, n_queries, T]``, summing to 1 over T.
        title: above the picture.

    Raises:
        StorageError: when the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    depth, _, n_queries, n_tokens = weights.shape
    size = (max(4.0, 0.35 * n_tokens + 1.5), max(2.5, depth * (0.18 * n_queries + 1.1)))
    figure = Figure(figsize=size, layout="constrained")
    kind = path.suffix.lower().removeprefix(".")
    (FigureCanvasSVG if kind == "svg" else FigureCanvasAgg)(figure)
    figure.suptitle(title, fontsize="medium")
    for block in range(depth):
        axes = figure.add_subplot(depth, 1, block + 1)
        shown = weights[block].float().mean(dim=0).cpu().numpy()
        image = axes.imshow(shown, aspect="auto", cmap="viridis", vmin=0)
        axes.set_ylabel(f"block {block + 1}: vector")
        axes.set_xticks(range(n_tokens), list(tokens), rotation=60, ha="right", fontsize="small")
        figure.colorbar(image, ax=axes)
    with atomic_writer(path) as file:
        figure.savefig(file, format=kind)
