"""A plugin of the smallest task of each kind, for the tests: what the real ones will need must pass through."""
