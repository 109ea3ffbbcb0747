"""The symbols of all bounds, with one meaning each. Their names are the arguments of `Bound.evaluate`."""

import sympy

MEANINGS: dict[str, str] = {}
LATEX: dict[str, str] = {}


def symbol(name: str, latex: str, meaning: str, **assumptions: bool) -> sympy.Symbol:
    """A symbol with its meaning on record, positive unless said otherwise.

    Raises:
      ValueError: if the name is on record with another meaning.
    """
    if MEANINGS.setdefault(name, meaning) != meaning:
        raise ValueError(f"symbols: {name!r} already means {MEANINGS[name]!r}. Take that symbol, or another name.")
    LATEX[name] = latex
    return sympy.Symbol(name, **(assumptions or {"positive": True}))


learning_rate = symbol("learning_rate", r"\eta", "step size")
strong_convexity = symbol("strong_convexity", r"\mu", "every f_i is mu-strongly convex")
smoothness = symbol("smoothness", "L", "every f_i is L-smooth")
nodes = symbol("nodes", "n", "number of nodes")
lambda_2 = symbol("lambda_2", r"\lambda_2", "second largest eigenvalue of W", real=True)
lambda_n = symbol("lambda_n", r"\lambda_n", "smallest eigenvalue of W", real=True)
sigma = symbol("sigma", r"\sigma", "||W - 11'/n||_2, one minus the absolute spectral gap", nonnegative=True)
heterogeneity = symbol("heterogeneity", r"\zeta^2", "(1/n) sum_i ||grad f_i(x*)||^2", nonnegative=True)
steps = symbol("steps", "T", "number of steps")
accuracy = symbol("accuracy", r"\varepsilon", "the accuracy that is asked for")
initial_gap = symbol("initial_gap", "F_0", "f(x^0) - f*, from a common start", nonnegative=True)
initial_distance = symbol("initial_distance", "R_0", "||x^0 - x*||, from a common start", nonnegative=True)
gradient_variance = symbol(
    "gradient_variance", r"\sigma_g^2", "E||g_i - grad f_i||^2 of every node's stochastic gradient", nonnegative=True
)
dissimilarity = symbol(
    "dissimilarity", r"\varsigma^2", "sup_x (1/n) sum_i ||grad f_i(x) - grad f(x)||^2", nonnegative=True
)
rounds = symbol("rounds", "m", "rounds of communication per gradient")
