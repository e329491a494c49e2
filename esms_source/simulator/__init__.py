"""A hostile stand-in for the GetCallback API, for demos, tests and benchmarks."""

from esms_source.simulator.api_rows import sample_row
from esms_source.simulator.behaviour import Behaviour
from esms_source.simulator.faults import FAULTS, SPECIAL_FAULTS
from esms_source.simulator.scenarios import FATES
from esms_source.simulator.server import GET_CALLBACK_PATH, Simulator, serve

__all__ = [
    "FATES",
    "FAULTS",
    "GET_CALLBACK_PATH",
    "SPECIAL_FAULTS",
    "Behaviour",
    "Simulator",
    "sample_row",
    "serve",
]
