"""Tasks whose product is a picture: texture synthesis, style transfer, dreams and patterns."""
