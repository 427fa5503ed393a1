"""The networks and samplers of Hugging Face's diffusers, as a plugin of the zoo."""
