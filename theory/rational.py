"""Certificates in exact arithmetic: what a floating-point solver suggests, checked over the rational numbers.

The method's entries are replaced by the simplest fractions within 1e-12 (0.1 becomes 1/10), the reachable subspaces and
the method's fixed point are found by exact elimination, and the signs of the matrix inequalities by exact pivots. No
rounding enters: if the answer is yes, the rate is proved for the method with those fractions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from sympy import QQ
from sympy.polys.matrices import DomainMatrix

from theory.extraction import StateSpace

DENOMINATOR = 10**6
"""Fractions with denominators up to this are told apart by numbers that are good to 1e-12."""


def simplest(value: Any) -> Fraction:
    """The fraction that a float stands for: 0.1 is 1/10.

    Example:
      >>> theory.rational.simplest(0.1), theory.rational.simplest(1 / 3)
      (Fraction(1, 10), Fraction(1, 3))
    """
    near = Fraction(float(value)).limit_denominator(DENOMINATOR)
    return near if abs(near - Fraction(float(value))) <= 1e-12 * max(1, abs(near)) else Fraction(float(value))


def fractions(matrix: np.ndarray) -> DomainMatrix:
    """A matrix of simplest fractions."""
    return _exact([[simplest(x) for x in row] for row in matrix], matrix.shape)


def exactly(matrix: np.ndarray) -> DomainMatrix:
    """A matrix of floats, taken at their word."""
    return _exact([[Fraction(float(x)) for x in row] for row in matrix], matrix.shape)


def _exact(rows: Sequence[Sequence[Fraction]], shape: tuple[int, ...]) -> DomainMatrix:
    return DomainMatrix([[QQ(x.numerator, x.denominator) for x in row] for row in rows], (shape[0], shape[1]), QQ)


def eye(size: int) -> DomainMatrix:
    """The identity."""
    return DomainMatrix.eye(size, QQ)


def reachable(A: DomainMatrix, seeds: DomainMatrix) -> DomainMatrix:
    """A basis of the smallest A-invariant subspace that contains the columns of `seeds`."""
    basis = _independent(seeds)
    while True:
        larger = _independent(basis.hstack(A * basis))
        if larger.shape[1] == basis.shape[1]:
            return basis
        basis = larger


def _independent(columns: DomainMatrix) -> DomainMatrix:
    pivots = columns.rref()[1]
    return columns.extract(list(range(columns.shape[0])), list(pivots))


def solvable(matrix: DomainMatrix, target: DomainMatrix) -> bool:
    """Whether matrix x = target has a solution."""
    return matrix.hstack(target).rref()[1] == matrix.rref()[1]


def coordinates(basis: DomainMatrix, columns: DomainMatrix) -> DomainMatrix:
    """The coordinates of columns that lie in the span of the basis."""
    return (basis.transpose() * basis).inv() * (basis.transpose() * columns)


def positive_definite(matrix: DomainMatrix) -> bool:
    """Whether a symmetric matrix has only positive pivots."""
    rows = [[Fraction(int(x.numerator), int(x.denominator)) for x in row] for row in matrix.to_list()]
    for k, pivot_row in enumerate(rows):
        if pivot_row[k] <= 0:
            return False
        for row in rows[k + 1 :]:
            factor = row[k] / pivot_row[k]
            for j in range(k, len(row)):
                row[j] -= factor * pivot_row[j]
    return True


def _zeros(rows: int, columns: int) -> DomainMatrix:
    return DomainMatrix.zeros((rows, columns), QQ)


def _number(value: Fraction) -> Any:
    return QQ(value.numerator, value.denominator)


@dataclass(frozen=True, eq=False)
class RationalSystem:
    """A method's matrices and its class over the rational numbers, with gradients in units of L.

    Attributes:
      average, node: (A, B, basis of the reachable states, floating basis that belongs to it), with the inputs u and v
        side by side in B; disagreements of the average are zero.
      C_y, C_z, D: outputs; D = [D_zu D_zv].
      ratio: mu / L.
      sigma: the largest ||W - J||.
    """

    average: tuple[DomainMatrix, DomainMatrix, DomainMatrix, np.ndarray]
    node: tuple[DomainMatrix, DomainMatrix, DomainMatrix, np.ndarray]
    C_y: DomainMatrix
    C_z: DomainMatrix
    D: DomainMatrix
    ratio: Fraction
    sigma: Fraction

    @classmethod
    def of(cls, system: StateSpace, strong_convexity: float, smoothness: float, sigma: float) -> "RationalSystem":
        """Round a system and its class to the simplest fractions."""
        L = simplest(smoothness)
        A, B_u, B_v = fractions(system.A), fractions(system.B_u) * _number(L), fractions(system.B_v)
        C_z, D_zu, D_zv = fractions(system.C_z), fractions(system.D_zu) * _number(L), fractions(system.D_zv)
        start, floating = fractions(system.start), system
        average = (A, B_u, reachable(A, start.hstack(B_u)), system.mean_basis)
        if sigma == 0:  # every v is z
            floating = system.averaged
            answers = B_v * (eye(len(system.C_z)) - D_zv).inv()
            A, B_u, B_v = A + answers * C_z, B_u + answers * D_zu, _zeros(len(system.A), 0)
            C_z, D_zu, D_zv = _zeros(0, len(system.A)), _zeros(0, 1), _zeros(0, 0)
        seeds = B_u.hstack(B_v) if system.equal_start else start.hstack(B_u, B_v)
        node = (A, B_u.hstack(B_v), reachable(A, seeds), floating.disagreement_basis)
        ratio = simplest(strong_convexity) / L
        return cls(average, node, fractions(system.C_y), C_z, D_zu.hstack(D_zv), ratio, simplest(sigma))

    @property
    def exact(self) -> bool:
        """`StateSpace.exactness_defect` without rounding: are both defects zero?"""
        states = self.C_y.shape[1]
        if any(exact.shape[1] != floating.shape[1] for _, _, exact, floating in (self.average, self.node)):
            return False  # the fractions reach other states than the floats, which the solver's answer is about
        A, _, basis, _ = self.average
        if not solvable((A - eye(states)).vstack(self.C_y) * basis, _zeros(states, 1).vstack(eye(1))):
            return False
        A, B, basis, _ = self.node
        rest = (A - eye(states)).vstack(self.C_y, self.C_z) * basis
        drive = B.extract(list(range(states)), [0]).vstack(_zeros(1, 1), self.D.extract(range(self.D.shape[0]), [0]))
        return solvable(rest, -drive)

    def proves(self, rate: Fraction, average: Sequence[np.ndarray], node: Sequence[np.ndarray]) -> bool:
        """Whether the floats (P, -) and (Q, R), as they are, satisfy both inequalities strictly at this rate."""
        return self._proves(rate, self.average, average[0], None) and self._proves(rate, self.node, *node)

    def _proves(self, rate: Fraction, part: Any, form: np.ndarray, weights: np.ndarray | None) -> bool:
        A, B, basis, floating = part
        size, inputs = basis.shape[1], B.shape[1]
        # The form was found in an orthonormal basis of floats: rewrite it in the exact one.
        change = floating.T @ np.array(basis.to_Matrix().tolist(), dtype=float).reshape(basis.shape)
        P = exactly(change).transpose() * exactly(form) * exactly(change)
        after = coordinates(basis, (A * basis).hstack(B)) if size else _zeros(0, inputs)
        before = eye(size).hstack(_zeros(size, inputs))
        gradient = _zeros(1, size).hstack(eye(1), _zeros(1, inputs - 1))
        outer = (self.C_y * basis).hstack(_zeros(1, inputs)).vstack(gradient)
        k = _number(self.ratio)
        M_0 = DomainMatrix([[-2 * k, 1 + k], [1 + k, QQ(-2)]], (2, 2), QQ)
        left = after.transpose() * P * after - before.transpose() * P * before * _number(rate) ** 2
        left = left + outer.transpose() * M_0 * outer
        if weights is not None and len(weights):
            R = exactly(weights)
            even = (R + R.transpose()) * QQ(1, 2)  # R is not symmetric if every W is
            sent = (self.C_z * basis).hstack(self.D)
            answers = _zeros(len(weights), size + 1).hstack(eye(len(weights)))
            cross = sent.transpose() * R * answers
            left = left + sent.transpose() * even * sent * (_number(self.sigma) ** 2 - 1) + cross + cross.transpose()
            left = left - answers.transpose() * even * answers
            if not positive_definite(even):
                return False
        return positive_definite(P) and positive_definite(-left)
