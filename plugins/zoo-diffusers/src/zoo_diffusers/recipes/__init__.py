"""The YAML files beside this one are recipes, called by their names: ``zoo fit --config diffusers_unet``."""
