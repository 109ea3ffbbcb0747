r"""What computing, waiting and sending cost in joules: a model with three constants, and machines that it stands for.

    joules = \sum_i (P_busy B_i + P_idle I_i) + e b,

with B_i and I_i the seconds that node i computes and waits, and b the bits that all nodes send: those sent at one end
of a link and received at the other are counted once, by e, with what lies between. A machine that is slow draws the
same power for longer. The constants are in one table, `MACHINES`, each with where it comes from. They are round numbers
for one kind of machine, and no measurement of yours: take `Energy(...)` with your own where joules matter.
"""

import math
from dataclasses import dataclass
from typing import Any

from experiments.settings import nearest


@dataclass(frozen=True)
class Energy:
    """The constants of one kind of node, and of the network between such nodes.

    Attributes:
      busy_watts: power while it computes.
      idle_watts: power while it waits, whether for others or for messages; at most `busy_watts`.
      joules_per_bit: of a bit from one node to another, both ends together.
      source: where the constants come from.

    Raises:
      ValueError: for a number that is negative or not finite, or a node that draws more when idle.

    Example:
      >>> Energy(10.0, 2.0, 1e-9).joules(busy=3.0, idle=1.0, bits=1e9)
      33.0
    """

    busy_watts: float
    idle_watts: float
    joules_per_bit: float
    source: str = "given"

    def __post_init__(self) -> None:
        for name in ("busy_watts", "idle_watts", "joules_per_bit"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ValueError(f"Energy: {name} must be a finite number >= 0, got {value!r}. Use watts and joules.")
        if self.idle_watts > self.busy_watts:
            raise ValueError(
                f"Energy: idle_watts must be at most busy_watts = {self.busy_watts:g}, got {self.idle_watts:g}. Swap "
                "them."
            )

    def joules(self, busy: Any, idle: Any, bits: Any) -> Any:
        """Of `busy` and `idle` seconds, summed over nodes, and of `bits`, summed over links; numbers or arrays."""
        return self.busy_watts * busy + self.idle_watts * idle + self.joules_per_bit * bits


MACHINES = {
    "laptop": Energy(
        30.0,
        5.0,
        2e-8,
        "illustrative: a processor of 28 W under load, an idle system; a radio of 1 W at each end at 100 Mbit/s",
    ),
    "server_gpu": Energy(
        400.0,
        60.0,
        5e-10,
        "busy: the rated power of an A100 SXM (data sheet); idle: recalled; per bit: illustrative, 20 W for a 100 "
        "Gbit/s adapter at each end, and a switch",
    ),
    "weak": Energy(
        5.0,
        2.5,
        1e-7,
        "a Raspberry Pi 4 under full load and idle, as commonly measured (recalled); per bit: illustrative, a radio of "
        "1 W at each end at 20 Mbit/s",
    ),
    "volunteers": Energy(
        30.0,
        5.0,
        0.06 * 3.6e6 / 8e9,
        "nodes: as laptop; per bit: 0.06 kWh a gigabyte over fixed lines in 2015, halving about every two years "
        "(Aslan, Mayers, Koomey, France, Electricity intensity of Internet data transmission, 2018)",
    ),
}
"""All constants, by the names that command lines take."""


def named(machine: "str | Energy") -> Energy:
    """The constants of a machine of the table; constants of your own pass through.

    Raises:
      ValueError: for an unknown name; it says the nearest known ones.

    Example:
      >>> named("weak").busy_watts
      5.0
    """
    if isinstance(machine, Energy):
        return machine
    if machine not in MACHINES:
        raise nearest("energy", machine, MACHINES)
    return MACHINES[machine]
