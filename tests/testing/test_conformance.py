"""Every registered entry does what its kind must do; an entry's own test file holds only what is special about it."""

from zoo.testing import conformance

test_entry = conformance("lightning-zoo")
# A package with a form of batch, a role and a fact of its own, and the tasks that the documentation shows.
test_plugin_with_contracts_of_its_own = conformance("zoo-depth")
test_documented = conformance("Denoising", "SmallGAN", "SmallDetection", "ToyEncoder", "ToyGenerator", "ToyDetector")
