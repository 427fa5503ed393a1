"""Data for tasks whose product is a picture."""
