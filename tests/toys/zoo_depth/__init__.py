"""Depth from one image: a form of batch, a role and a fact that the zoo does not have, in a package of its own."""
