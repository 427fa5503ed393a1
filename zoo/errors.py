"""The one exception that ends a command in one line."""


class UserError(Exception):
    """Something that the user can put right; its text is the whole message (what, where, what would be right)."""
