r"""Plain-NumPy twins of the accelerated methods that take primal gradients; see `twins` for what a twin is.

Each prints the published recursion with all its points, of which the implementations keep fewer. The step size is 1 / L
(but for accelerated gradient tracking, which has one of its own), and may change from step to step.
"""

import numpy as np
from twins import combine


def gossip(W, x, i):
    """sum_j W[i][j] (x_i - x_j): what the gossip matrix I - W makes of what the nodes have."""
    total = np.zeros_like(x[i])
    for j in x:
        total = total + W[i][j] * (x[i] - x[j])
    return total


def spectrum(W):
    """The smallest positive and the largest eigenvalue of I - W."""
    values = np.linalg.eigvalsh(np.eye(len(W)) - np.array(W))
    return values[1], values[-1]


def _apapc(start, gradient, gossiped, rate, steps, mu, chi, largest):
    """`gossiped(t, x)` is {i: (G x)_i}."""
    x, point, path = dict(start), dict(start), []
    y = {i: np.zeros_like(x[i]) for i in x}
    for t in range(steps):
        L = 1 / rate(t)
        tau = min(1, 0.5 * np.sqrt(chi * mu / L))
        eta = 1 / (4 * tau * L)
        theta = 1 / (eta * largest)
        force = {i: gradient(i, point[i]) - mu * point[i] for i in x}
        guess = {i: (x[i] - eta * (force[i] + y[i])) / (1 + eta * mu) for i in x}
        pushed = gossiped(t, guess)
        y = {i: y[i] + theta * pushed[i] for i in x}
        new = {i: (x[i] - eta * (force[i] + y[i])) / (1 + eta * mu) for i in x}
        fast = {i: point[i] + 2 * tau / (2 - tau) * (new[i] - x[i]) for i in x}
        x = new
        point = {i: tau * x[i] + (1 - tau) * fast[i] for i in x}
        path.append(x)
    return path


def apapc(start, gradient, weights, rate, steps, strong_convexity):
    low, high = spectrum(weights(0))

    def gossiped(t, x):
        return {i: gossip(weights(t), x, i) for i in x}

    return _apapc(start, gradient, gossiped, rate, steps, strong_convexity, high / low, high)


def opapc(start, gradient, weights, rate, steps, strong_convexity, rounds=2):
    """Over P(G) = I - T(c2 (I - c3 G)) / T(c2), by Chebyshev's own recursion, whose terms grow."""
    low, high = spectrum(weights(0))
    ratio = low / high
    c2, c3 = (1 + ratio) / max(1 - ratio, 1e-300), 2 / (low + high)

    def gossiped(t, x):
        if 1 - ratio < 1e-9:  # the exact average: c2 is infinite, and I - c3 G is the projection already
            return {i: c3 * gossip(weights(t), x, i) for i in x}
        before, a_before, a = dict(x), 1.0, c2
        now = {i: c2 * (x[i] - c3 * gossip(weights(t), x, i)) for i in x}
        for _ in range(rounds - 1):
            later = {i: 2 * c2 * (now[i] - c3 * gossip(weights(t), now, i)) - before[i] for i in x}
            before, now, a_before, a = now, later, a, 2 * c2 * a - a_before
        return {i: x[i] - now[i] / a for i in x}

    if rounds**2 >= high / low * (1 - 1e-12):
        chi = largest = 19 / 15
    else:
        width = 1 / np.cosh(rounds * np.arccosh(c2))
        chi, largest = (1 + width) / (1 - width), 1 + width
    return _apapc(start, gradient, gossiped, rate, steps, strong_convexity, chi, largest)


def acc_gt(start, gradient, weights, rate, steps, strong_convexity):
    x, z, y, path = dict(start), dict(start), dict(start), []
    g = s = {i: np.zeros_like(x[i]) for i in x}
    for t in range(steps):
        W, W_before = weights(t), weights(t - 1)
        theta = np.sqrt(strong_convexity * rate(t)) / 2
        pull = strong_convexity * rate(t) / theta
        new = {i: gradient(i, y[i]) for i in y}
        s = {i: combine(W_before, s, i) + new[i] - g[i] for i in s}
        g = new
        aim = {i: pull * y[i] + z[i] for i in y}
        z = {i: (combine(W, aim, i) - rate(t) / theta * s[i]) / (1 + pull) for i in y}
        x = {i: theta * z[i] + (1 - theta) * combine(W, x, i) for i in y}
        y = {i: theta * z[i] + (1 - theta) * x[i] for i in y}
        path.append(x)
    return path


def _inequality(products):
    """The smallest chi with |P x|^2 <= (1 - 1/chi) |x|^2 for all x of mean zero and all products P."""
    n = len(products[0])
    disagreement = np.eye(n) - 1 / n
    worst = max(np.linalg.eigvalsh(disagreement @ P.T @ P @ disagreement)[-1] for P in products)
    return 1 / (1 - worst)


def adom_plus(start, gradient, weights, rate, steps, strong_convexity, rounds=1):
    mu, period = strong_convexity, 2  # the schedules of the tests have a period of 1 or 2
    largest = max(spectrum(weights(q))[1] for q in range(period))
    relaxed = [np.eye(len(start)) - (np.eye(len(start)) - np.array(weights(q))) / largest for q in range(period)]
    products = []
    for t in range(period):
        P = np.eye(len(start))
        for q in range(t * rounds, (t + 1) * rounds):
            P = relaxed[q % period] @ P
        products.append(P)
    chi = _inequality(products)

    def gossiped(t, x):
        now = dict(x)
        for q in range(t * rounds, (t + 1) * rounds):
            now = {i: now[i] - gossip(weights(q), now, i) / largest for i in x}
        return {i: x[i] - now[i] for i in x}

    def zeros():
        return {i: np.zeros_like(start[i]) for i in start}

    x, path = dict(start), []
    y, z, m, xg, yg, zg = zeros(), zeros(), zeros(), dict(start), zeros(), zeros()
    for t in range(steps):
        L = 1 / rate(t)
        nu = mu / 2
        t2 = np.sqrt(mu / L)
        t1, s2 = 1 / (1 / t2 + 0.5), t2 / (16 * chi)
        s1 = 1 / (1 / s2 + 0.5)
        eta, beta, theta = 1 / (L * t2), 1 / (2 * L), nu / (4 * s2)
        gamma, delta = nu / (14 * s2 * chi**2), 1 / (17 * L)
        x_new, y_new = {}, {}
        for i in x:  # the two implicit lines, as a linear system for (x+, y+)
            h = gradient(i, xg[i]) - nu * xg[i]
            system = np.array([[1 + eta * nu, -eta], [theta, 1 + theta * beta]])
            right = np.stack(
                [x[i] + eta * nu * xg[i] - eta * h, y[i] + theta * beta * h - theta / nu * (yg[i] + zg[i])]
            )
            x_new[i], y_new[i] = np.linalg.solve(system, right)
        xf = {i: xg[i] + t2 * (x_new[i] - x[i]) for i in x}
        yf = {i: yg[i] + s2 * (y_new[i] - y[i]) for i in x}
        total = {i: yg[i] + zg[i] for i in x}
        u = {i: gamma / nu * total[i] + m[i] for i in x}
        Gu, Gt = gossiped(t, u), gossiped(t, total)
        z_new = {i: z[i] + gamma * delta * (zg[i] - z[i]) - Gu[i] for i in x}
        m = {i: u[i] - Gu[i] for i in x}
        zf = {i: zg[i] - 0.5 * Gt[i] for i in x}
        x, y, z = x_new, y_new, z_new
        xg = {i: t1 * x[i] + (1 - t1) * xf[i] for i in x}
        yg = {i: s1 * y[i] + (1 - s1) * yf[i] for i in x}
        zg = {i: s1 * z[i] + (1 - s1) * zf[i] for i in x}
        path.append(x)
    return path


TWINS = {
    "acc_gt": acc_gt,
    "adom_plus": adom_plus,
    "adom_plus_multi_consensus": adom_plus,
    "apapc": apapc,
    "opapc": opapc,
}
