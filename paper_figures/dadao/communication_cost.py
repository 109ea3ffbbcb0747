r"""DADAO (Nabli, Oyallon, ICML 2023), its table of communications: exchanges that come with a round of gradients.

Markers: exchanges on all links for one gradient of every node, by DADAO (sqrt(2 chi_1 chi_2) on each link of rate 1, on
average), MSDA (floor(sqrt(kappa)) rounds over all links) and ADOM+ with multi-consensus (ceil(kappa ln 2) rounds), over
the number of nodes; lines: their leading terms. ADOM+ without multi-consensus makes one round only, and pays in
gradients: the last panel has, for quadratics of one coordinate and exact rates, how many more exchanges ADOM+ makes
than DADAO for the same decrease of the squared error, over the condition number of the functions. Each node's curvature
is mu, L, one or the other by halves, or in a geometric row from mu to L.

--full has graphs of up to 1024 nodes instead of 256.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import sympy
import xarray as xr
from jax.flatten_util import ravel_pytree

import adozoo
import theory
from experiments import figures

GRAPHS: dict[str, Any] = {
    "star": adozoo.graphs.star,
    "complete": adozoo.graphs.complete,
    "ring": adozoo.graphs.ring,
    "path": adozoo.graphs.path,
    "grid": lambda n: adozoo.graphs.grid(int(n**0.5), int(n**0.5)),
    "hypercube": adozoo.graphs.hypercube,
    "barbell": adozoo.graphs.two_cliques,
}
SIZES = (4, 16, 64, 256)
ALGORITHMS = {
    "dadao": ("DADAO", "red", "o"),
    "msda": ("MSDA", "blue", "s"),
    "adom_plus_multi_consensus": ("ADOM+, multi-consensus", "orange", "^"),
}
POWERS = ("star", "complete", "ring", "path", "grid")
TABLE = ("star", "complete", "ring", "grid")
"""Graphs whose orders are powers of n; those in the paper's table."""
SMALL = ("ring:3", "ring:4", "star:4", "complete:4", "path:4")
CONDITIONS = (1.0, 4.0, 100.0, 1e4)
PATTERNS = ("all mu", "all L", "halves", "geometric")
NOTEBOOK = {"ADOM+": 299, "ADOM+ with multi-consensus": 62192, "Continuized": 299, "MSDA": 5083, "DADAO": 299}
"""What the authors' notebook prints for the star of 300 nodes."""
NEUTRAL = 1e-7
"""Eigenvalues this close to 1 belong to ADOM+'s sums over nodes that are conserved and have no effect."""


def curvatures(pattern: str, n: int, condition: float) -> np.ndarray:
    node = np.arange(n)
    choices = {
        "all mu": np.ones(n),
        "all L": np.full(n, condition),
        "halves": np.where(node < n // 2, 1.0, condition),
        "geometric": condition ** (node / (n - 1)),
    }
    return choices[pattern]


@partial(jax.jit, static_argnames=("graph", "rounds"))
def adom_plus_step(h: jax.Array, condition: jax.Array, graph: str, rounds: int) -> jax.Array:
    """The matrix of one step of ADOM+ on curvatures h, with the constants of the authors' code."""
    built = adozoo.graphs.parse(graph)
    laplacian = adozoo.resistance.normalize_rates(built, "largest_eigenvalue").toarray()
    n, chi = len(laplacian), adozoo.resistance.chi(laplacian).chi_1
    mix = adozoo.mixing(np.eye(n) - laplacian)
    tx = adozoo.adom_plus(mix, 1.0, condition, rounds=rounds, chi=chi if rounds == 1 else 2.0)
    x = jnp.zeros((n, 1))
    start: Any = tx.init(x)
    count = start.count
    flat, shaped = ravel_pytree((x, start._replace(count=0.0)))

    def step(vector: jax.Array) -> jax.Array:
        params, state = shaped(vector)
        updates, after = tx.update(h[:, None] * params, state._replace(count=count), params)
        moved: Any = after
        return ravel_pytree((params + updates, moved._replace(count=0.0)))[0]

    return jax.jacobian(step)(flat)


def exchanges_per_decrease(graph: str) -> np.ndarray:
    """Of ADOM+ without and with multi-consensus, over DADAO's, [condition, pattern, 2]: for the squared error's log."""
    built = adozoo.graphs.parse(graph)
    n, edges, rates = len(built), built.number_of_edges(), theory.dadao_rates(built)
    rounds = theory.communications_per_gradient_round(built).adom_plus_multi_consensus // edges
    found = np.empty((len(CONDITIONS), len(PATTERNS), 2))
    for row, condition in enumerate(CONDITIONS):
        for column, pattern in enumerate(PATTERNS):
            h = curvatures(pattern, n, condition)
            dadao = rates.trace() / 2 / -theory.dadao_rate(rates, h, 1.0, condition).second_moment
            for kind, number in enumerate((1, rounds)):
                matrix = np.asarray(adom_plus_step(jnp.asarray(h), jnp.asarray(condition), graph, number))
                sizes = np.abs(np.linalg.eigvals(matrix))
                decrease = -2 * np.log(sizes[sizes < 1 - NEUTRAL].max())
                found[row, column, kind] = edges * number / decrease / dadao
    return found


def compute(full: bool) -> xr.Dataset:
    sizes = (*SIZES, 1024) if full else SIZES
    counts = [
        [[getattr(found, name) for name in ALGORITHMS] for found in map(theory.communications_per_gradient_round, row)]
        for row in ([build(n) for n in sizes] for build in GRAPHS.values())
    ]
    star = theory.communications_per_gradient_round(adozoo.graphs.star(300))
    printed = [star.adom_plus, star.adom_plus_multi_consensus, star.continuized, star.msda, star.dadao]
    return xr.Dataset(
        {
            "exchanges": (("graph", "n", "algorithm"), np.array(counts, float)),
            "star_300": ("printed", np.array(printed, float)),
            "ratio": (
                ("small_graph", "condition", "pattern", "kind"),
                np.array([exchanges_per_decrease(graph) for graph in SMALL]),
            ),
        },
        {
            "graph": list(GRAPHS),
            "n": list(sizes),
            "algorithm": list(ALGORITHMS),
            "printed": list(NOTEBOOK),
            "small_graph": list(SMALL),
            "condition": list(CONDITIONS),
            "pattern": list(PATTERNS),
            "kind": ["ADOM+", "ADOM+, multi-consensus"],
        },
    )


def draw(data: xr.Dataset) -> figures.Figure:
    figure, axes = figures.panels(2, 4, (3.0, 2.7))
    fine = np.geomspace(data.n.values[0], data.n.values[-1], 60)
    for axis, graph in zip(axes.flat, map(str, data.graph.values), strict=False):
        formulas = None if graph == "barbell" else theory.communication_asymptotics(graph)
        for name, (label, colour, marker) in ALGORITHMS.items():
            look = {"color": figures.PALETTE[colour]}
            axis.plot(
                data.n, data.exchanges.sel(graph=graph, algorithm=name), ls="", marker=marker, label=label, **look
            )
            if formulas is not None:
                curve = sympy.lambdify(theory.graph_symbols("ring").nodes, getattr(formulas, name))
                axis.plot(fine, np.broadcast_to(curve(fine), fine.shape), lw=1, **look)
        orders = order_title(graph) if graph in POWERS else ""
        axis.set(xscale="log", yscale="log", title=f"{graph}{orders}")
    for axis in axes[:, 0]:
        axis.set_ylabel("exchanges for each\nround of gradients")
    for axis in axes.flat[3:7]:
        axis.set_xlabel("nodes")
    last = axes.flat[-1]
    for graph in map(str, data.small_graph.values):
        look = figures.topology(graph) | {"fillstyle": "none" if graph == "ring:3" else "full"}
        for kind, style in zip(map(str, data.kind.values), (":", "-"), strict=True):
            worst = data.ratio.sel(small_graph=graph, kind=kind).min("pattern")
            last.plot(
                data.condition, worst, ls=style, label=graph.replace(":", " of ") if style == "-" else None, **look
            )
    last.axhline(1, color="0.4", lw=0.8)
    last.set(
        xscale="log", yscale="log", xlabel=r"$L / \mu$", title="ADOM+ / DADAO, least over curvatures", ylim=(0.8, 60)
    )
    last.set_yticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
    last.legend(fontsize=6.5, title="solid: multi-consensus", title_fontsize=6.5, ncols=2, loc="upper right")
    handles = axes.flat[0].get_legend_handles_labels()[0]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def order_title(graph: str) -> str:
    """The orders in n of the three methods, as powers."""
    orders = theory.communication_orders(graph)
    return ": " + ", ".join(f"${sympy.latex(getattr(orders, name))}$" for name in ALGORITHMS)


def judge(data: xr.Dataset) -> list[figures.Claim]:
    counts = {name: data.exchanges.sel(algorithm=name) for name in ALGORITHMS}
    star = {name: round(float(count), 9) for name, count in zip(NOTEBOOK, data.star_300, strict=True)}
    methods = ", ".join(label for label, *_ in ALGORITHMS.values())
    at_64 = {graph: data.exchanges.sel(graph=graph, n=64).values for graph in GRAPHS}
    return [
        figures.Claim(
            "the star of 300 nodes: the counts that the authors' notebook prints", star == NOTEBOOK, star, NOTEBOOK
        ),
        figures.Claim(
            "for a round of gradients DADAO makes at most as many exchanges as MSDA, and that at most as many as ADOM+ "
            "with multi-consensus, on every graph",
            bool(
                (counts["dadao"] <= counts["msda"] * (1 + 1e-9)).all()
                and (counts["msda"] <= counts["adom_plus_multi_consensus"]).all()
            ),
            {f"{graph} of 64: {methods}": at_64[graph] for graph in GRAPHS},
        ),
        figures.Claim(
            "the counts grow with the orders of the paper's table",
            orders_agree(data),
            {f"{graph}: powers of n between the last two sizes": powers(data, graph).round(3) for graph in POWERS},
            {
                f"{graph}: powers of n between the last two sizes": tuple(map(float, theory_powers(graph)))
                for graph in TABLE
            },
        ),
        figures.Claim(
            "DADAO makes fewer exchanges than ADOM+, with and without multi-consensus, for the same decrease of the "
            "squared error: exact rates on 80 quadratics",
            bool((data.ratio > 1).all()),
            {
                f"{kind} / DADAO, smallest and largest": (
                    float(data.ratio.sel(kind=kind).min()),
                    float(data.ratio.sel(kind=kind).max()),
                )
                for kind in map(str, data.kind.values)
            },
        ),
    ]


def powers(data: xr.Dataset, graph: str) -> np.ndarray:
    """Local powers of n of the three methods."""
    last = np.log(data.exchanges.sel(graph=graph).isel(n=slice(-2, None)).values)
    return (last[1] - last[0]) / np.diff(np.log(data.n.values[-2:]))


def theory_powers(graph: str) -> list[sympy.Expr]:
    """The powers of n in the orders."""
    orders = theory.communication_orders(graph)
    return [getattr(orders, name).as_base_exp()[1] for name in ALGORITHMS]


def orders_agree(data: xr.Dataset) -> bool:
    """To 0.06, on the graphs whose orders are powers."""
    return all(np.allclose(powers(data, name), [float(p) for p in theory_powers(name)], atol=0.06) for name in POWERS)


def main(arguments: Sequence[str] | None = None) -> list[figures.Claim]:
    return figures.run(__file__, __doc__, compute, draw, judge, arguments)


if __name__ == "__main__":
    main()
