"""An S3 server for tests: moto over HTTP, in a process of its own; prints its address, then serves until killed.

One request at a time, so that a put on a condition is atomic, as it is on S3.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from typing import Any

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server


class Whole:
    """Refuses a request whose body breaks off; moto would keep what has come of it, which S3 does not."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if length := int(environ.get("CONTENT_LENGTH") or 0):
            try:
                content = environ["wsgi.input"].read(length)
            except OSError:  # the connection is gone
                content = b""
            if len(content) < length:
                start_response("400 Bad Request", [("Content-Length", "0")])
                return [b""]
            environ["wsgi.input"] = io.BytesIO(content)
        answer: Iterable[bytes] = self.app(environ, start_response)
        return answer


if __name__ == "__main__":
    server = make_server(
        "127.0.0.1",
        0,
        Whole(DomainDispatcherApplication(create_backend_app)),
        threaded=False,
        request_handler=MotoRequestHandler,
    )
    sys.stdout.write(f"http://127.0.0.1:{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()
