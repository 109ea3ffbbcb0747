r"""The largest stable step sizes over a common Hessian, exactly.

Where every f_i has the Hessian a I, a method falls apart into the average's 1 - \eta a and one small recursion for each
eigenvalue w != 1 of W, of which x = \eta a is the only parameter. With (A, I - C, B^2) from `theory.bounds._quadratics`
its roots are those of z^2 - (1 + A (I - C) - B^2 - A x) z + A (I - C - x), and Jury's conditions p(1) > 0, p(-1) > 0,
|p(0)| < 1 decide. p(-1) > 0 is the one that binds, at the smallest eigenvalue:

    DIGing   (1 + w)^2 > 2 x,    AugDGM (1 + w)^2 > 2 w^2 x,    EXTRA 5 + 3 w > 4 x,    NIDS, exact diffusion, D2 none;

for ATC tracking it is |p(0)| = |w^2 - w x| < 1 at w < 0. The average asks for x < 2. Curvatures between 0 and a are
stable as well, since the conditions are linear in x.
"""

from typing import Any

import numpy as np
import sympy

from theory.bounds._bound import Bound, Search
from theory.bounds._laplacians import Measured, Table
from theory.bounds._quadratics import DIMENSION, FORMS, quadratics
from theory.bounds.symbols import lambda_n

BISECTIONS = 50


def modal_radius(method: str, w: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The largest modulus of a root on the mode of eigenvalue w, for the product x of step size and curvature."""
    if method == "dsgd_cta":
        return np.abs(w - x)
    if method == "dsgd_atc":
        return np.abs(w * (1 - x))
    combine, keep, square = FORMS[method](w)
    half, product = (1 + combine * keep - square - combine * x) / 2, combine * (keep - x)
    root = np.sqrt(half**2 - product + 0j)
    return np.maximum(np.abs(half + root), np.abs(half - root))


def _search(method: str) -> Search:
    """The largest stable x by bisection, over random and extreme spectra."""

    def measure(points: np.ndarray) -> Measured:
        collected = Table(len(points))
        for group in quadratics(points):
            modes = group.eigenvalues[:, group.dim :]
            low, high = np.zeros(len(modes)), np.full(len(modes), 4.0)
            for _ in range(BISECTIONS):
                x = (low + high) / 2
                stable = (modal_radius(method, modes, x[:, None]).max(1) < 1) & (np.abs(1 - x) < 1)
                low, high = np.where(stable, x, low), np.where(stable, high, x)
            collected.put(group.rows, low, group.constants())
        return collected.result()

    return Search(DIMENSION, measure, slack=1e-7)


def _limit(method: str, title: str, expression: Any, note: str = "", condition: Any = sympy.true) -> Bound:
    return Bound(
        name=f"{method}_step_limit",
        statement=f"{title} converges for all curvatures up to L if and only if the step size times L is below this.",
        quantity=r"(\eta L)_{\max}",
        expression=sympy.sympify(expression),
        reference=f"Jury's conditions on the modal polynomial{note}",
        evidence="derived",
        direction="equal",
        of="stability",
        condition=condition,
        assumptions=("W symmetric, doubly stochastic, connected", "all nodes have the same Hessian"),
        methods=(method,),
        search=_search(method),
    )


_ATC = sympy.Piecewise((sympy.Min(2, (lambda_n**2 - 1) / lambda_n), lambda_n < 0), (2, True))
_LI_YAN = "; the bound of Li and Yan, 2021"
_LI_SHI_YAN = "; Li, Shi, Yan, IEEE TSP 2019: for any objectives"

BOUNDS = (
    _limit("dsgd_cta", "DGD", 1 + lambda_n, "; for any convex L-smooth objectives, see dgd"),
    _limit("dsgd_atc", "Adapt-then-combine D-SGD", 2),
    _limit("diging", "DIGing", (1 + lambda_n) ** 2 / 2),
    _limit("atc_tracking", "ATC gradient tracking", _ATC),
    _limit("aug_dgm", "AugDGM", sympy.Min(2, (1 + lambda_n) ** 2 / (2 * lambda_n**2))),
    _limit("extra", "EXTRA", (5 + 3 * lambda_n) / 4, _LI_YAN),
    _limit("nids", "NIDS", 2, _LI_SHI_YAN),
    _limit("exact_diffusion", "Exact diffusion", 2),
    _limit("d2", "D2", 2, ": p(-1) > 0 for all x > 0 where w >= -1/3", lambda_n > sympy.Rational(-1, 3)),
)
