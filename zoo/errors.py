"""The one exception that ends a command in one line."""


class UserError(Exception):
    """A mistake of the user; its text is the whole message (what is wrong, where, and what would be right)."""
