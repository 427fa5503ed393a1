"""Every registered class of this kind, the zoo's and plugins' alike, imported on first use."""

from zoo.registry import attribute_access

__getattr__, __dir__ = attribute_access("tasks")
