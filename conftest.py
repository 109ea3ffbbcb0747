"""What holds for every test and doctest, set before anything imports adozoo, theory or matplotlib."""

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import pytest
import references
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

# In the environment, so that scripts which a test starts draw without a screen as well.
os.environ["MPLBACKEND"] = "Agg"

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Checks the shapes and types of every annotated function of both packages, whoever imports them first. An int will do
# for a float, as it does for every static checker.
install_import_hook(["adozoo", "theory"], "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

# Each example of a new shape compiles anew: few examples, no deadline, and the same ones in each run.
settings.register_profile(
    "ci", max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("thorough", parent=settings.get_profile("ci"), max_examples=200)
settings.load_profile("ci")


@pytest.fixture(scope="session")
def reference() -> Callable[[str], dict[str, Any]]:
    """`references.load` as a fixture: `reference("peers_decent_bench")["x0"]`."""
    return references.load


class EverywhereToo:
    """Fixtures for the doctests outside this folder, which a conftest's own fixtures do not reach."""

    @pytest.fixture(scope="session")
    @classmethod
    def doctest_namespace(cls) -> dict[str, Any]:
        """The names that a docstring's example may use without importing them."""
        import adozoo
        import theory

        return {"adozoo": adozoo, "jax": jax, "jnp": jnp, "np": np, "nx": nx, "optax": optax, "theory": theory}


def pytest_configure(config: pytest.Config) -> None:
    """Give the doctests their namespace."""
    config.pluginmanager.register(EverywhereToo())
