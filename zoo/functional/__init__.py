"""Stateless functions of tensors."""
