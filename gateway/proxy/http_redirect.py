"""Plain HTTP beside HTTPS: serves the challenges of ACME, and redirects everything else."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.http.errors import BadRequestError, NoRouteError
from gateway.proxy.context import RequestContext
from gateway.proxy.direct_response import DirectResponse
from gateway.proxy.pipeline import Pipeline
from gateway.proxy.request_log import RequestLog
from gateway.proxy.stages import understand

CHALLENGE_PATH = "/.well-known/acme-challenge/"
HTTPS_PORT = 443


class HttpChallenges:
    """Key authorizations by token (RFC 8555 section 8.3)."""

    def __init__(self) -> None:
        self.by_token: Mapping[str, str] = {}


class HttpRedirect:
    """Responds to each request of the listener."""

    def __init__(self, challenges: HttpChallenges, *, https_port: int) -> None:
        self._challenges = challenges
        self._port = "" if https_port == HTTPS_PORT else f":{https_port}"

    def respond(self, context: RequestContext) -> DirectResponse:
        """Return a key authorization, or where the request belongs. Raises `ProblemError`."""
        request = context.request
        path = request.target.path
        if path.startswith(CHALLENGE_PATH):
            text = self._challenges.by_token.get(path.removeprefix(CHALLENGE_PATH))
            if text is None:
                raise NoRouteError("acme_challenge", "There is no such challenge.")
            fields = (("Content-Type", "application/octet-stream"),)
            return DirectResponse(200, "", fields, text.encode("ascii"))
        if not request.routing_host:
            raise BadRequestError("host", "The request has no Host header field to redirect to.")
        location = f"https://{request.routing_host}{self._port}{path}{request.target.query}"
        return DirectResponse(308, "http_redirect", (("Location", location),))


def build_http_redirect(
    log: RequestLog, challenges: HttpChallenges, *, https_port: int
) -> Pipeline:
    """The path of requests that come by plain HTTP."""
    pipeline = Pipeline(log)
    pipeline.stages = (
        understand,
        HttpRedirect(challenges, https_port=https_port).respond,
    )
    return pipeline
