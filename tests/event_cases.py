"""Events for the tests of all event-driven methods: in each unit of time every node's gradient, then exchanges.

A mark after each unit makes rounds regular: step 2 u leads from the mark to the gradients of unit u, step 2 u + 1
through them and the exchanges to the next mark. Irregular rounds are for the recorded runs and `test_events`.
"""

import numpy as np

import adozoo

UNITS = 2500
GRAPH = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (0, 2)]
NODES = 5


def laplacian(edges=GRAPH):
    """Irregular rates, such that 2 chi_1 chi_2 = 1."""
    rates = np.zeros((NODES, NODES))
    for number, (i, j) in enumerate(edges):
        rates[i, j] = rates[j, i] = 1 + 0.2 * number
    return adozoo.dadao_rates(np.diag(rates.sum(1)) - rates).toarray()


def units(paired):
    """Rows (kind, time, i, j) of each unit; of paired events one exchange, without its gradients."""
    rng = np.random.default_rng(11)
    rates = -np.array([laplacian()[i, j] for i, j in GRAPH])
    found = []
    for unit in range(UNITS):
        if paired:
            i, j = GRAPH[rng.choice(len(GRAPH), p=rates / rates.sum())]
            found.append(np.array([[1, unit + rng.random(), i, j]]))
            continue
        gradients = [(0, unit + 0.5 * rng.random(), i, -1) for i in range(NODES)]
        links = np.repeat(np.arange(len(GRAPH)), rng.poisson(rates))
        meetings = [(1, unit + 0.5 + 0.5 * rng.random(), *GRAPH[link]) for link in links]
        found.append(np.array(sorted(gradients + meetings, key=lambda row: row[1])))
    return found


def build(rows, paired, order=None):
    """The events, with all nodes relabelled: node order[k] is called k."""
    table, graph = np.concatenate(rows), laplacian()
    if order is not None:
        name = np.append(np.argsort(order), -1)
        table = np.column_stack([table[:, :2], name[table[:, 2:].astype(int)]])
        graph = graph[order][:, order]
    lags = None if paired else adozoo.events.lags(table, NODES)
    marks = np.arange(1.0, len(rows))
    return adozoo.events.recorded(
        table, NODES, graph=graph, horizon=float(len(rows)), marks=marks, lags=lags, paired=paired
    )


ROWS = {"events": units(False), "paired events": units(True)}
EVENTS = {kind: build(rows, kind == "paired events") for kind, rows in ROWS.items()}
