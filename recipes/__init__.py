"""The zoo's own recipes, as the package ``zoo.recipes``."""
