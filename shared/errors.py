"""The one exception that a user's own mistake raises."""


class UserError(Exception):
    """A mistake that the user can fix: bad file, row, label, option.

    The message is one line that says which file, row, label or option is meant, the value found
    there, and what to do. The commands print it without a traceback and exit with code 2; every
    other exception is an internal fault and keeps its traceback.
    """
