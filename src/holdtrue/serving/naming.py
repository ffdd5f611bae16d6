"""Which environment of a service a request means: the one that its header names, or that its token is for."""

from typing import Final

from holdtrue.core.errors import Forbidden, InvalidInput
from holdtrue.core.ids import check_name
from holdtrue.serving.endpoints import Request

HEADER: Final = b"x-holdtrue-environment"


def environment_of(request: Request) -> str | None:
    """Return the environment that a request names or its token is for, None where it is left open.

    Raises Forbidden where both say different things: a token for staging answers no question about production.
    """
    given = request.headers.get(HEADER)
    bound = request.grant.environment
    if given is None:
        return bound
    try:
        name = check_name(given.decode("latin-1"), "environment name")
    except InvalidInput as error:
        raise InvalidInput("The header X-Holdtrue-Environment names no environment.", why=error.why) from None
    if bound is not None and bound != name:
        raise Forbidden(
            f"This token is for the environment {bound}.",
            why=f"The request names {name}.",
            mend=f"Leave the header out, or ask for a token: holdtrue token create --environment {name}",
        )
    return name


def in_environment(request: Request, service: str) -> str:
    """Return by which name the engine knows a service in the environment that a request means."""
    environment = environment_of(request)
    return service if environment is None else f"{service}@{environment}"
