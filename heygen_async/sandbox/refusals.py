"""What the sandbox says no with: one exception, in the API's own error envelope."""

from __future__ import annotations

from attrs import frozen


@frozen
class Refusal(Exception):
    """An answer that is not a success, on its way to the client."""

    status: int
    code: str
    message: str
    param: str | None = None
    retry_after: float | None = None

    def envelope(self) -> dict[str, object]:
        """Return the body of the answer."""
        error = {"code": self.code, "message": self.message}
        return {"error": error if self.param is None else {**error, "param": self.param}}


def invalid(message: str, param: str | None = None) -> Refusal:
    """Return the 400 for a parameter that is missing, unknown or wrong."""
    return Refusal(400, "invalid_parameter", message, param)


def not_found(noun: str, name: str, *, code: str = "not_found") -> Refusal:
    """Return the 404 for an id that the sandbox does not know."""
    return Refusal(404, code, f"{noun} {name!r} was not found.")
