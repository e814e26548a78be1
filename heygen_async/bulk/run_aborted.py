"""What a task of a row raises to end the whole run."""


class RunAborted(Exception):
    """Ends the run, from a task of a row."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__(str(error))
