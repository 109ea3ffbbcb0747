"""Event-driven methods node by node and event by event, in plain NumPy; every flow is a matrix exponential.

Each twin walks through units of time as `event_cases` makes them: at gradients, then exchanges, then a mark.
"""

import numpy as np
from event_cases import laplacian
from scipy.linalg import expm


def walk(nodes, units, flow, gradient, exchange, answer, steps):
    """Yields the answer after each step. `flow(i, time, step)`, `gradient(i, unit)`, `exchange(i, j)`."""
    last, path = dict.fromkeys(nodes, 0.0), []

    def move(i, time, step):
        flow(i, time - last[i], step)
        last[i] = time

    for unit in range((steps + 1) // 2):
        rows = units(unit)
        before, after = 2 * unit, 2 * unit + 1
        for kind, time, i, _ in rows:
            if kind == 0:
                move(int(i), time, before)
        path.append(answer())
        for kind, _, i, _ in rows:
            if kind == 0:
                gradient(int(i), after, unit)
        for kind, time, i, j in rows:
            if kind == 1:
                move(int(i), time, after)
                move(int(j), time, after)
                exchange(int(i), int(j), after)
        for i in nodes:
            move(i, unit + 1.0, after)
        path.append(answer())
    return path[:steps]


def chis():
    values = np.linalg.eigvalsh(laplacian())
    inverse = np.linalg.pinv(laplacian())
    links = [(i, j) for i, j in zip(*np.nonzero(laplacian() < 0), strict=True) if i < j]
    resistances = {(i, j): inverse[i, i] + inverse[j, j] - 2 * inverse[i, j] for i, j in links}
    return 1 / values[1], max(resistances.values()) / 2, resistances


def acid(start, gradient, units, step_size, steps, accelerated):
    chi_1, chi_2, _ = chis()
    eta, far = (0.5 / np.sqrt(chi_1 * chi_2), 0.5 * np.sqrt(chi_1 / chi_2)) if accelerated else (0.0, 0.5)
    s = {i: np.array([x, x]) for i, x in start.items()}

    def flow(i, time, step):
        s[i] = expm(time * eta * np.array([[-1.0, 1.0], [1.0, -1.0]])) @ s[i]

    def jump(i, step, unit):
        s[i] = s[i] - step_size(unit) * gradient(i, s[i][0])

    def exchange(i, j, step):
        gap = s[i][0] - s[j][0]
        for k, sign in ((i, 1), (j, -1)):
            s[k] = s[k] - sign * np.array([0.5 * gap, far * gap])

    return walk(start, units, flow, jump, exchange, lambda: {i: s[i][0] for i in s}, steps)


def ad_psgd(start, gradient, units, step_size, steps):
    x = dict(start)
    read = dict(start)  # what a node's gradient in progress is taken at

    def jump(i, step, unit):
        x[i] = x[i] - step_size(unit) * gradient(i, read[i])
        read[i] = x[i]

    def exchange(i, j, step):
        x[i] = x[j] = (x[i] + x[j]) / 2

    return walk(start, units, lambda *_: None, jump, exchange, lambda: dict(x), steps)


def dadao(start, gradient, units, step_size, steps, strong_convexity):
    chi_1 = chis()[0]
    s = {i: np.array([x] + [np.zeros_like(x)] * 5) for i, x in start.items()}

    def constants(step):
        L, nu = 1 / step_size(step), strong_convexity / 2
        return L, nu, np.sqrt(nu / L)

    def flow(i, time, step):
        _, nu, root = constants(step)
        eta, alpha, tilde, theta = root / 8, root / 4, root / 8, 0.5 / root
        A = np.array(
            [
                [-eta, eta, 0, 0, 0, 0],
                [eta, -eta, 0, 0, 0, 0],
                [0, 0, -alpha, alpha, 0, 0],
                [0, -theta * nu, -theta, 0, -theta, 0],
                [0, 0, 0, 0, -alpha, alpha],
                [0, 0, 0, 0, tilde, -tilde],
            ]
        )
        s[i] = expm(time * A) @ s[i]

    def jump(i, step, unit):
        L, nu, root = constants(step)
        q = gradient(i, s[i][0]) - nu * s[i][0] - s[i][3]
        s[i] = s[i] + np.outer([-0.25 / L, -0.25 / np.sqrt(nu * L), 0, root / 4 + 1, 0, 0], q)

    def exchange(i, j, step):
        root = constants(step)[2]
        gap = s[i][2] + s[i][4] - s[j][2] - s[j][4]
        for k, sign in ((i, 1), (j, -1)):
            s[k] = s[k] - sign * np.outer([0, 0, 0, 0, 0.5, 2 * chi_1 / root], gap)

    return walk(start, units, flow, jump, exchange, lambda: {i: s[i][0] for i in s}, steps)


def continuized_dual(start, gradient, units, step_size, steps, strong_convexity):
    """Gradients here belong to exchanges: a node that meets computes one just before."""
    chi_1, chi_2, resistances = chis()
    s = {i: np.array([y, y]) for i, y in start.items()}
    primal = {i: np.zeros_like(y) for i, y in start.items()}
    path, last = [], dict.fromkeys(start, 0.0)

    def move(i, time, step):
        rate = np.sqrt(strong_convexity * step_size(step) / (2 * chi_1 * chi_2))
        s[i] = expm((time - last[i]) * rate * np.array([[-1.0, 1.0], [1.0, -1.0]])) @ s[i]
        last[i] = time

    for unit in range((steps + 1) // 2):
        _, time, i, j = units(unit)[0]
        i, j, before, after = int(i), int(j), 2 * unit, 2 * unit + 1
        for k in (i, j):
            move(k, time, before)
        path.append(dict(primal))
        for k in (i, j):
            primal[k] = gradient(k, s[k][0])
        gap = primal[i] - primal[j]
        near = strong_convexity / (4 * chi_2) * resistances[min(i, j), max(i, j)]
        far = 0.5 * np.sqrt(strong_convexity / step_size(after) * chi_1 / chi_2)
        for k, sign in ((i, 1), (j, -1)):
            s[k] = s[k] - sign * np.array([near * gap, far * gap])
        for k in start:
            move(k, unit + 1.0, after)
        path.append(dict(primal))
    return path[:steps]


TWINS = {
    "acid": acid,
    "asynchronous_sgd": acid,
    "ad_psgd": ad_psgd,
    "dadao": dadao,
    "continuized_dual": continuized_dual,
}
