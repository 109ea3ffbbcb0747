"""What all problems share: exact or noisy gradients, the global loss, constants and metrics."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from adozoo.nodes import consensus_distance, node_mean, replicate


class Problem:
    """What all problems share; each adds `local_loss(x)` -> [n], the objectives of all nodes at one point x [d]."""

    if TYPE_CHECKING:  # fields of the dataclasses below

        @property
        def n(self) -> int: ...

        @property
        def dim(self) -> int: ...

        @property
        def noise(self) -> Any: ...

        @property
        def optimum(self) -> Array: ...

        @property
        def constants(self) -> tuple[float, float]: ...

    def gradient(self, params: Float[Array, "n d"], step: Any = None, key: Any = None) -> Float[Array, "n d"]:
        """Each node's gradient at its own params, [n, d]; exact, or noisy where the problem has `noise` and a key."""
        exact = self.exact_gradient(params)
        if key is None:
            return exact
        return exact + self.gradient_noise(key, exact.shape, exact.dtype)

    def exact_gradient(self, params: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """grad f_i(x_i) for every node, without noise."""
        raise TypeError(f"{type(self).__name__} defines no gradient.")

    def dual_gradient(self, params: Float[Array, "n d"], step: Any = None, key: Any = None) -> Float[Array, "n d"]:
        r"""The oracle of dual methods: grad f_i^*(y_i) = argmin_x f_i(x) - <y_i, x> at each node's own y_i, [n, d].

        It is exact, whatever the key: the problem's `noise` is one of gradients of the f_i.

        Raises:
          ValueError: if some f_i is not strongly convex; then its conjugate has no gradient.
        """
        if not self.strong_convexity > 0:
            raise ValueError(
                f"{type(self).__name__}.dual_gradient: every f_i must be strongly convex, but the problem has "
                f"mu = {self.strong_convexity!r}. Add regularisation (l2 > 0), or take a primal method."
            )
        return self.conjugate_gradient(params)

    def conjugate_gradient(self, params: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """grad f_i^*(y_i) for every node, for strongly convex f_i."""
        raise TypeError(f"{type(self).__name__} defines no gradient of its conjugate.")

    def sampled_gradient(self, samples: Callable[[Any], Array]) -> Callable[..., Array]:
        """The oracle of variance-reduced methods: at step t each node's gradient of the component samples(t)_i.

        Args:
          samples: step -> [n] indices, the same stream that the method was given (`adozoo.samples`).

        Returns:
          gradient(params, step, key), for `adozoo.simulate`.
        """

        def gradient(params: Float[Array, "n d"], step: Any = None, key: Any = None) -> Float[Array, "n d"]:
            return self.component_gradient(params, samples(step))

        return gradient

    def component_gradient(self, params: Float[Array, "n d"], indices: Int[Array, " n"]) -> Float[Array, "n d"]:
        """grad F_ij(x_i) for one component j a node, where f_i = (1/m) sum_j F_ij."""
        raise TypeError(f"{type(self).__name__} has no components.")

    def gradient_noise(self, key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        """One draw of additive Gaussian gradient noise with standard deviation `noise` per coordinate."""
        return self.noise * jax.random.normal(key, shape, dtype)

    def local_loss(self, x: Float[Array, " d"]) -> Float[Array, " n"]:
        """f_i(x) for every node at one common point."""
        raise TypeError(f"{type(self).__name__} defines no loss.")

    def loss(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """The global objective f(x) = (1/n) sum_i f_i(x) at one point."""
        return jnp.mean(self.local_loss(x))

    def init(self) -> Float[Array, "n d"]:
        """All nodes at zero, [n, d]."""
        return jnp.zeros((self.n, self.dim), self.optimum.dtype)

    @property
    def strong_convexity(self) -> float:
        """mu: every f_i is mu-strongly convex."""
        return self.constants[0]

    @property
    def smoothness(self) -> float:
        """L: every f_i is L-smooth."""
        return self.constants[1]

    @property
    def optimal_value(self) -> Float[Array, ""]:
        """f(x*)."""
        return self.loss(self.optimum)

    @property
    def heterogeneity(self) -> Float[Array, ""]:
        """zeta^2 = (1/n) sum_i ||grad f_i(x*)||^2: zero iff the optimum is optimal for every node."""
        return jnp.mean(jnp.sum(self.exact_gradient(replicate(self.optimum, self.n)) ** 2, axis=1))

    def metrics(self) -> dict[str, Callable[[PyTree], Array]]:
        """Metrics for `adozoo.simulate`, computed inside the run from the evaluated params.

        "suboptimality": f(mean iterate) - f(x*); "consensus_distance"; "distance": sqrt of the mean over nodes of
        ||x_i - x*||^2.
        """
        best = self.optimal_value
        return {
            "suboptimality": lambda params: self.loss(node_mean(params)) - best,
            "consensus_distance": consensus_distance,
            "distance": lambda params: jnp.sqrt(jnp.mean(jnp.sum((params - self.optimum[None]) ** 2, axis=1))),
        }
