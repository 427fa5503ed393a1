"""Every registered part (transform, scheduler, callback, loss, …), imported on first use."""

from zoo.registry import attribute_access

__getattr__, __dir__ = attribute_access("parts")
