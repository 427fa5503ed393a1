"""The networks of segmentation-models-pytorch, as a plugin of the zoo."""
