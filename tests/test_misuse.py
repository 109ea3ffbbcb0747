"""Whatever the method, a misuse is a ValueError that names the culprit, what came, and the way out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from refusals import assert_refused

import adozoo
from adozoo._checks import check_mixing

ENTRIES = adozoo.zoo.entries()
NODES = 4
CYCLE = adozoo.graphs.directed_ring(NODES)
CHORD = adozoo.graphs.directed_ring(NODES)
CHORD.add_edge(0, 2)
MIXINGS = {
    "symmetric": adozoo.mixing(adozoo.weights.lazy(adozoo.weights.metropolis(adozoo.graphs.ring(NODES)))),
    "doubly": adozoo.mixing(CYCLE),
    "column": adozoo.mixing(CHORD),
    "tree": adozoo.mixing(adozoo.graphs.star(NODES)),
    "complete": adozoo.exact_mean(NODES),
}
RATES = adozoo.dadao_rates(adozoo.graphs.ring(NODES))
EVENTS = [adozoo.events.poisson(RATES, 3.0, paired=paired) for paired in (False, True)]
ROW = adozoo.mixing(MIXINGS["column"].matrix.T, stochastic="row")
PARAMS = jnp.ones((NODES, 2))
EACH = pytest.mark.parametrize("entry", ENTRIES.values(), ids=list(ENTRIES))


def admitted(entry):
    return next(mix for mix in (*reversed(MIXINGS.values()), *EVENTS) if entry.admits(mix))


def build(entry, learning_rate=0.1, **overrides):
    return entry.build(learning_rate, admitted(entry), **overrides)


@EACH
@pytest.mark.parametrize("learning_rate", [0, 0.0, -0.1, float("nan"), float("inf"), True, None, "0.1"])
def test_learning_rate(entry, learning_rate):
    assert_refused(lambda: build(entry, learning_rate), "learning_rate", repr(learning_rate), "must")


@EACH
def test_numbers_that_are_fractions(entry):
    for name in [key for key, value in entry.hyperparameters.items() if type(value) is float]:
        for value in (-0.1, float("nan")) if name in entry.unbounded else (-0.1, 1.5, float("nan")):
            assert_refused(lambda name=name, value=value: build(entry, **{name: value}), name, repr(value))


@EACH
def test_choices(entry):
    for name in [key for key, value in entry.hyperparameters.items() if isinstance(value, str)]:
        assert_refused(lambda name=name: build(entry, **{name: "none"}), name, "'none'", "one of")


@EACH
def test_update_without_params(entry):
    tx = build(entry)
    assert_refused(
        lambda: tx.update(PARAMS, tx.init(PARAMS)), "update", "params", "None", "tx.update(grads, state, params)"
    )


@EACH
def test_unknown_extra_argument(entry):
    tx = build(entry)
    assert_refused(lambda: tx.update(PARAMS, tx.init(PARAMS), PARAMS, valeu=1.0), "valeu", "Remove")


@EACH
def test_gradients_of_another_structure(entry):
    tx = build(entry)
    assert_refused(lambda: tx.update({"w": PARAMS}, tx.init(PARAMS), PARAMS), "grads", "params", "'w'")


@EACH
@pytest.mark.parametrize("params", [jnp.ones((NODES + 1, 2)), jnp.ones((2, NODES)), jnp.ones(())], ids=jnp.shape)
def test_wrong_node_axis(entry, params):
    def use():
        tx = build(entry)
        tx.update(params, tx.init(params), params)

    assert_refused(use, "node axis", "adozoo.replicate")
    assert_refused(lambda: jax.eval_shape(use), "node axis", "adozoo.replicate")


@EACH
def test_mixings_that_are_not_admitted(entry):
    """Fixed ones only: what a fault or a schedule does to a method is for its user to try."""
    for mix in (*MIXINGS.values(), ROW):
        if entry.admits(mix):
            entry.build(0.1, mix)
        else:
            assert_refused(lambda mix=mix: entry.build(0.1, mix), "must be", "adozoo.")
    for events in EVENTS if any(entry.admits(events) for events in EVENTS) else ():
        if not entry.admits(events):
            assert_refused(lambda events=events: entry.build(0.1, events), "events must", "adozoo.events")


@EACH
def test_smallest_eigenvalue(entry):
    """Metropolis weights on an even ring reach down to -1/3, those on a star do not."""
    ring = adozoo.mixing(adozoo.graphs.ring(NODES))
    if entry.admits(ring) and entry.smallest_eigenvalue > -1:
        assert_refused(lambda: entry.build(0.1, ring), "smallest eigenvalue", "-0.333333", "adozoo.weights.lazy")
        entry.build(0.1, adozoo.mixing(adozoo.graphs.star(NODES)))
    elif entry.admits(ring):
        entry.build(0.1, ring)


def test_a_matrix_is_no_mixing():
    """Called directly: in the tests a method's own type hints would be quicker."""
    assert_refused(lambda: check_mixing("dsgd", np.eye(NODES)), "dsgd: mix must be", "ndarray", "adozoo.mixing")
    assert_refused(lambda: check_mixing("dsgd", EVENTS[0]), "dsgd: mix must be", "Events", "adozoo.mixing")


def test_admits():
    one = ENTRIES["dsgd_atc"]
    drawn = adozoo.random_matching(adozoo.graphs.ring(NODES), jax.random.key(0))
    special = {"tree", "events", "paired events"}
    assert all(entry.admits(adozoo.exact_mean(3)) for entry in ENTRIES.values() if not special & entry.mixings)
    assert [one.admits(events) for events in EVENTS] == [False, False]
    assert [ENTRIES["acid"].admits(events) for events in EVENTS] == [True, False]
    assert ENTRIES["relay_sgd"].admits(MIXINGS["tree"])
    assert not ENTRIES["relay_sgd"].admits(drawn)
    assert one.admits(drawn)
    assert not one.admits(MIXINGS["column"])


def test_registry():
    known = ENTRIES["dsgd_atc"]
    assert_refused(lambda: adozoo.zoo.register(known), "'dsgd_atc'", "taken")
    assert_refused(lambda: adozoo.zoo.entry("dsdg_atc"), "'dsdg_atc'", "dsgd_atc")
    assert adozoo.zoo.entry("dsgd_atc") is known
