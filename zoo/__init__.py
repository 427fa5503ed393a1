"""A plugin-based model zoo for image tasks on PyTorch Lightning.

Importing this package imports nothing heavy: the names below are fetched when they are used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.architectures.base import Architecture as Architecture
    from zoo.data.base import Data as Data
    from zoo.factories import ArchitectureFactory as ArchitectureFactory
    from zoo.facts import Facts as Facts
    from zoo.tasks.base import Task as Task
    from zoo.training.restore import load as load

__version__ = "0.1.0"

_HOMES = {
    "Architecture": "zoo.architectures.base",
    "ArchitectureFactory": "zoo.factories",
    "Data": "zoo.data.base",
    "Facts": "zoo.facts",
    "Task": "zoo.tasks.base",
    "load": "zoo.training.restore",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'zoo' has no attribute {name!r}")
