"""Every registered entry does what its kind must do; an entry's own test file holds only what is special about it."""

from zoo.testing import conformance

test_entry = conformance("lightning-zoo")
