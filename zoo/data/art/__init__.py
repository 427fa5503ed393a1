"""Data for tasks that produce pictures."""
