"""HTTP, whose redirects are errors: they could lead out of the roots that the first address was held against."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from fsspec.implementations import http
from yarl import URL

from sasrec_tasks.errors import BadSettings
from sasrec_tasks.naming import shown


class HTTPFileSystem(http.HTTPFileSystem):  # type: ignore[misc]
    """fsspec's, which says of any answer to a question about a file that there is none."""

    async def _info(self, url: str, **keywords: Any) -> dict[str, Any]:
        try:
            found: dict[str, Any] = await super()._info(url, **keywords)
        except FileNotFoundError as error:
            if isinstance(error.__cause__, BadSettings):
                raise error.__cause__ from None
            raise
        return found


async def client(**keywords: Any) -> aiohttp.ClientSession:
    """What asks the servers, for `get_client` of fsspec's file system.

    Its requests raise BadSettings where the answer is a redirect.
    """
    return aiohttp.ClientSession(middlewares=[_refuse_redirects], **keywords)


async def _refuse_redirects(
    request: aiohttp.ClientRequest,
    send: Callable[[aiohttp.ClientRequest], Awaitable[aiohttp.ClientResponse]],
) -> aiohttp.ClientResponse:
    answer = await send(request)
    if 300 <= answer.status < 400:
        answer.close()
        raise BadSettings(
            f"{shown(str(request.url.with_query(None)))}: is a redirect ({answer.status}) to "
            f"{_host(request.url, answer.headers.get('Location', ''))}, which is not followed, as it could lead out of "
            "the allowed roots: name its target itself (`curl -I` shows it), a place under one of them"
        )
    return answer


def _host(url: URL, location: str) -> str:
    """Where a redirect leads to; no more than the host, as the rest may hold a token."""
    try:
        return shown(str(url.join(URL(location)).origin()))
    except ValueError:
        return "what is no address of a host"
