"""What the tests of all registered methods share: mixings of each kind, and a problem whose nodes differ."""

import event_cases
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from event_cases import EVENTS, ROWS

import adozoo

ENTRIES = adozoo.zoo.entries()
NODES, DIM = 5, 4
RNG = np.random.default_rng(7)
PROBLEM = adozoo.problems.random_quadratic(NODES, DIM, strong_convexity=0.3, seed=3)
START = RNG.normal(size=(NODES, DIM))


def symmetric(*edges):
    """Irregular weights on the given edges, no smaller than 1/2 on the diagonal."""
    W = np.eye(NODES)
    for number, (i, j) in enumerate(edges):
        share = 0.12 + 0.02 * number
        W -= share * np.outer(np.eye(NODES)[i] - np.eye(NODES)[j], np.eye(NODES)[i] - np.eye(NODES)[j])
    return W


def directed(own, *permutations):
    """Doubly stochastic, not symmetric, and no circulant."""
    share = (1 - own) / len(permutations)
    return own * np.eye(NODES) + sum(share * np.eye(NODES)[list(p)] for p in permutations)


def column(*edges):
    """Sender j splits what it has evenly among itself and those it reaches; edges are (sender, receiver)."""
    reach = np.eye(NODES)
    for j, i in edges:
        reach[i, j] = 1
    return reach / reach.sum(0)


RING = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0)]
# One period of each kind. In the three that vary no single step connects the nodes.
MATRICES = {
    "symmetric": [symmetric(*RING, (0, 2))],
    "directed": [directed(0.4, [1, 2, 3, 4, 0], [2, 0, 1, 4, 3])],
    "column": [column(*RING, (0, 2), (0, 3), (3, 1))],
    "tree": [symmetric((0, 1), (1, 2), (1, 3), (3, 4))],
    "varying": [symmetric((0, 1), (2, 3)), symmetric((1, 2), (3, 4), (0, 4))],
    "varying_directed": [directed(0.5, [1, 0, 3, 4, 2]), directed(0.3, [3, 1, 0, 4, 2])],
    "varying_column": [column((0, 1), (0, 2), (3, 4)), column((1, 0), (2, 3), (4, 0)), column((0, 4), (2, 0))],
    "mean": [np.full((NODES, NODES), 1 / NODES)],
}


def build_mixing(kind, matrices):
    demanded = "column" if "column" in kind else "doubly"
    parts = [adozoo.mixing(W, stochastic=demanded, require_connected=len(matrices) == 1) for W in matrices]
    return parts[0] if len(parts) == 1 else adozoo.cycle(parts)


MIXINGS = {kind: build_mixing(kind, matrices) for kind, matrices in MATRICES.items()} | EVENTS
MATRICES |= ROWS  # of events, what happens in each unit of time
PAIRS = [(name, kind) for name, entry in ENTRIES.items() for kind, mix in MIXINGS.items() if entry.admits(mix)]
EACH = pytest.mark.parametrize("entry", ENTRIES.values(), ids=list(ENTRIES))


def _first_of_each_factory():
    seen = set()
    for name, entry in ENTRIES.items():
        variant = entry.factory.__name__ in seen
        seen.add(entry.factory.__name__)
        yield pytest.param(entry, id=name, marks=[pytest.mark.slow] if variant else [])


# What one variant of a factory keeps the others keep as well, almost surely: `make test-all` makes sure.
EACH_FACTORY = pytest.mark.parametrize("entry", list(_first_of_each_factory()))
OVER_GRAPHS = pytest.mark.parametrize(
    "entry", [param for param in _first_of_each_factory() if param.values[0].admits(MIXINGS["symmetric"])]
)


def widest(entry):
    """The least restricted kind of fixed mixing that a method admits."""
    kinds = ("column", "directed", "symmetric", "tree", "mean", *EVENTS)
    return next(kind for kind in kinds if entry.admits(MIXINGS[kind]))


def relabelled(kind, order):
    """The fixed mixing or the events of a kind, node order[k] being called k."""
    if kind in EVENTS:
        return event_cases.build(ROWS[kind], kind == "paired events", order)
    return build_mixing(kind, [W[order][:, order] for W in MATRICES[kind]])


def oracle(entry):
    """(params, step, key) -> what update takes on the problem: gradients of the f_i, or of their conjugates."""
    return PROBLEM.dual_gradient if entry.oracle == "dual" else PROBLEM.gradient


def local_oracle(entry):
    """The same node by node, in plain NumPy: (i, x_i) -> its gradient."""
    A, b = np.asarray(PROBLEM.matrices), np.asarray(PROBLEM.centers)
    if entry.oracle == "dual":
        return lambda i, y: b[i] + np.linalg.solve(A[i], y)
    return lambda i, x: A[i] @ (x - b[i])


def beginning(entry):
    """Where a method may start: dual variables must sum to zero over nodes."""
    if entry.oracle == "dual":
        return START - START.mean(0)
    return np.repeat(START[:1], NODES, 0) if entry.equal_start else START


def resting(entry):
    """Gradients under which nothing but communication moves params: zero, or primal points that differ."""
    return jnp.asarray if entry.oracle == "dual" else jnp.zeros_like


def built(entry, learning_rate, mix, **overrides):
    """The entry's transformation, over params [n, DIM]: where matrices matter each node's vector is one, 2 x 2."""
    tx = entry.build(learning_rate, mix, **overrides)
    if not entry.matrices:
        return tx

    def fold(x):
        return x.reshape(len(x), 2, 2) if x.shape[1:] == (DIM,) else x

    def update(grads, state, params):
        updates, state = tx.update(jax.tree.map(fold, grads), state, jax.tree.map(fold, params))
        return jax.tree.map(lambda u, x: u.reshape(x.shape), updates, params), state

    return optax.GradientTransformationExtraArgs(lambda params: tx.init(jax.tree.map(fold, params)), update)


def steps(tx, params, count, gradient=jnp.zeros_like):
    """`count` steps of a transformation, op by op; the params after each."""
    state, path = tx.init(params), []
    for _ in range(count):
        updates, state = tx.update(gradient(params), state, params)
        params = optax.apply_updates(params, updates)
        path.append((params, state))
    return path
