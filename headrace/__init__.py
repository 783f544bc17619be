"""Headrace from Python: train, watch, load what was trained and act with it (docs/python.md).

    run = headrace.train("cartpole-ppo", {"run.seed": 1})     # the processes of `headrace train`, watched from here
    for row in run.rows(): ...
    agent = headrace.load(run.wait().path)
    action = agent.act(obs)

Every process of a run imports this file first, so that it imports nothing itself: a name is fetched when it is asked
for. The names below are all there are; what stands in the packages beside them may change without notice.
"""

from pkgutil import extend_path
from typing import TYPE_CHECKING

# In a checkout this folder holds nothing else. Where Python is started beside it, and finds it first, the packages are
# those of the installed wheel.
__path__ = extend_path(__path__, __name__)

__all__ = [
    "Agent",
    "HeadraceError",
    "Result",
    "Row",
    "Run",
    "SerialRun",
    "UsageError",
    "__version__",
    "load",
    "train",
    "train_serial",
]

if TYPE_CHECKING:  # what type checkers and editors see
    from headrace.common.errors import HeadraceError, UsageError
    from headrace.launch.agent import Agent, load
    from headrace.launch.background import Result, Run, train
    from headrace.launch.serial import SerialRun, train_serial
    from headrace.observe.rows import Row

    __version__: str
else:
    _HOMES = {
        "HeadraceError": "common.errors",
        "UsageError": "common.errors",
        "Agent": "launch.agent",
        "load": "launch.agent",
        "Result": "launch.background",
        "Run": "launch.background",
        "train": "launch.background",
        "SerialRun": "launch.serial",
        "train_serial": "launch.serial",
        "Row": "observe.rows",
    }

    def __getattr__(name):
        if name == "__version__":
            from importlib.metadata import version

            found = version("headrace")
        elif name in _HOMES:
            from importlib import import_module

            found = getattr(import_module(f"headrace.{_HOMES[name]}"), name)
        else:
            raise AttributeError(f"module 'headrace' has no attribute {name!r}")
        globals()[name] = found
        return found

    def __dir__():
        return __all__
