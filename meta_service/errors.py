"""The one error a user's mistake or a broken surrounding raises; shown as one line, never as a traceback."""


class UserError(Exception):
    """What was expected, what came and what to do, in one line."""
