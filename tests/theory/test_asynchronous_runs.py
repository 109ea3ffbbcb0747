"""Runs event by event have the second moments that theory has exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import adozoo
import theory
from adozoo import graphs


@pytest.mark.parametrize("accelerated", [True, False], ids=["acid", "baseline"])
@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_simulated_quadratics(accelerated, momentum):
    """A run of the update rules themselves, in numpy, with heterogeneous curvatures: its time average."""
    n, step, rng = 4, 0.2, np.random.default_rng(1)
    graph, copies = graphs.path(n), 400
    laplacian = adozoo.resistance.normalize_rates(graph, "node_rate")
    h, g = np.array([0.5, 1.0, 0.7, 0.2]), np.array([1.0, -1.0, 0.5, 2.0])
    eta, alpha, second = theory.acid_parameters(*theory.chi(laplacian), accelerated)
    links = [(i, j, -laplacian[[i], [j]][0]) for i, j in graph.edges]
    rates = np.array([*(rate for *_, rate in links), *np.ones(n)])
    x, tilde, v = np.zeros((3, n, copies))
    total, samples = np.zeros(copies), 0
    for event in range(4000):
        kept = np.exp(-2 * eta * rng.exponential(1 / rates.sum(), copies))
        x, tilde = (x + tilde + kept * (x - tilde)) / 2, (x + tilde - kept * (x - tilde)) / 2
        if event > 1000:  # what Poisson events find is what is there at any time
            total += ((x - x.mean(0)) ** 2).mean(0)
            samples += 1
        which = rng.choice(len(rates), copies, p=rates / rates.sum())
        for k, (i, j, _) in enumerate(links):
            gap = np.where(which == k, x[i] - x[j], 0)
            x[i], x[j] = x[i] - alpha * gap, x[j] + alpha * gap
            tilde[i], tilde[j] = tilde[i] - second * gap, tilde[j] + second * gap
        for i in range(n):
            here = which == len(links) + i
            moved = momentum * v[i] + h[i] * x[i] + g[i] + 0.5 * rng.normal(size=copies)
            v[i] = np.where(here, moved, v[i])
            x[i], tilde[i] = x[i] - step * here * moved, tilde[i] - step * here * moved
    averages = total / samples / (step / (1 - momentum)) ** 2
    exact = theory.acid_stationary(laplacian, momentum, accelerated, g, 0.5, h, step)
    assert abs(averages.mean() - exact.consensus_distance) < 4 * averages.std() / np.sqrt(copies)
    assert averages.std() / np.sqrt(copies) < 0.02 * exact.consensus_distance


def test_runs_of_dadao_have_the_exact_second_moment():
    """adozoo.dadao on 200 event lists, from x = x0 and zeros: E|x|^2 at three times, within four standard errors."""
    h, seeds, marks = jnp.array([1.0, 20.0, 4.0, 9.0]), 200, np.array([2.0, 10.0, 30.0])
    graph, x = graphs.ring(4), jnp.array([[1.0], [-2.0], [0.5], [3.0]])
    laplacian = theory.dadao_rates(graph)
    lists = [adozoo.events.poisson(laplacian, marks[-1], seed=seed, marks=marks) for seed in range(seeds)]

    @jax.jit
    @jax.vmap
    def run(events):
        tx = adozoo.dadao(events, strong_convexity=1.0, smoothness=20.0)
        metrics = {"square": lambda params: jnp.sum(params**2)}
        return adozoo.simulate_events(tx, lambda x, *_: h[:, None] * x, x, events, metrics=metrics)[2]["square"]

    squares = np.asarray(run(adozoo.events.stack(lists)))[:, 1:]
    system = theory.dadao_events(laplacian, np.asarray(h), 1.0, 20.0)
    inner, reduced = theory.generator._reduced("test", *system[:3])
    operator = theory.generator._on_symmetric(inner, reduced)
    start = system.basis.T @ np.concatenate([np.ravel(x), np.zeros(20)])
    rows, columns = np.triu_indices(len(start))
    for time, found in zip(marks, squares.T, strict=True):
        S = np.zeros((len(start), len(start)))
        S[rows, columns] = scipy.linalg.expm(time * operator) @ np.outer(start, start)[rows, columns]
        S[columns, rows] = S[rows, columns]
        exact = np.trace((system.basis @ S @ system.basis.T)[:4, :4])
        assert abs(found.mean() - exact) < 4 * found.std() / np.sqrt(seeds)
        assert found.std() / np.sqrt(seeds) < 0.1 * exact
