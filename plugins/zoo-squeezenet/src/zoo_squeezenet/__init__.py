"""SqueezeNet and a small set of faces, as a plugin of the zoo."""
