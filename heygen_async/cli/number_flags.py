"""Numbers as flags take them. The rule, `plain_number`, is in the sandbox, which imports nothing of ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, TypeAlias

from cyclopts import CoercionError, Parameter, Token
from cyclopts.validators import Number


def _convert(kind: type[float], tokens: Sequence[Token]) -> float:
    # Cyclopts itself takes the words none and null for a flag that is not given: a budget without a limit.
    from heygen_async.sandbox.plain_numbers import plain_number  # noqa: PLC0415 most commands are given no number

    try:
        return plain_number(tokens[0].value, kind)
    except ValueError as error:
        raise CoercionError(token=tokens[0], target_type=kind) from error


_PARAMETER: Final = Parameter(converter=_convert)

PlainNumber: TypeAlias = Annotated[float, _PARAMETER]
"""A number."""
PositiveNumber: TypeAlias = Annotated[PlainNumber, Parameter(validator=Number(gt=0))]
"""A number above 0."""
Dollars: TypeAlias = Annotated[PlainNumber, Parameter(validator=Number(gte=0), metavar="USD")]
"""An amount of money, 0 or more."""
Rates: TypeAlias = dict[str, PlainNumber]
"""Prices by mode: --rates.speed 0.033."""
WholeNumber: TypeAlias = Annotated[int, _PARAMETER]
"""A whole number."""
Count: TypeAlias = Annotated[WholeNumber, Parameter(validator=Number(gte=1))]
"""A whole number, 1 or more."""
Slots: TypeAlias = Annotated[WholeNumber, Parameter(validator=Number(gte=0))]
"""A whole number, 0 or more."""
PageSize: TypeAlias = Annotated[WholeNumber, Parameter(validator=Number(gte=1, lte=100))]
"""The items of a page, 1 to 100."""
Port: TypeAlias = Annotated[WholeNumber, Parameter(validator=Number(gte=0, lte=65535))]
"""A port to listen on."""
