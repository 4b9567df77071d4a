"""What today's callers rely on: the module API on a real PostgreSQL and a real Valkey."""

import copy
import enum
import json
import logging
import math
import pickle
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from psycopg2.extensions import connection as Connection  # noqa: N812 - a class in spite of its name

import kcg_cache
from kcg_cache import (
    ACTIVE_VERSIONS,
    Dataset,
    Dependency,
    Settings,
    SharedCache,
    api,
    codec,
    postgres,
    queries,
    testing,
)
from kcg_cache.datasets import json_object, version_row
from kcg_cache.errors import DatasetError


@pytest.fixture(autouse=True)
def _no_default_cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(api, "_default", None)
    yield
    if api._default is not None:
        api._default.close()


@pytest.fixture
def conn(pg: Connection) -> Connection:
    """Give a connection to a database with the sample data."""
    with pg, pg.cursor() as cursor:
        cursor.execute(queries.load("sample_data"))
    return pg


@pytest.fixture
def _shared(redis_url: str, namespace: str) -> None:
    kcg_cache.configure(redis_url, namespace=namespace)


@pytest.mark.usefixtures("_shared")
def test_the_list_is_the_callers_own_and_the_rows_are_shared(conn: Connection) -> None:
    """Appending and sorting disturb nobody."""
    first = kcg_cache.load_active_versions(conn)
    second = kcg_cache.load_active_versions(conn)
    assert first == second
    assert first is not second
    assert first[0] is second[0]
    first.reverse()
    first.pop()
    assert kcg_cache.load_active_versions(conn) == second


@pytest.mark.usefixtures("_shared")
def test_rows_are_what_the_tables_say(conn: Connection) -> None:
    """Every ACTIVE version of an enabled model, by model, role and id."""
    rows = kcg_cache.load_active_versions(conn)
    expected = postgres.fetch(
        conn,
        """SELECT v.id, v.model_id, v.version, v.role, v.params FROM kcg.detection_model_versions v
           JOIN kcg.detection_models m USING (model_id) WHERE v.status = 'ACTIVE' AND m.is_enabled""",
    )
    roles = ["PRIMARY", "CHALLENGER", "SHADOW"]
    expected.sort(key=lambda row: (row["model_id"], roles.index(row["role"]), row["id"]))
    assert rows == expected
    assert {row["role"] for row in rows} == set(roles)


@pytest.mark.usefixtures("_shared")
def test_the_operators_change_is_seen_at_the_next_look_up(conn: Connection) -> None:
    """Promote, commit, invalidate, look up."""
    before = kcg_cache.load_active_versions(conn)
    gone = before[-1]["id"]
    with conn, conn.cursor() as cursor:
        cursor.execute("UPDATE kcg.detection_model_versions SET status = 'ARCHIVED' WHERE id = %s", (gone,))
    assert kcg_cache.load_active_versions(conn) == before
    receipt = kcg_cache.invalidate_cache(reason=f"version {gone} withdrawn")
    assert receipt.in_force
    assert receipt.reason == f"version {gone} withdrawn"
    assert [row["id"] for row in kcg_cache.load_active_versions(conn)] == [row["id"] for row in before[:-1]]


@pytest.mark.usefixtures("_shared")
def test_force_reload_reads_the_database_and_refreshes_the_shared_copy(conn: Connection) -> None:
    """Whatever is cached."""
    kcg_cache.load_active_versions(conn)
    with conn, conn.cursor() as cursor:
        cursor.execute("DELETE FROM kcg.detection_model_versions")
    assert kcg_cache.load_active_versions(conn, force_reload=True) == []
    assert kcg_cache.load_active_versions(conn) == []
    assert kcg_cache.load_active_versions(conn, max_age=60) == []


def test_dependencies_are_every_edge_in_order_and_not_cached(conn: Connection) -> None:
    """They need no Redis at all, and leave the caller's transaction as it was."""
    edges = kcg_cache.load_dependencies(conn)
    assert edges == sorted(edges)
    assert {len(edge) for edge in edges} == {3}
    assert edges[0] == Dependency(*edges[0])
    assert not postgres.transaction_open(conn)
    with conn.cursor() as cursor:
        cursor.execute("DELETE FROM kcg.detection_model_dependencies")
    assert kcg_cache.load_dependencies(conn) == []
    assert postgres.transaction_open(conn)
    conn.rollback()
    assert kcg_cache.load_dependencies(conn) == edges


def test_the_default_cache_is_made_once_from_the_environment(
    conn: Connection, redis_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a call of configure."""
    monkeypatch.setenv("KCG_CACHE_REDIS_URL", redis_url)
    monkeypatch.setenv("KCG_CACHE_NAMESPACE", namespace)
    assert kcg_cache.load_active_versions(conn)
    assert api.default_cache() is api.default_cache()
    other = SharedCache(redis_url, settings=Settings(namespace=namespace))
    assert other.read(None).source == "redis"
    other.close()


def test_configure_takes_settings_or_single_ones_and_keeps_the_old_cache_when_they_are_wrong(redis_url: str) -> None:
    """Not both."""
    cache = kcg_cache.configure(redis_url, ttl=60)
    assert cache.settings.ttl == 60
    with pytest.raises(kcg_cache.ConfigurationError, match="not both"):
        kcg_cache.configure(redis_url, settings=Settings(), ttl=60)
    with pytest.raises(kcg_cache.SettingsError):
        kcg_cache.configure(redis_url, ttl=-1)
    assert api.default_cache() is cache


def test_a_second_dataset_needs_only_to_be_declared(conn: Connection, redis_url: str, namespace: str) -> None:
    """The correlation models' parameters: another table, the same need, no change to the library."""
    correlation = Dataset("correlation_models", lambda c: postgres.fetch(c, queries.load("correlation_models")))
    cache = SharedCache(redis_url, correlation, Settings(namespace=namespace))
    rows = cache.read(conn).rows
    assert rows
    assert SharedCache(redis_url, correlation, Settings(namespace=namespace)).read(None).rows == rows
    cache.invalidate()
    assert cache.read(conn).source == "database"
    cache.close()


# --- params ---------------------------------------------------------------------------------------------------------

json_text = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
json_numbers = (
    st.integers()
    | st.integers(min_value=-(10**400), max_value=10**400)
    | st.floats(allow_nan=False, allow_infinity=False)
)
json_values = st.recursive(
    st.none() | st.booleans() | json_numbers | json_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(json_text, inner, max_size=4),
    max_leaves=15,
)


def insert(conn: Connection, params: list[str | None]) -> None:
    """Make ACTIVE versions with these params (JSON text), in order."""
    with conn, conn.cursor() as cursor:
        cursor.execute("DELETE FROM kcg.detection_model_versions")
        cursor.execute(
            "INSERT INTO kcg.detection_models (model_id, display_name) VALUES ('m', 'm') ON CONFLICT DO NOTHING"
        )
        for number, text in enumerate(params):
            cursor.execute(
                "INSERT INTO kcg.detection_model_versions (model_id, version, role, status, params)"
                " VALUES ('m', %s, 'SHADOW', 'ACTIVE', %s::jsonb)",
                (str(number), text),
            )


def plainly(conn: Connection) -> list[Any]:
    """Give what psycopg2 and the standard library's json read, each row by itself, and {} where that is none of ours.

    That is no object, or is deeper than a row may be: json itself goes deeper from Python 3.13 on.
    """
    expected = []
    texts = postgres.fetch(conn, "SELECT params::text AS params FROM kcg.detection_model_versions ORDER BY id")
    conn.rollback()
    for row in texts:
        try:
            value = json.loads(row["params"]) if row["params"] is not None else {}
        except (ValueError, RecursionError):
            value = {}
        expected.append(value if isinstance(value, dict) and levels(value) <= codec.MAX_DEPTH else {})
    return expected


def levels(value: Any) -> int:
    """Count how deep objects and lists are nested, without recursion."""
    count, level = 0, [value]
    while level := [one for one in level if isinstance(one, (dict, list))]:
        count += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return count


def check_cold_warm_plain(conn: Connection) -> None:
    redis = testing.fake_redis()
    first, second = (SharedCache(redis, ACTIVE_VERSIONS, Settings()) for _ in range(2))
    cold, warm = first.read(conn), second.read(None)
    assert (cold.source, warm.source) == ("database", "redis")
    expected = plainly(conn)
    assert repr([row["params"] for row in cold.rows]) == repr(expected)
    assert repr(warm.rows) == repr(cold.rows)
    assert repr(copy.deepcopy(list(warm.rows))) == repr(list(cold.rows))
    redis.close()


@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(json_text, json_values, max_size=3) | json_values, min_size=1, max_size=4))
@example([{"n": 10**23, "m": -(10**23), "f": -0.0, "t": 5e-324}, [1], None, "text", 5, True])
@example([{"한국어": "가나다", "emoji": "🚢", "\u2028": "\\"}])
def test_cold_warm_and_plain_rows_are_the_same_for_every_jsonb_value(pg: Connection, values: list[Any]) -> None:
    """Numbers keep type and sign, text its characters, objects their order."""
    insert(pg, [json.dumps(value) for value in values])
    check_cold_warm_plain(pg)
    rows = kcg_cache.SharedCache(testing.fake_redis(), ACTIVE_VERSIONS, Settings()).read(pg).rows
    assert repr(pickle.loads(pickle.dumps(rows))) == repr(rows)  # noqa: S301 - our own


@pytest.mark.parametrize(
    "params",
    [
        ['{"n": 1e400}'],
        ['{"n": 1e5000}', '{"ok": 1}'],
        ['{"n": 12345678901234567890123, "x": 1.10, "y": -0.0, "z": 0.1e-400}'],
        ['{"deep": ' + "[" * 600 + "]" * 600 + "}"],
        ['{"deep": ' + "[" * 4000 + "]" * 4000 + "}", '{"ok": 1}'],
        # The last that is shared and the first that is not: the row around them is a level, too.
        ['{"deep": ' + "[" * 949 + "]" * 949 + "}", '{"ok": 1}'],
        [None, "null", "[]", '"text"', "5", "{}"],
        ["{" + ",".join(f'"k{i}": "{"v" * 100}"' for i in range(20_000)) + "}"],
    ],
)
def test_extreme_values_are_the_same_too_and_cost_no_other_row(pg: Connection, params: list[str | None]) -> None:
    """Where psycopg2 and json give a value; {} where Python cannot hold it."""
    insert(pg, params)
    check_cold_warm_plain(pg)


@pytest.mark.parametrize(
    "number",
    [
        *(str(sign * (10**digits + 1)) for digits in (17, 18, 19, 20) for sign in (1, -1)),
        *(str(2**bits + more) for bits in (53, 63, 64) for more in (-1, 0, 1)),
        *("1e99", "1E+99", "1e100", "1E+308", "1e-400", "-0", "-0.0", "0.12345678901234567890", "1e0000"),
    ],
)
def test_a_number_is_read_as_the_standard_library_reads_it(number: str) -> None:
    """Whichever parser is quick enough for the rest of the text: an integer stays one, of any width."""
    text = f'{{"n": {number}, "e": "face000", "가": [{number}]}}'
    assert repr(json_object(text)) == repr(json.loads(text))


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("given_params", "read"),
    [
        ('{"a": 1}', {"a": 1}),
        (b'{"a": "\xea\xb0\x80"}', {"a": "가"}),
        (bytearray(b'{"a": 1}'), {"a": 1}),
        (memoryview(b'{"a": 1}'), {"a": 1}),
        ({"a": (1, 2), "inf": math.inf}, {"a": [1, 2], "inf": math.inf}),
        (None, {}),
        ("", None),
        ("{", None),
        (b"\xff", None),
        ("[1]", None),
        ("NaN", None),
        ('{"a": NaN}', None),
        ('{"a": 1e5000}', None),
        ('{"a": -1' + "0" * 400 + ".5}", None),
        ('{"a": 1' + "0" * 5000 + "}", None),
        ("[" * 5000, None),
        ([1], None),
        (5, None),
        ({"a": object()}, None),
        # orjson would write these by itself, as text that nobody would get back as what it was.
        ({"a": datetime(2026, 1, 1, tzinfo=UTC)}, None),
        ({"a": [uuid.UUID(int=1)]}, None),
        ({"a": Colour.RED}, None),
        ({"a": Decimal("1.5")}, None),
        ({1: 2}, None),
        ({"a": 10**5000}, None),
    ],
)
def test_params_of_a_custom_loader_may_be_text_bytes_or_a_dict(
    given_params: Any, read: dict[str, Any] | None, caplog: pytest.LogCaptureFixture
) -> None:
    """What is no JSON object, or what Python cannot hold, becomes {} with a warning that names the row."""
    rows = [
        {"id": 7, "model_id": "m", "version": "1", "role": "PRIMARY", "params": given_params},
        {"id": 8, "model_id": "m", "version": "2", "role": "SHADOW", "params": '{"ok": true}'},
    ]
    custom = Dataset(
        "custom",
        lambda _conn: rows,
        decode_row=ACTIVE_VERSIONS.decode_row,
        row_type=ACTIVE_VERSIONS.row_type,
        transactional=False,
    )
    redis = testing.fake_redis()
    cache, other = SharedCache(redis, custom, Settings()), SharedCache(redis, custom, Settings())
    with caplog.at_level(logging.WARNING, "kcg_cache"):
        cold = cache.read(None).rows
    assert cold[0]["params"] == ({} if read is None else read)
    assert cold[1]["params"] == {"ok": True}
    assert other.read(None).rows == cold
    assert cache.metrics["bad_params"] == (1 if read is None else 0)
    assert [("id=7" in record.getMessage()) for record in caplog.records] == ([True] if read is None else [])


@pytest.mark.parametrize("levels", range(946, 954))
def test_params_that_are_one_level_too_deep_cost_no_other_row(levels: int) -> None:
    """The row around them is a level, too: what json_object takes, the entry holds."""
    text = '{"deep": ' + "[" * levels + "]" * levels + "}"
    reports: list[str] = []
    rows = [version_row({"id": 7, "params": params}, reports.append) for params in (text, json.loads(text), "{}")]
    payload = codec.encode("d", rows)
    assert len(codec.decode(payload.data, payload.format, payload.digest, max_payload=payload.size)) == 3
    assert len(reports) == (0 if levels <= 949 else 2)


def test_reading_params_does_not_depend_on_the_callers_stack() -> None:
    """A scheduler's calls are nested deeper than a script's."""
    text = '{"deep": ' + "[" * 150 + "]" * 150 + "}"

    def nested(frames: int) -> dict[str, Any]:
        return json_object(text) if frames == 0 else nested(frames - 1)

    assert nested(860) == json_object(text)
    with pytest.raises(DatasetError, match="no JSON that Python can hold"):
        json_object("{")
