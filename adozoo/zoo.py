"""The registry: one entry a method, with what tests, documents, theory and experiments need to treat all alike."""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import optax
from jaxtyping import PyTree

from adozoo._events import Events
from adozoo.mixing import Mixing

FAMILIES = ("gossip", "averaging", "accelerated", "asynchronous")
"""The folders of `adozoo` that hold methods; each module in them registers what it defines."""

_ENTRIES: dict[str, "Entry"] = {}


@dataclass(frozen=True)
class Entry:
    """What is known of one method (one variant of it, where variants differ in kind).

    Attributes:
      name: the name in the registry.
      factory: (learning_rate, mix, **hyperparameters) -> transformation.
      family: the folder it lives in.
      title: the method's name in full.
      paper: who proposed it, where.
      mixings: which mixings its theory admits, out of "symmetric", "doubly" (doubly stochastic, perhaps directed),
        "column" (column stochastic), "varying" (time-varying), "complete" (exact averaging only), "tree" (trees only),
        "events" or "paired events" (`adozoo.events`).
      hyperparameters: values for everything beyond (learning_rate, mix), with which the method can be tried.
      search: values worth trying for hyper-parameters that have to be tuned beside the learning rate.
      linear: whether update is an affine map of (params, grads, state), so that theory can read it off.
      exact: whether its fixed point is the optimum of the average objective however much the nodes differ.
      preserves_mean: whether communication leaves the average over nodes of params as it was.
      vectors: how many vectors of the size of params go over each directed link in a step; below 1 where not all steps
        communicate.
      scalars: how many single numbers go along with them.
      rounds: how many of these messages must wait for another one of the same step (sequential rounds).
      smallest_eigenvalue: the bound that the smallest eigenvalue of W must exceed, where there is one.
      equal_start: whether all nodes must start at the same params.
      bits: (one node's params, n) -> bits over each directed link in a step, where that is not `vectors` times their
        size.
      random: whether nodes or links draw random numbers of their own.
      fixed_graph: whether the factory must know the graph's links, so that a traced matrix will not do.
      matrices: whether tensors are treated by their shapes, as matrices: vectors are then sent as they are.
      leafwise: whether each tensor is compressed by itself, so that it matters how params are cut into tensors.
      unbounded: those of the real hyper-parameters that may exceed 1.
      oracle: what update takes: "primal" (gradients at params), or "dual" (params are dual variables, and it takes the
        gradients of the conjugates f_i^* there; the answer is `adozoo.eval_params`).
      drifts: whether the state holds something that runs away, on which nothing else depends, so that the spectral
        radius of the whole step says nothing of the rate.
      patience: how many thousands of steps it needs where other methods are there after one.
      overlaps: whether no node's next params depend on the others' gradients of the same step, so that messages may
        travel while gradients are computed.
      gathers: whether what nodes send to an exact average does not add up, so that all of it must reach every node.
      rates: (graph) -> the Laplacian of the rates that its theory asks of links, for gradients at rate 1; None where
        any will do (event-driven methods).
    """

    name: str
    factory: Callable[..., optax.GradientTransformationExtraArgs]
    family: str
    title: str
    paper: str
    mixings: frozenset[str]
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    linear: bool = True
    exact: bool = True
    preserves_mean: bool = True
    vectors: float = 1
    scalars: int = 0
    rounds: int = 1
    smallest_eigenvalue: float = -1.0
    equal_start: bool = False
    bits: Callable[[PyTree, int], float] | None = None
    random: bool = False
    fixed_graph: bool = False
    matrices: bool = False
    leafwise: bool = False
    unbounded: frozenset[str] = frozenset()
    oracle: str = "primal"
    patience: int = 1
    drifts: bool = False
    overlaps: bool = False
    gathers: bool = False
    rates: Callable[[Any], Any] | None = None

    @property
    def readable(self) -> bool:
        """Whether its rate is that of one step's linear map, which theory reads off over any mixing that it admits."""
        eventful = self.mixings & {"events", "paired events"}
        return self.linear and self.oracle == "primal" and not (self.random or self.drifts or eventful)

    def build(
        self, learning_rate: Any, mix: Mixing | Events, **overrides: Any
    ) -> optax.GradientTransformationExtraArgs:
        """The transformation, with this entry's hyper-parameters unless overridden."""
        return self.factory(learning_rate, mix, **{**self.hyperparameters, **overrides})

    def admits(self, mix: Mixing | Events) -> bool:
        """Whether the method's theory covers this mixing."""
        if isinstance(mix, Events):
            return ("paired events" if mix.paired else "events") in self.mixings
        if self.mixings & {"events", "paired events"}:
            return False
        if "tree" in self.mixings:
            try:
                return mix.exchange().is_tree
            except ValueError:  # it varies, or is directed
                return False
        if mix.is_mean:
            return True
        if "complete" in self.mixings:
            return False
        if mix.varying and "varying" not in self.mixings:
            return False
        kind = "symmetric" if mix.stochastic == "doubly" and mix.symmetric else mix.stochastic
        return kind in self.mixings


def register(entry: Entry) -> Entry:
    """Add an entry; a method's file calls this once for each of its variants.

    Raises:
      ValueError: if the name is taken or the family unknown.
    """
    if entry.name in _ENTRIES:
        raise ValueError(f"zoo.register: the name {entry.name!r} is taken. Choose another one.")
    if entry.family not in FAMILIES:
        raise ValueError(f"zoo.register: family must be one of {FAMILIES}, got {entry.family!r}.")
    _ENTRIES[entry.name] = entry
    return entry


def entries() -> dict[str, Entry]:
    """All registered methods, by name, sorted. A new file in a method folder is found by itself.

    Example:
      >>> sorted(adozoo.zoo.entries())[:3]
      ['acc_gt', 'acid', 'ad_psgd']
    """
    for family in FAMILIES:
        package = importlib.import_module(f"adozoo.{family}")
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"adozoo.{family}.{module.name}")
    return dict(sorted(_ENTRIES.items()))


def entry(name: str) -> Entry:
    """One method by its name.

    Raises:
      ValueError: for an unknown name; it says the nearest known ones.

    Example:
      >>> adozoo.zoo.entry("extra").exact
      True
    """
    known = entries()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3) or sorted(known)
        raise ValueError(f"zoo.entry: no method is called {name!r}. Did you mean {', '.join(near)}?")
    return known[name]
