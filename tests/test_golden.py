"""Entries as released versions wrote them, byte for byte: every later version reads them, for ever.

A fleet rolls from version to version on one Redis, so a version reads whatever the one before it wrote
(docs/upgrading.md). The files in `tests/golden` are never made anew: a new format gets a new file.
"""

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest

from kcg_cache import codec
from kcg_cache.errors import EntryError
from kcg_cache.rows import thawed
from kcg_cache.settings import Settings
from tests.conftest import Backend

pytestmark = pytest.mark.once

GOLDEN = Path(__file__).parent / "golden"
FILES = {path.name: json.loads(path.read_text()) for path in sorted(GOLDEN.glob("entries-*.json"))}
ENTRIES = [
    pytest.param(document, entry, id=f"{name}-{entry['name']}")
    for name, document in FILES.items()
    for entry in document["entries"]
]


def test_every_format_has_its_entry() -> None:
    """Of those that this version knows none is untested."""
    assert {entry["fields"]["format"] for document in FILES.values() for entry in document["entries"]} == set(
        codec.FORMATS
    )


@pytest.mark.parametrize(("document", "entry"), ENTRIES)
def test_a_golden_entry_is_believed_and_says_what_it_said(document: dict[str, Any], entry: dict[str, Any]) -> None:
    """Its digest, its signature and its rows; a change of any byte is noticed."""
    fields, key, payload = entry["fields"], document["key"].encode(), base64.b64decode(entry["payload"])
    claim = codec.Claim(document["namespace"], document["dataset"], *(fields[name] for name in codec.Claim._fields[2:]))
    codec.check_signature([b"another-key-another-key", key], fields["signature"], claim)
    rows = codec.decode(payload, fields["format"], fields["digest"], max_payload=Settings().max_payload)
    assert [thawed(row) for row in rows] == entry["rows"]
    broken = payload[:-2] + bytes([payload[-2] ^ 1]) + payload[-1:]
    with pytest.raises(EntryError):
        codec.decode(broken, fields["format"], fields["digest"], max_payload=Settings().max_payload)


@pytest.mark.parametrize(("document", "entry"), ENTRIES)
def test_a_golden_entry_is_read_from_redis(backend: Backend, document: dict[str, Any], entry: dict[str, Any]) -> None:
    """Under the server's own incarnation, fresh, and signed anew for it."""
    cache = backend.worker(signing_keys=(document["key"].encode(),))
    now = {"incarnation": cache.inspect().incarnation, "loaded_at": f"{time.time() * 1e6:.0f}"}
    fields = {**entry["fields"], **now}
    claim = codec.Claim(
        backend.settings.namespace, document["dataset"], *(fields[name] for name in codec.Claim._fields[2:])
    )
    fields["signature"] = codec.sign([document["key"].encode()], claim)
    backend.client.hset(backend.keys.entry, mapping={**fields, "payload": base64.b64decode(entry["payload"])})
    snapshot = cache.read(None)
    assert (snapshot.source, backend.source.loads) == ("redis", 0)
    assert [thawed(row) for row in snapshot.rows] == entry["rows"]


@pytest.mark.parametrize(("document", "entry"), ENTRIES)
def test_what_this_version_writes_of_the_same_rows_is_the_same(document: dict[str, Any], entry: dict[str, Any]) -> None:
    """The digest is of the unpacked payload: while two versions fill in turn, nobody's rows are sent again."""
    payload = codec.encode(document["dataset"], entry["rows"])
    assert (payload.digest, payload.format) == (entry["fields"]["digest"], entry["fields"]["format"])
