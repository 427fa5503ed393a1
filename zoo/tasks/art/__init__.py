"""Tasks that produce pictures: texture synthesis, style transfer, dreams and patterns."""
