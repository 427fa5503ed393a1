"""A network, a data set and a recipe for the zoo."""
