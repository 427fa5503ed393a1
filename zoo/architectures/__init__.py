"""Every registered class of this kind, from the zoo and from plugins, imported on first access."""

from zoo.registry import attribute_access

__getattr__, __dir__ = attribute_access("architectures")
