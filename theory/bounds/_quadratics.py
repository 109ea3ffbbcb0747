r"""Heterogeneous quadratics over weighted graphs out of the unit cube, and the step of every exact method on them.

All exact linear methods of one mixing a step are one primal-dual recursion (Alghunaim, Ryu, Yuan, Sayed, IEEE TAC
2021), with commuting polynomials A, C, B of W, B^2 = 0 on consensus only, z the iterate before its combination x = A z:

    z <- (I - C) x - \eta g(x) - B y,    y <- y + B z (the new z),    x <- A z.

Errors are measured in the eigenbasis of W, in which y has no consensus part.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from theory.bounds._laplacians import columns, laplacians, logarithmic, tiled

Modes = Float[np.ndarray, "..."]

FORMS: dict[str, Callable[[Modes], tuple[Modes, Modes, Modes]]] = {
    "extra": lambda w: (np.ones_like(w), (1 + w) / 2, (1 - w) / 2),
    "nids": lambda w: ((1 + w) / 2, np.ones_like(w), (1 - w) / 2),
    "exact_diffusion": lambda w: ((1 + w) / 2, np.ones_like(w), (1 - w) / 2),
    "d2": lambda w: (w, np.ones_like(w), 1 - w),
    "diging": lambda w: (np.ones_like(w), w**2, (1 - w) ** 2),
    "atc_tracking": lambda w: (w, w, (1 - w) ** 2),
    "aug_dgm": lambda w: (w**2, np.ones_like(w), (1 - w) ** 2),
}
"""(A, I - C, B^2) as functions of the eigenvalues of W, by method."""

SIZES = (2, 3, 4, 6)
NODE_COORDINATES = 6
DIMENSION = columns(SIZES) + 5 + 3 * NODE_COORDINATES


class Quadratics(NamedTuple):
    """A group of instances of equal size, in the eigenbasis of W (consensus first).

    Attributes:
      rows: which points they come from.
      step: a coordinate in (0, 1], for the step size as a share of what is allowed.
      eigenvalues: of W, each repeated for the d coordinates, [m, n d], in descending order.
      hessian: U' blockdiag(A_i) U, [m, n d, n d].
      strong_convexity, smoothness: mu and L, [m]; all eigenvalues of the A_i lie between.
      nodes: n.
    """

    rows: Int[np.ndarray, " m"]
    step: Float[np.ndarray, " m"]
    eigenvalues: Float[np.ndarray, "m k"]
    hessian: Float[np.ndarray, "m k k"]
    strong_convexity: Float[np.ndarray, " m"]
    smoothness: Float[np.ndarray, " m"]
    nodes: int

    @property
    def dim(self) -> int:
        """Coordinates of each node's params, d."""
        return self.eigenvalues.shape[1] // self.nodes

    @property
    def sigma(self) -> Float[np.ndarray, " m"]:
        """||W - 11'/n||."""
        return np.abs(self.eigenvalues[:, self.dim :]).max(1)

    def constants(self) -> dict[str, Float[np.ndarray, " m"]]:
        """Values of the symbols that all bounds share, without the step size."""
        return {
            "strong_convexity": self.strong_convexity,
            "smoothness": self.smoothness,
            "lambda_2": self.eigenvalues[:, self.dim],
            "lambda_n": self.eigenvalues[:, -1],
            "sigma": self.sigma,
            "nodes": np.full(len(self.rows), float(self.nodes)),
        }


def modal(
    W: Float[np.ndarray, "m n n"], hessians: Float[np.ndarray, "m n d d"]
) -> tuple[Float[np.ndarray, "m k"], Float[np.ndarray, "m k k"]]:
    """Eigenvalues of W (x) I_d and U' blockdiag(A_i) U."""
    values, vectors = np.linalg.eigh(W)
    values, vectors = np.minimum(values[:, ::-1], 1), vectors[:, :, ::-1]
    m, n, d, _ = hessians.shape
    rotated = np.einsum("mik,mil,miab->mkalb", vectors, vectors, hessians, optimize=True)
    return np.repeat(values, d, axis=1), rotated.reshape(m, n * d, n * d)


def quadratics(points: np.ndarray, lowest: float = -0.999) -> Iterator[Quadratics]:
    """Groups of instances: graphs of two to six nodes with any weights and a few large ones, curvatures in [mu, L].

    Args:
      points: [m, >= DIMENSION].
      lowest: the smallest eigenvalue that W may have.
    """
    rest = points[:, columns(SIZES) :]
    for rows, laplacian in laplacians(points, SIZES, named=True):
        n, u = laplacian.shape[1], rest[rows]
        top = np.linalg.eigvalsh(laplacian)[:, -1]
        spread = (1 - lowest) * np.maximum(u[:, 0], 1e-3)
        W = np.eye(n) - (spread / top)[:, None, None] * laplacian
        smoothness = logarithmic(u[:, 1], 0.1, 10.0)
        strong_convexity = smoothness / logarithmic(u[:, 2], 1.0, 1e4)
        nodal = u[:, 5:].reshape(len(rows), 3, NODE_COORDINATES)
        share = np.stack([tiled(nodal[:, 0], n), tiled(nodal[:, 1], n)], axis=2)
        curvature = strong_convexity[:, None, None] + (smoothness - strong_convexity)[:, None, None] * share
        turn = np.pi * tiled(nodal[:, 2], n)
        flat = (u[:, 4] < 0.5) | (n > max(SIZES))
        for dim, chosen in ((1, flat), (2, ~flat)):
            if chosen.any():
                hessians = _turned(curvature[chosen], turn[chosen]) if dim == 2 else curvature[chosen, :, :1, None]
                values, hessian = modal(W[chosen], hessians)
                step = np.maximum(u[chosen, 3], 1e-3)
                constants = strong_convexity[chosen], smoothness[chosen]
                yield Quadratics(rows[chosen], step, values, hessian, *constants, n)


def _turned(curvature: Float[np.ndarray, "m n 2"], angle: Float[np.ndarray, "m n"]) -> Float[np.ndarray, "m n 2 2"]:
    cos, sin = np.cos(angle), np.sin(angle)
    basis = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    return np.einsum("mnij,mnj,mnkj->mnik", basis, curvature, basis)


def step_map(method: str, group: Quadratics, learning_rate: Float[np.ndarray, " m"]) -> Float[np.ndarray, "m s s"]:
    """The linear map of the errors (z, y) in one step, y without its consensus part."""
    combine, keep, square = FORMS[method](group.eigenvalues)
    moved = (_diagonal(keep) - learning_rate[:, None, None] * group.hessian) * combine[:, None, :]
    return _blocks(moved, np.sqrt(square), 1 - square, group.dim)


def lyapunov_factor(method: str, group: Quadratics, learning_rate: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """The worst factor in one step, over all errors, of V = z' (I - B^2) z + y' y; it needs I - B^2 > 0."""
    combine, keep, square = FORMS[method](group.eigenvalues)
    root = np.sqrt(1 - square)
    moved = (_diagonal(keep) - learning_rate[:, None, None] * group.hessian) * (combine / root)[:, None, :]
    dual = np.sqrt(square)
    size = root.shape[1]
    blocks = _blocks(moved, dual, 1 - square, group.dim)
    # (I - B^2)^{1/2} z is the first part of the vector whose norm V is.
    blocks[:, :size] *= root[:, :, None]
    return np.linalg.norm(blocks, 2, axis=(1, 2)) ** 2


def _blocks(moved: np.ndarray, dual: np.ndarray, kept: np.ndarray, dim: int) -> np.ndarray:
    """[[M, -B], [B M, I - B^2]] without the dual variable's consensus part."""
    upper = np.concatenate([moved, -_diagonal(dual)[:, :, dim:]], axis=2)
    lower = np.concatenate([dual[:, :, None] * moved, _diagonal(kept)[:, :, dim:]], axis=2)[:, dim:]
    return np.concatenate([upper, lower], axis=1)


def _diagonal(values: np.ndarray) -> np.ndarray:
    return values[..., None] * np.eye(values.shape[-1])


def radius(matrices: Float[np.ndarray, "m s s"]) -> Float[np.ndarray, " m"]:
    """The largest modulus of an eigenvalue of each matrix."""
    return np.abs(np.linalg.eigvals(matrices)).max(1)
