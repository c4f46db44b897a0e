"""Joint marketing response models between a bank and its partners, without showing each other data.

import fedmkt

result = fedmkt.simulate("job.toml")
print(result.summary.models.joint.metrics.auc, result.report)
"""

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedmkt.report.scores import score
    from fedmkt.simulation.demo import demo
    from fedmkt.simulation.plan import plan
    from fedmkt.simulation.run import RunResult, simulate

__version__ = "0.1.0"
__all__ = ["RunResult", "__version__", "demo", "plan", "score", "simulate"]

logging.getLogger(__name__).addHandler(logging.NullHandler())
_HOMES = {
    "RunResult": "simulation.run", "demo": "simulation.demo", "plan": "simulation.plan",
    "score": "report.scores", "simulate": "simulation.run",
}  # fmt: skip


def __getattr__(name: str) -> object:
    """Import what is asked for when it is asked for: the command line must start without numpy."""
    if name not in _HOMES:
        raise AttributeError(f"module 'fedmkt' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"fedmkt.{_HOMES[name]}"), name)
