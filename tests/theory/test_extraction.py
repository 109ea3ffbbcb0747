"""The matrices read off the implementations, against the methods' published updates and against the running methods."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import ENTRIES, MIXINGS

import adozoo
import theory


def matrices(name, learning_rate=0.3, **options):
    entry = adozoo.zoo.entry(name)
    return theory.state_space(lambda mix: entry.build(learning_rate, mix, **options), "complete" in entry.mixings)


def readable(entry):
    """Linear methods over undirected graphs that do the same in every step."""
    steady = entry.readable and entry.vectors >= 1 and not entry.fixed_graph
    return steady and ("symmetric" in entry.mixings or "complete" in entry.mixings)


READABLE = [name for name, entry in ENTRIES.items() if readable(entry) and not entry.scalars]


def test_published_matrices_of_nids():
    """x+ = x - a g - d+, d+ = d + (h - W h) / 2 with h = x - a g - d, the dual times the step size."""
    found = matrices("nids")
    np.testing.assert_allclose(found.A, [[1, -1], [0, 1]])
    np.testing.assert_allclose(found.B_u, [[-0.3], [0]])
    np.testing.assert_allclose(found.B_v, [[-0.5], [0.5]])
    np.testing.assert_allclose(np.hstack([found.C_z, found.D_zu, found.D_zv]), [[1, -1, -0.3, 0]])


def test_messages_of_one_step_that_answer_each_other():
    """AugDGM mixes x - a s with the s that was mixed before it: D_zv is not zero."""
    found = matrices("aug_dgm")
    np.testing.assert_allclose(found.D_zv, [[0, 0], [0.3, 0]])
    np.testing.assert_allclose(found.D_zu, [[1], [-0.3]])


@pytest.mark.parametrize("name", READABLE)
@pytest.mark.parametrize("curvature", [0.1, 1.0])
def test_modes_are_those_of_the_running_method(name, curvature):
    """With a common Hessian the whole step is block diagonal in W's eigenvectors, one `mode` a block."""
    entry = ENTRIES[name]
    mix = MIXINGS["mean" if "complete" in entry.mixings else "symmetric"]
    problem = adozoo.problems.quadratic(curvature * np.ones((mix.n, 1, 1)), np.arange(1.0, mix.n + 1)[:, None])
    system = matrices(name)
    params = jnp.asarray(np.random.default_rng(0).normal(size=(mix.n, 1)))
    tx = entry.build(0.3, mix)
    _, vectors = np.linalg.eigh(np.asarray(mix.matrix))
    eigenvalues = np.einsum("ik,ij,jk->k", vectors, np.asarray(mix.matrix), vectors)
    other = params + jnp.asarray(vectors[:, :1])  # along one eigenvector the difference stays on it

    def run(params):
        state = tx.init(params)
        for _ in range(4):
            updates, state = tx.update(problem.gradient(params), state, params)
            params = optax.apply_updates(params, updates)
        return params

    difference = np.asarray(run(other) - run(params))
    block = np.linalg.matrix_power(system.mode(curvature, eigenvalues[0]), 4) @ system.start
    np.testing.assert_allclose(difference, vectors[:, :1] * block[0], atol=1e-13)


@pytest.mark.parametrize("name", READABLE)
def test_exactness_is_what_the_registry_says(name):
    entry = ENTRIES[name]
    system = matrices(name)
    if "complete" in entry.mixings:
        assert not system.exact
        assert max(system.exactness_defect(exact_mean=True)) < 1e-12
    else:
        assert system.exact == entry.exact
    if not entry.exact:
        assert max(system.exactness_defect()) > 1e-3


def test_equal_start_reaches_less():
    start = matrices("all_reduce_sgd")
    equal = theory.extraction.Extractor(
        lambda mix: adozoo.all_reduce_sgd(0.3, mix), exact_mean=True, equal_start=True
    )()
    assert start.averaged.disagreement_basis.shape == (1, 1)
    assert equal.averaged.disagreement_basis.shape == (1, 0)


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        (lambda mix: adozoo.stochastic_gradient_push(0.1, mix), "not linear"),
        (lambda mix: adozoo.dsgd(optax.linear_schedule(0.1, 0.0, 10), mix), "changes with the step"),
        (lambda mix: optax.chain(optax.scale_by_sign(), adozoo.adapt_then_combine(mix)), "not linear"),
        (lambda mix: adozoo.local_dsgd(0.1, mix, 3), "inside a branch"),
        (lambda mix: adozoo.dsgd(0.1, adozoo.gossip_every(mix, 2)), "branch"),
    ],
)
def test_refuses_what_has_no_linear_form(factory, words):
    with pytest.raises(ValueError, match=words):
        theory.state_space(factory)


def test_reads_the_same_without_double_precision():
    with jax.enable_x64(False):
        single = matrices("extra")
    assert single.A.dtype == np.float64
    np.testing.assert_array_equal(single.A, matrices("extra").A)
    assert single.B_u[0, 0] == -0.3
