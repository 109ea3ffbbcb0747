r"""The consensus lemma of A2CiD2 as a theorem with its proof, every step checked by computer algebra.

Vectors enter through their inner products only: a vector is a combination of x, x~ and the link's e = e_i - e_j, and
quadratic forms are expanded by bilinearity from the Gram matrices of (x, x~, e), in the Euclidean product and in that
of \Lambda^+. So steps hold for every graph, size and state. What enters from outside is stated as a premise:

- \sum_e r_e (e'y)(e'z) = y' \Lambda z by definition of \Lambda, and \Lambda \Lambda^+ x~ = x~ as x~ sums to zero;
- R_e = |e|^2_{\Lambda^+} <= 2 \chi_2 and \lambda_k >= 1 / \chi_1, by definition of \chi_2 and \chi_1;
- Dynkin's formula, d/dt E V = E (generator of V), for fixed rates.

An inequality is checked as an identity: the larger side minus the smaller one is a sum of products of factors, each of
which is nonnegative by its assumptions.

References:
    Nabli, Belilovsky, Oyallon, "A2CiD2: accelerating asynchronous communication in decentralized deep learning",
    NeurIPS 2023.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sympy

from theory import bounds
from theory.bounds.asynchronous import chi_1, chi_2

RELATIONS = {"=": "=", "<=": r"\le"}


@dataclass(frozen=True)
class ProofStep:
    """One line of a proof, which `verify` checks.

    Attributes:
      name: how other steps refer to it.
      statement: what it says, in a sentence.
      left: the left-hand side.
      relation: "=" or "<=".
      right: the right-hand side.
      surplus: right - left as products of nonnegative factors, to be added; empty for identities.
    """

    name: str
    statement: str
    left: sympy.Expr
    relation: str
    right: sympy.Expr
    surplus: tuple[tuple[sympy.Expr, ...], ...] = ()

    def verify(self) -> bool:
        """Whether right - left is the surplus, and the surplus nonnegative; without one, whether both are equal.

        Example:
          >>> theory.consensus_lemma().steps[0].verify()
          True
        """
        nonnegative = all(factor.is_nonnegative for factors in self.surplus for factor in factors)
        difference = self.right - self.left - sum((sympy.Mul(*factors) for factors in self.surplus), sympy.Integer(0))
        settled = self.relation == "<=" or not self.surplus
        return bool(nonnegative and settled and sympy.simplify(sympy.expand(difference)) == 0)

    def latex(self) -> str:
        """The step as LaTeX."""
        return f"{sympy.latex(self.left)} {RELATIONS[self.relation]} {sympy.latex(self.right)}"


@dataclass(frozen=True)
class Lemma:
    """A theorem with a proof.

    Attributes:
      name: the bound in `theory.bounds` that it proves.
      statement: what it says.
      premises: what the steps take from elsewhere, in words.
      notation: what the steps' symbols stand for.
      steps: the proof.
    """

    name: str
    statement: str
    premises: tuple[str, ...]
    notation: tuple[str, ...]
    steps: tuple[ProofStep, ...]

    @property
    def bound(self) -> bounds.Bound:
        """The theorem as a bound that can be evaluated and put to the test."""
        return bounds.entry(self.name)

    def step(self, name: str) -> ProofStep:
        """One step by name.

        Raises:
          ValueError: for an unknown name.
        """
        named = {step.name: step for step in self.steps}
        if name not in named:
            raise ValueError(f"Lemma {self.name}: no step is called {name!r}. There are {', '.join(named)}.")
        return named[name]

    def verify(self) -> bool:
        """Whether every step holds.

        Example:
          >>> theory.consensus_lemma().verify()
          True
        """
        return all(step.verify() for step in self.steps)

    def __str__(self) -> str:
        lines = [self.statement, *(f"  given: {premise}" for premise in self.premises)]
        lines += [f"  where {symbols}" for symbols in self.notation]
        for number, step in enumerate(self.steps, 1):
            lines += [f"{number}. {step.statement}", f"     {step.left} {step.relation} {step.right}"]
        return "\n".join(lines)


_p, _q = sympy.symbols("p q", real=True)  # e'x and e' Lambda^+ x~
_R, _rate, _eta, _b, _tilde, _t = sympy.symbols("R r eta b alpha_tilde t", positive=True)
_X, _Y, _X_plus, _Y_plus, _D, _RD = sympy.symbols("X Y X_+ Y_+ D D_R", nonnegative=True)
_XY, _XY_plus, _coordinate = sympy.symbols("C C_+ x_k", real=True)
_V = sympy.Function("V", nonnegative=True)(_t)
# By how much less the smaller side of an inequality is: of a link, a mode, and in sums.
_link_slack, _mode_slack, _energy_slack, _norm_slack, _square, _total = sympy.symbols(
    "s_R s_lambda S_R S_lambda S_+ S", nonnegative=True
)
NOTATION = (
    "X = |x|^2, Y = |x~|^2, C = <x, x~>; X_+, Y_+, C_+ are the same in the product of Lambda^+",
    "p = e'x and q = e' Lambda^+ x~ for a link's e = e_i - e_j, r its rate, R = |e|_{Lambda^+}^2 its resistance",
    "D = sum of r p^2, D_R = sum of r R p^2",
    "s_R = 2 chi_2 - R, s_lambda = chi_1 - 1 / lambda, and S_R = 2 chi_2 D - D_R, S_lambda = chi_1 X - X_+, "
    "S_+ = |x - x~|_{Lambda^+}^2, S their weighted sum: not negative",
)

_EUCLIDEAN = {("x", "x"): _X, ("x", "e"): _p, ("e", "e"): sympy.Integer(2), ("x", "x~"): _XY, ("x~", "x~"): _Y}
_PLUS = {("x~", "x~"): _Y_plus, ("x~", "e"): _q, ("e", "e"): _R, ("x", "x~"): _XY_plus, ("x", "x"): _X_plus}
_CHOSEN = {_b: 1 / chi_1, _eta: 1 / (2 * sympy.sqrt(chi_1 * chi_2)), _tilde: sympy.sqrt(chi_1 / chi_2) / 2}


def inner(gram: Mapping[tuple[str, str], Any], left: Mapping[str, Any], right: Mapping[str, Any]) -> sympy.Expr:
    """The inner product of two combinations of named vectors, by bilinearity.

    Args:
      gram: the inner products of the vectors, one for each unordered pair that occurs.
      left: one combination, name of a vector -> its coefficient.
      right: the other one.

    Returns:
      The expanded sum.

    Example:
      >>> gram = {("a", "a"): 1, ("a", "b"): 2, ("b", "b"): 5}
      >>> theory.asynchronous_proofs.inner(gram, {"a": 1, "b": -1}, {"a": 1, "b": -1})
      2
    """
    terms = (
        c * d * (gram[one, other] if (one, other) in gram else gram[other, one])
        for one, c in left.items()
        for other, d in right.items()
    )
    return sympy.expand(sum(terms, sympy.Integer(0)))


def over_links(expression: sympy.Expr) -> sympy.Expr:
    """Sum over links with their rates what one event changes: the first premise, monomial by monomial.

    Raises:
      ValueError: for a term that the premise says nothing about.
    """
    sums = {(2, 0, 0): _D, (1, 1, 0): _XY, (2, 0, 1): _RD}
    found = sympy.Integer(0)
    for powers, coefficient in sympy.Poly(expression, _p, _q, _R).terms():
        if powers not in sums:
            raise ValueError(
                f"over_links: no rule for p^{powers[0]} q^{powers[1]} R^{powers[2]}; allowed: {list(sums)}."
            )
        found += coefficient * sums[powers]
    return found


def _links() -> tuple[ProofStep, ...]:
    """What events and flow do to |x|^2 and |x~|^2_{Lambda^+}."""
    after, after_tilde = {"x": 1, "e": -_p / 2}, {"x~": 1, "e": -_tilde * _p}
    jump = inner(_EUCLIDEAN, after, after) - _X
    jump_tilde = inner(_PLUS, after_tilde, after_tilde) - _Y_plus
    flow = 2 * inner(_EUCLIDEAN, {"x": 1}, {"x": -_eta, "x~": _eta})
    flow_tilde = 2 * inner(_PLUS, {"x~": 1}, {"x": _eta, "x~": -_eta})
    generator = flow + over_links(jump) + _b * (flow_tilde + over_links(jump_tilde))
    return (
        ProofStep("jump", "A meeting takes half of (e'x)^2 off |x|^2.", jump, "=", -(_p**2) / 2),
        ProofStep(
            "jump_tilde",
            "In the norm of Lambda^+ it changes |x~|^2 by a cross term and by the link's resistance R.",
            jump_tilde,
            "=",
            -2 * _tilde * _p * _q + _tilde**2 * _R * _p**2,
        ),
        ProofStep("flow", "The flow pulls x towards x~.", flow, "=", 2 * _eta * (_XY - _X)),
        ProofStep("flow_tilde", "And x~ towards x.", flow_tilde, "=", 2 * _eta * (_XY_plus - _Y_plus)),
        ProofStep(
            "generator",
            "Summed over links at their rates, this is the generator of V = |x|^2 + b |x~|^2_{Lambda^+}.",
            generator,
            "=",
            2 * _eta * (_XY - _X)
            - _D / 2
            + _b * (2 * _eta * (_XY_plus - _Y_plus) - 2 * _tilde * _XY + _tilde**2 * _RD),
        ),
    )


def _inequalities() -> tuple[ProofStep, ...]:
    """What resistances and eigenvalues allow, and what the choice of parameters cancels."""
    difference = {"x": 1, "x~": -1}
    return (
        ProofStep(
            "resistance",
            "R <= 2 chi_2, link by link: sum r R (e'x)^2 <= 2 chi_2 x' Lambda x.",
            _rate * (2 * chi_2 - _link_slack) * _p**2,
            "<=",
            _rate * 2 * chi_2 * _p**2,
            ((_rate, _link_slack, _p**2),),
        ),
        ProofStep(
            "connectivity",
            "1 / lambda <= chi_1, mode by mode: |x|^2_{Lambda^+} <= chi_1 |x|^2.",
            (chi_1 - _mode_slack) * _coordinate**2,
            "<=",
            chi_1 * _coordinate**2,
            ((_mode_slack, _coordinate**2),),
        ),
        ProofStep(
            "young",
            "Twice a product is the sum of squares less that of the difference, S_+ = |x - x~|^2_{Lambda^+} >= 0.",
            inner(_PLUS, difference, difference),
            "=",
            _X_plus + _Y_plus - 2 * _XY_plus,
        ),
        ProofStep(
            "cross_terms",
            "b alpha~ = eta: the terms in <x, x~> cancel.",
            (2 * _b * _tilde * _XY).subs(_CHOSEN),
            "=",
            (2 * _eta * _XY).subs(_CHOSEN),
        ),
        ProofStep(
            "energy",
            "2 b alpha~^2 chi_2 = 1/2: what links add to x~ is what they take from x.",
            (_b * _tilde**2 * 2 * chi_2 * _D).subs(_CHOSEN),
            "=",
            _D / 2,
        ),
    )


def _conclusion(generator: sympy.Expr) -> tuple[ProofStep, ...]:
    # The earlier steps as equations, with their slacks.
    known = {_RD: 2 * chi_2 * _D - _energy_slack, _X_plus: chi_1 * _X - _norm_slack}
    product = {_XY_plus: (_X_plus + _Y_plus - _square) / 2}
    eta, b, tilde = (_CHOSEN[each] for each in (_eta, _b, _tilde))
    energy = _X + _b * _Y_plus
    decay = (sympy.diff(sympy.exp(eta * _t) * _V, _t)).subs(sympy.diff(_V, _t), -eta * _V - _total)
    initial = {_Y_plus: _X_plus}
    return (
        ProofStep(
            "decay",
            "Together: the generator of V is at most -eta V, by the three slacks.",
            generator.subs(product).subs(known).subs(_CHOSEN),
            "<=",
            (-_eta * energy).subs(_CHOSEN),
            ((b, tilde**2, _energy_slack), (b, eta, _square), (b, eta, _norm_slack)),
        ),
        ProofStep(
            "gronwall",
            "So e^{eta t} E V never grows: E V_t <= e^{-eta t} V_0.",
            decay,
            "<=",
            sympy.Integer(0),
            ((sympy.exp(eta * _t), _total),),
        ),
        ProofStep(
            "below",
            "|x|^2 <= V.",
            _X,
            "<=",
            energy.subs(_CHOSEN),
            ((b, _Y_plus),),
        ),
        ProofStep(
            "start",
            "V_0 <= 2 |x_0|^2 where x~ = x at the start.",
            energy.subs(initial).subs(known).subs(_CHOSEN),
            "<=",
            2 * _X,
            ((b, _norm_slack),),
        ),
    )


def consensus_lemma() -> Lemma:
    r"""E|x_t - \bar x|^2 <= 2 e^{-\eta t} |x_0 - \bar x|^2 for A2CiD2 without gradients, with the proof's steps.

    x and x~ are deviations from the mean, which exchanges do not move; \alpha = 1/2, \tilde\alpha = \frac12
    \sqrt{\chi_1 / \chi_2}, \eta = 1 / (2 \sqrt{\chi_1 \chi_2}), and V = |x|^2 + |x~|^2_{\Lambda^+} / \chi_1.

    Returns:
      `Lemma`, whose `verify()` checks all steps and whose `bound` can be evaluated and put to the test.

    Example:
      >>> lemma = theory.consensus_lemma()
      >>> lemma.verify(), lemma.bound.expression
      (True, 1/(2*sqrt(chi_1)*sqrt(chi_2)))
      >>> print(lemma.step("energy").statement)
      2 b alpha~^2 chi_2 = 1/2: what links add to x~ is what they take from x.
    """
    links = _links()
    return Lemma(
        name="a2cid2_consensus",
        statement="Without gradients, A2CiD2 from x~ = x has E|x - xbar|^2 <= 2 exp(-eta t) |x_0 - xbar|^2, "
        "eta = 1 / (2 sqrt(chi_1 chi_2)).",
        premises=(
            "sum over links of r (e'y)(e'z) = y' Lambda z, and Lambda Lambda^+ is the identity on sums of zero",
            "R_e <= 2 chi_2 on every link, and 1 / lambda_k <= chi_1 for every positive eigenvalue of Lambda",
            "d/dt E V is the expectation of V's generator; rates, and with them Lambda^+ in V, do not change",
        ),
        notation=NOTATION,
        steps=(*links, *_inequalities(), *_conclusion(links[-1].right)),
    )
