"""Synthetic vectors with the statistics of real ones: clustered, not white noise.

Fitted to real passage vectors and to real question vectors: k-means centroids with their
frequencies, each cluster's radius, the covariance within clusters, how near questions come to
their nearest passage, and the covariance of what separates them from it. A vector is a draw from
that mixture. A wider one is made of two: draws from a cluster and from its partner (a fixed random
pairing, so that clusters stay clusters), one behind the other, turned by a random rotation. All is
drawn from one seed.

Lists that k-means makes fit such clusters better than real ones: over these vectors inverted lists
reach a recall with fewer probes. Sizes, memory and the speed of exact kinds are those of real data;
the probes of ``ivf-pq-fastscan`` are a lower bound.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Mixture:
    """``centroids: [c, d]``, their ``shares: [c]`` and ``radii: [c]`` (1 on average); the cosines
    of questions and their nearest passages, ``nearness: [q]``; the roots of two covariances
    ``[d, d]``; and how vectors of twice the width are made of it."""

    centroids: Floats
    shares: NDArray[np.float64]
    radii: Floats
    within: Floats
    nearness: Floats
    asked: Floats
    partner: NDArray[np.int64]
    rotation: Floats | None


def fit_mixture(
    passages: Floats, questions: Floats, nearest: Floats, *, clusters: int, width: int, seed: int
) -> Mixture:
    """Fit to ``passages: [n, d]``, and to ``questions: [q, d]`` with the passage ``nearest`` to
    each; ``width`` is d or 2 d."""
    d = passages.shape[1]
    if width not in (d, 2 * d):
        raise SystemExit(f"--width must be {d} or {2 * d}, the width of the real vectors or twice")
    draw = np.random.default_rng(seed)
    kmeans = faiss.Kmeans(d, clusters, niter=8, seed=1 + seed, spherical=False, verbose=False)
    kmeans.train(passages)
    _, labels = kmeans.index.search(passages, 1)
    labels = labels[:, 0]
    residuals = passages - kmeans.centroids[labels]
    counts = np.bincount(labels, minlength=clusters)
    squares = np.einsum("nd,nd->n", residuals, residuals)
    of_cluster = np.bincount(labels, weights=squares, minlength=clusters) / np.maximum(counts, 1)
    radii = np.sqrt(of_cluster / squares.mean())
    rotation = None
    if width == 2 * d:
        rotation = np.linalg.qr(draw.standard_normal((width, width)))[0].astype(np.float32)
    nearness = np.einsum("qd,qd->q", questions, nearest)
    scaled = residuals / np.maximum(radii[labels], 0.1)[:, None]
    return Mixture(
        kmeans.centroids.astype(np.float32),
        counts / counts.sum(),
        radii.astype(np.float32),
        _root(scaled),
        nearness.astype(np.float32),
        _root(questions - nearness[:, None] * nearest),
        draw.permutation(clusters),
        rotation,
    )


def draw_vectors(mixture: Mixture, n: int, *, seed: int, block: int = 65_536) -> Iterator[Floats]:
    """Yield ``n`` unit vectors in blocks; the same seed gives the same vectors."""
    for start in range(0, n, block):
        draw = np.random.default_rng((seed, start))
        yield _passages(mixture, min(block, n - start), draw)


def draw_questions(mixture: Mixture, passages: Floats, *, seed: int) -> Floats:
    """Return a question for each of ``passages: [q, width]``, as far from it as real ones are."""
    draw = np.random.default_rng(seed)
    d = len(mixture.asked)
    made = passages
    if mixture.rotation is not None:
        made = passages @ mixture.rotation.T * np.float32(np.sqrt(2))
    near = draw.choice(mixture.nearness, size=len(made))[:, None]
    halves = [
        _unit(near * half + np.sqrt(1 - near**2) * _unit(_noise(draw, len(made), mixture.asked)))
        for half in np.split(made, made.shape[1] // d, axis=1)
    ]
    return _join(mixture, halves)


def _passages(mixture: Mixture, n: int, draw: np.random.Generator) -> Floats:
    chosen = draw.choice(len(mixture.shares), size=n, p=mixture.shares)
    clusters = [chosen] if mixture.rotation is None else [chosen, mixture.partner[chosen]]
    halves = [
        _unit(
            mixture.centroids[labels]
            + mixture.radii[labels, None] * _noise(draw, n, mixture.within)
        )
        for labels in clusters
    ]
    return _join(mixture, halves)


def _join(mixture: Mixture, halves: list[Floats]) -> Floats:
    if mixture.rotation is None:
        return halves[0]
    return np.hstack(halves) @ mixture.rotation / np.float32(np.sqrt(2))


def _noise(draw: np.random.Generator, n: int, root: Floats) -> Floats:
    return draw.standard_normal((n, len(root)), dtype=np.float32) @ root


def _unit(vectors: Floats) -> Floats:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _root(residuals: Floats) -> Floats:
    """Symmetric root of the covariance around zero, ``[d, d]``."""
    covariance = (residuals.T @ residuals).astype(np.float64) / len(residuals)
    values, vectors = np.linalg.eigh(covariance)
    return ((vectors * np.sqrt(values.clip(min=0))) @ vectors.T).astype(np.float32)
