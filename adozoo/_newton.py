"""The optimum of a regularised linear model, by Newton's method on the host."""

import numpy as np
import scipy.linalg


def pooled_optimum(kind: str, rows: np.ndarray, targets: np.ndarray, share: np.ndarray, l2: float) -> np.ndarray:
    """Damped Newton in float64 on the pooled samples, until the gradient no longer shrinks."""

    def loss(x: np.ndarray) -> float:
        scores = rows @ x
        fit = (scores - targets) ** 2 / 2 if kind == "squared" else np.logaddexp(0, -targets * scores)
        return float(share @ fit + l2 * x @ x / 2)

    def derivatives(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores = rows @ x
        if kind == "squared":
            slope, bend = scores - targets, np.ones_like(scores)
        else:
            chance = 0.5 * (1 + np.tanh(-targets * scores / 2))  # a sigmoid that does not overflow
            slope, bend = -targets * chance, chance * (1 - chance)
        hessian = (rows * (share * bend)[:, None]).T @ rows + l2 * np.eye(rows.shape[1])
        return rows.T @ (share * slope) + l2 * x, hessian

    x = np.zeros(rows.shape[1])
    best = np.inf
    for _ in range(100):
        slope, hessian = derivatives(x)
        if kind == "squared" and np.linalg.cond(hessian) > 1e14:
            raise ValueError("least_squares: the data leave the optimum undetermined. Pass l2 > 0.")
        size = float(np.linalg.norm(slope))
        if size >= 0.5 * best and size < 1e-10:
            break
        best = min(best, size)
        direction = scipy.linalg.solve(hessian, slope, assume_a="pos")
        length, value = 1.0, loss(x)
        while size > 1e-6 and loss(x - length * direction) > value - 1e-4 * length * slope @ direction:
            length /= 2
        x = x - length * direction
    return x
