"""Experiments that measure what the documentation claims, rerun by one command."""
