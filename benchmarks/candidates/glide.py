"""valkey-glide: its synchronous client with its client-side cache."""

from typing import Any, ClassVar
from urllib.parse import urlsplit

import orjson

from benchmarks.candidates.base import Candidate, Place

#: Room for the largest value many times over: a value that does not fit is not cached.
_CACHE_KB = 64 * 1024


class GlideNear(Candidate):
    """GET and orjson, behind `ClientSideCache` with the TTL, and ``server_assisted``: Valkey tells of every change.

    It keeps replies, so every read decodes. Its core reads the messages in a thread of its own.
    """

    name: ClassVar = "valkey-glide client-side cache + orjson"
    distributions: ClassVar = ("valkey-glide-sync", "orjson")
    promise: ClassVar = (
        "Valkey broadcasts a change, and the client drops its copy when it reads of it; the TTL is the only bound."
    )
    near: ClassVar = True

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        import glide_sync  # noqa: PLC0415 - only where it is used: it starts threads

        server = urlsplit(place.redis_url)
        milliseconds = max(1, round(place.timeout * 1000))
        self._key = f"{place.namespace}:rows"
        self._expiry: Any = glide_sync.ExpirySet(glide_sync.ExpiryType.MILLSEC, round(place.ttl * 1000))
        self._client: Any = glide_sync.GlideClient.create(
            glide_sync.GlideClientConfiguration(
                [glide_sync.NodeAddress(server.hostname, server.port)],
                credentials=glide_sync.ServerCredentials(server.password) if server.password else None,
                request_timeout=milliseconds,
                client_side_cache=glide_sync.ClientSideCache.create(
                    max_cache_kb=_CACHE_KB, entry_ttl_ms=round(place.ttl * 1000), server_assisted=True
                ),
            )
        )

    def read(self) -> Any:
        data = self._client.get(self._key)
        if data is not None:
            return orjson.loads(data)
        rows = self.place.load()
        self._client.set(self._key, orjson.dumps(rows), expiry=self._expiry)
        return rows

    def invalidate(self) -> None:
        self._client.delete([self._key])

    def close(self) -> None:
        self._client.close()
