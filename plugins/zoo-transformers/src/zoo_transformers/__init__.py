"""The captioners and tokenisers of Hugging Face's transformers, as a plugin of the zoo."""
