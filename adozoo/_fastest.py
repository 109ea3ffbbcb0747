"""The semidefinite program behind `adozoo.weights.fastest`, solved by Clarabel."""

import importlib
from typing import Any

import numpy as np
import scipy.sparse as sp


def solve_fastest(n: int, tails: np.ndarray, heads: np.ndarray, nonnegative: bool) -> np.ndarray:
    """The optimal link weights [m]. Clarabel's form is: min c'z such that b - Az lies in a product of cones."""
    try:
        clarabel: Any = importlib.import_module("clarabel")  # its classes are compiled: no types to be seen
    except ImportError as error:
        raise ImportError("fastest needs the solver clarabel: pip install 'adozoo[solvers]'.") from error
    m, size = len(tails), n * (n + 1) // 2

    def place(i: np.ndarray, j: np.ndarray) -> np.ndarray:  # upper triangle, column by column
        return np.maximum(i, j) * (np.maximum(i, j) + 1) // 2 + np.minimum(i, j)

    # z = (w, s), W = I - Lap(w). Off-diagonal entries count twice in the norm, hence sqrt(2) in Clarabel's triangle.
    link, node = np.arange(m), np.arange(n)
    rows = np.concatenate([place(tails, tails), place(heads, heads), place(tails, heads)])
    entries = np.concatenate([np.ones(2 * m), np.full(m, -np.sqrt(2))])
    laplacian = sp.coo_array((entries, (rows, np.tile(link, 3))), shape=(size, m))
    identity = sp.coo_array((np.ones(n), (place(node, node), np.zeros(n, dtype=int))), shape=(size, 1))
    upper_row, upper_column = np.triu_indices(n)
    excess = np.zeros(size)  # the triangle of I - J
    excess[place(upper_row, upper_column)] = np.where(upper_row == upper_column, 1 - 1 / n, -np.sqrt(2) / n)
    blocks: list[list[Any]] = [[-laplacian, -identity], [laplacian, -identity]]
    bounds = [-excess, excess]  # s I -+ (I - J - Lap(w)) is positive semidefinite
    cones = [clarabel.PSDTriangleConeT(n), clarabel.PSDTriangleConeT(n)]
    if nonnegative:
        incidence = sp.coo_array((np.ones(2 * m), (np.concatenate([tails, heads]), np.tile(link, 2))), shape=(n, m))
        blocks += [[-sp.eye_array(m), None], [incidence, None]]
        bounds += [np.zeros(m), np.ones(n)]
        cones.append(clarabel.NonnegativeConeT(m + n))
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-9
    cost = np.append(np.zeros(m), 1.0)
    # Clarabel takes scipy's matrix class, not its array class.
    constraints = sp.csc_matrix(sp.block_array(blocks))
    solver = clarabel.DefaultSolver(
        sp.csc_matrix((m + 1, m + 1)), cost, constraints, np.concatenate(bounds), cones, settings
    )
    solution = solver.solve()
    if solution.status not in (clarabel.SolverStatus.Solved, clarabel.SolverStatus.AlmostSolved):
        raise RuntimeError(
            f"fastest: clarabel stopped with {solution.status} on {n} nodes and {m} edges. Use metropolis."
        )
    return np.array(solution.x[:m])
