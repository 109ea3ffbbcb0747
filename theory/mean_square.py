r"""Mean-square rates under random mixings: E||e||^2 of the implemented method, over all that a step's mixing can be.

If step t is z <- T_w z + c_w with probability p_w, independently of the past, the second moment of the error obeys a
linear map of its own (`theory.second_moment`), whose spectral radius is the factor of E||e||^2. It may exceed 1 where
the mean converges.

Errors vanish only around a point that all outcomes keep fixed; exact methods have one. Otherwise the spread of what
the outcomes do at the mean's fixed point, d_w, acts as noise, and the error settles at the solution of
S = \sum_w p_w (T_w S T_w' + d_w d_w').
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import adozoo
from theory.outcomes import Drawn, Outcomes, distribution_period, enumerate_outcomes, merged, message_count
from theory.second_moment import Moments, perron, settled
from theory.stationary import covariance_root, read_out
from theory.step_map import Factory, StepMap, read
from theory.subspaces import moving_basis, spectral_radius

MOST_ENTRIES = 4 * 10**7
"""The Jacobians of all outcomes may have this many entries together."""
COMMON = 1e-9
"""Fixed points closer than this, relative to their size, are common."""


@dataclass(frozen=True)
class MeanSquareRate:
    r"""How a method converges in mean square under a random mixing.

    Attributes:
      factor: E||e^{t+1}||^2 / E||e^t||^2, asymptotically, per step.
      rate: its square root, to be compared with `theory.exact_rate`.
      mean_rate: the rate of the mean error, \rho of the expected step; never above `rate`.
      common_fixed_point: the largest distance that an outcome moves the mean's fixed point; zero where the error can
        vanish (every exact method whose assumptions hold for each outcome).
      node_error: where the squared error settles, (1/n) \sum_i E||x_i - x_i^*||^2 around the mean's fixed point; zero
        where all outcomes share their fixed point (and no gradient noise was given), infinite where factor >= 1.
      mean_error: the same for the mean over nodes, E||\bar x - \bar x^*||^2.
      params: the mean's fixed point, evaluated, stacked [n, ...].
      dimension: of the space in which the second moment lives.
      outcomes: how many different outcomes a step has, at most.
      residual: of the eigenvector behind the factor.
    """

    factor: float
    mean_rate: float
    common_fixed_point: float
    node_error: float
    mean_error: float
    params: Any
    dimension: int
    outcomes: int
    residual: float

    @property
    def rate(self) -> float:
        """sqrt(factor): what the root mean squared error is multiplied with in a step."""
        return float(np.sqrt(self.factor))


def mean_square_rate(
    factory: Factory,
    problem: Any,
    mix_or_outcomes: adozoo.Mixing | Sequence[tuple[float, adozoo.Mixing]],
    noise_covariance: Any = 0.0,
) -> MeanSquareRate:
    r"""The exact mean-square rate of the implemented method under a random mixing.

    Args:
      factory: mix -> transformation, as `lambda mix: adozoo.gradient_tracking(0.1, mix)`.
      problem: a quadratic problem. On others, and for methods that are not linear, the step is linearised at the
        mean's fixed point: right for small errors, where all outcomes share it.
      mix_or_outcomes: a random mixing (`adozoo.random_edge`, `random_matching`, `random_subgraph`, `channel.drops`,
        `channel.link_failures`, perhaps under `gossip_every`), or its outcomes as [(probability, fixed mixing), ...],
        one of which serves all messages of a step.
      noise_covariance: of gradient noise, as in `theory.stationary_error`; it changes the stationary error alone.

    Returns:
      Factor, rate, and where the error settles.

    Raises:
      ValueError: for too many or unknown outcomes, or probabilities that do not sum to one.

    Example:
      >>> problem = adozoo.problems.quadratic(
      ...     jnp.ones((4, 1, 1)), jnp.arange(4.0)[:, None]
      ... )
      >>> edges = adozoo.random_edge(adozoo.graphs.ring(4), jax.random.key(0))
      >>> found = theory.mean_square_rate(
      ...     lambda mix: adozoo.gradient_tracking(0.1, mix), problem, edges
      ... )
      >>> print(
      ...     f"{found.factor:.6f}", found.common_fixed_point < 1e-12
      ... )  # as without gossip's randomness
      0.810000 True

    References:
      Boyd et al., Randomized gossip algorithms, 2006.
    """
    with jax.enable_x64(True):
        schedule, like = _schedule(factory, problem, mix_or_outcomes)
        reference = Drawn(np.stack([outcomes.mean for outcomes in schedule]), *like)
        steps = read(factory, problem, reference)
        walk = _Walk(steps, schedule, like)
        root = covariance_root(noise_covariance, problem.init().shape)
        return walk.solve(root)


def _schedule(factory: Factory, problem: Any, given: Any) -> tuple[list[Outcomes], tuple[Any, ...]]:
    """The outcomes of each step of a period, and how a stand-in for the mixing describes itself."""
    if isinstance(given, adozoo.Mixing):
        period = distribution_period(given)
        if period is None:
            raise ValueError(
                f"mean_square_rate: the distribution of this {type(given).__name__} is not known. Pass its outcomes as "
                "[(probability, mixing), ...]."
            )
        messages = message_count(factory, given, jax.eval_shape(problem.init))
        like = (given.n, given.stochastic, given.symmetric, given.is_mean)
        return [enumerate_outcomes(given, step, messages) for step in range(period)], like
    probabilities, mixings = zip(*given, strict=True)
    sizes = {mix.n for mix in mixings}
    if len(sizes) > 1 or any(mix.varying for mix in mixings):
        raise ValueError("mean_square_rate: outcomes must be fixed mixings over the same nodes.")
    if min(probabilities) < 0 or abs(sum(probabilities) - 1) > 1e-9:
        raise ValueError(
            f"mean_square_rate: probabilities must be >= 0 and sum to one, got a sum of {sum(probabilities):.9g}."
        )
    kinds = {mix.stochastic for mix in mixings} - {"doubly"}
    like = (sizes.pop(), kinds.pop() if kinds else "doubly", all(mix.symmetric for mix in mixings), False)
    matrices = np.stack([np.asarray(mix.matrix, np.float64)[None] for mix in mixings])
    return [merged(np.asarray(probabilities, np.float64), matrices)], like


class _Walk:
    """A method whose step is drawn at random: all outcomes of each step of one period, from the mean's fixed point."""

    def __init__(self, steps: StepMap, schedule: list[Outcomes], like: tuple[Any, ...]):
        self.steps = steps
        self.period = int(np.lcm(len(schedule), steps.period))
        self.schedule = [schedule[t % len(schedule)] for t in range(self.period)]
        largest = max(len(outcomes.probabilities) for outcomes in schedule)
        if largest * steps.size**2 > MOST_ENTRIES:
            raise ValueError(
                f"mean_square_rate: {largest} outcomes times {steps.size}^2 entries of a Jacobian do not fit. Use a "
                "smaller graph or dimension, or simulate many runs."
            )

        def jump(z: Any, fixed: Any, noise: Any, drawn: Any) -> Any:
            return steps.step(z, fixed, noise, Drawn(drawn[None], *like))[0]

        def read_all(z: Any, fixed: Any, drawn: Any) -> Any:
            still = jnp.zeros(steps.inputs)
            jacobians = jax.jacfwd(jump, argnums=(0, 2))
            return jax.vmap(lambda one: (jump(z, fixed, still, one), *jacobians(z, fixed, still, one)))(drawn)

        self.read_all = jax.jit(read_all)

    def follow(self, z: np.ndarray) -> tuple[np.ndarray, list[Any]]:
        """The mean after a period from z; for each step what each outcome does: (spread d_w, T_w, B_w)."""
        phases = []
        for outcomes, now in zip(self.schedule, self.steps.counts(self.period), strict=True):
            found = self.read_all(jnp.asarray(z), now, jnp.asarray(outcomes.matrices))
            images, transitions, injections = (np.asarray(array) for array in found)
            z = outcomes.probabilities @ images
            phases.append((images - z, transitions, injections))
        return z, phases

    def fixed_point(self) -> tuple[np.ndarray, np.ndarray, list[Any]]:
        """The mean's fixed point by Newton's method, the space that some outcome moves, and the phases there."""
        start = np.asarray(self.steps.start)
        z = self.steps.guess
        for iteration in range(20):
            after, phases = self.follow(z)
            basis = moving_basis(np.concatenate([transitions for _, transitions, _ in phases]))
            if not iteration:  # keep what no outcome moves
                z = start + basis @ (basis.T @ (z - start))
                after, phases = self.follow(z)
            defect = basis.T @ (after - z)
            if np.linalg.norm(defect) <= 1e-12 * (1 + np.linalg.norm(z)):
                break
            mean = np.eye(basis.shape[1])
            for outcomes, (_, transitions, _) in zip(self.schedule, phases, strict=True):
                mean = basis.T @ np.tensordot(outcomes.probabilities, transitions, 1) @ basis @ mean
            z = z + basis @ np.linalg.lstsq(np.eye(len(mean)) - mean, defect)[0]
        return z, basis, phases

    def solve(self, root: np.ndarray) -> MeanSquareRate:
        """Rate and stationary error around the mean's fixed point, under gradient noise of covariance root^2."""
        z, basis, phases = self.fixed_point()
        moments, noises, outside, spread = [], [], 0.0, 0.0
        mean = np.eye(basis.shape[1])
        for outcomes, (jumps, transitions, injections) in zip(self.schedule, phases, strict=True):
            weights = outcomes.probabilities
            moments.append(Moments(basis.T @ transitions @ basis, weights))
            mean = moments[-1].mean @ mean
            shocks = np.concatenate([jumps[:, :, None], injections @ root], axis=2)
            inside = basis.T @ shocks
            noises.append(np.einsum("k,kis,kjs->ij", weights, inside, inside))
            outside = max(outside, float(np.abs(shocks - basis @ inside).max(initial=0)))
            spread = max(spread, float(np.linalg.norm(jumps, axis=1).max()))
        found = perron(moments)
        size = 1 + float(np.linalg.norm(z))
        shape = self.steps.problem.init().shape
        if spread <= COMMON * size and not root.any():
            node, center = 0.0, 0.0
        elif outside > COMMON * size or found.factor >= 1:
            node, center = np.inf, np.inf
        else:
            readout = self.steps.answer_jacobian(z) @ basis
            node, center, _ = read_out(readout @ settled(moments, noises) @ readout.T, shape)
        return MeanSquareRate(
            found.factor ** (1 / self.period),
            spectral_radius(mean) ** (1 / self.period),
            spread,
            node if found.factor < 1 else np.inf,
            center if found.factor < 1 else np.inf,
            jax.tree.map(np.asarray, self.steps.answer(z)),
            basis.shape[1],
            max(len(outcomes.probabilities) for outcomes in self.schedule),
            found.residual,
        )
