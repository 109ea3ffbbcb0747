"""Gradients of conjugates: the point where a strongly convex function has a given gradient, by Newton's method."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jaxtyping import Array, Float, PyTree

ITERATIONS, HALVINGS = 100, 20


def point_of_slope(
    derivatives: Callable[[PyTree, Array], tuple[Array, Array]],
    data: PyTree,
    slope: Float[Array, " d"],
    start: Float[Array, " d"],
) -> Float[Array, " d"]:
    r"""The x with \nabla f(x) = y, which is \nabla f^*(y), for a smooth and strongly convex f.

    Newton's direction is one along which \|\nabla f - y\| shrinks, so that steps are halved until it does; the loop
    ends where rounding lets it shrink no further. A last step outside of the loop makes the result differentiable, in
    both modes: its derivative by y is the inverse of the Hessian.

    Args:
      derivatives: (data, x) -> (\nabla f(x) [d], its Hessian [d, d]).
      data: what f depends on.
      slope: y.
      start: where to begin.

    Example:
      >>> from adozoo._conjugate import point_of_slope
      >>> quartic = lambda scale, x: (
      ...     scale * x**3 + x,
      ...     jnp.diag(3 * scale * x**2 + 1),
      ... )
      >>> point_of_slope(quartic, 1.0, jnp.array([10.0]), jnp.zeros(1)).round(12)
      Array([2.], dtype=float64)
    """
    known, target = jax.lax.stop_gradient((data, slope))

    def rest(x: Array) -> Array:
        return derivatives(known, x)[0] - target

    def size(x: Array) -> Array:
        return jnp.linalg.norm(rest(x))

    def shorter(search: tuple[Any, Any, Any, Any]) -> tuple[Any, Any, Any, Any]:
        x, direction, length, halvings = search
        return x, direction, length / 2, halvings + 1

    def too_long(search: tuple[Any, Any, Any, Any]) -> Array:
        x, direction, length, halvings = search
        return (halvings < HALVINGS) & ~(size(x - length * direction) <= (1 - length / 4) * size(x))

    def iterate(carry: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        x, _, count = carry
        direction = _newton(derivatives(known, x), target)
        length = jax.lax.while_loop(too_long, shorter, (x, direction, jnp.ones((), x.dtype), 0))[2]
        moved = x - length * direction
        better = size(moved) < size(x)
        return jnp.where(better, moved, x), better, count + 1

    def unfinished(carry: tuple[Any, Any, Any]) -> Array:
        x, better, count = carry
        return better & (count < ITERATIONS) & (size(x) > jnp.finfo(x.dtype).eps * jnp.linalg.norm(target))

    x = jax.lax.while_loop(unfinished, iterate, (jax.lax.stop_gradient(start), jnp.array(True), 0))[0]
    return x - _newton(derivatives(data, x), slope)


def _newton(derivatives: tuple[Array, Array], slope: Array) -> Array:
    r"""H^{-1} (\nabla f(x) - y)."""
    gradient, hessian = derivatives
    return jsl.solve(hessian, gradient - slope, assume_a="pos")
