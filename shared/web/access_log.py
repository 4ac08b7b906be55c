"""One JSON line per request. Queries, headers and bodies may hold secrets and are left out."""

import json
import logging

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

#: A handler writes here who asked, so that the access log can name the principal.
PRINCIPAL: web.RequestKey[str] = web.RequestKey("principal", str)


class JsonAccessLogger(AbstractAccessLogger):
    """Writes method, path, status, bytes, milliseconds, peer and principal."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Write the line; ``time`` is the duration in seconds."""
        line = {
            "method": request.method,
            "path": request.path,
            "status": response.status,
            "bytes": response.body_length,
            "ms": round(time * 1_000, 2),
            "peer": request.remote,
            "principal": request.get(PRINCIPAL),
        }
        self.logger.info(json.dumps(line, ensure_ascii=False))

    @property
    def enabled(self) -> bool:
        """Nothing is computed for a log that nobody keeps."""
        return self.logger.isEnabledFor(logging.INFO)
