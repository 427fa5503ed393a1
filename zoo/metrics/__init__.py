"""Thin adapters over the field's evaluators; what they share: computing over several processes, and naming values."""
