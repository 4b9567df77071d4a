"""What an operator changes: a version is promoted or archived, a model enabled or disabled. In one transaction.

`carry_out` changes the rows within the transaction of the connection that it is given, and tells what workers would
read before and after; whoever calls it commits (and then invalidates), or rolls back (a dry run).
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from kcg_cache import postgres
from kcg_cache.datasets import ACTIVE_VERSIONS, Report
from kcg_cache.differences import Change, difference
from kcg_cache.errors import ChangeRefused

Role = Literal["PRIMARY", "CHALLENGER", "SHADOW"]
ROLES: Final = ("PRIMARY", "CHALLENGER", "SHADOW")
#: Seconds that one change waits for another of the same model.
LOCK_SECONDS = 5

_BEGIN = f"SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"
#: The model is locked first, so that two changes of it come one after the other, and none disables it meanwhile.
_MODEL = "SELECT is_enabled FROM kcg.detection_models WHERE model_id = %s FOR UPDATE"
#: So are its versions, which psql may change without a look at the model.
_VERSIONS = """
    SELECT id, version, role, status FROM kcg.detection_model_versions WHERE model_id = %s ORDER BY id FOR UPDATE
"""
_MODEL_NAMES = "SELECT model_id FROM kcg.detection_models ORDER BY model_id"
#: All of them, so that no edge and no other model comes or goes between the look and the commit.
_MODELS = "SELECT model_id, is_enabled FROM kcg.detection_models ORDER BY model_id FOR UPDATE"
_EDGES = "SELECT DISTINCT model_id, depends_on FROM kcg.detection_model_dependencies ORDER BY 1, 2"
_SET_VERSION = "UPDATE kcg.detection_model_versions SET role = %s, status = %s, updated_at = now() WHERE id = %s"
_SET_MODEL = "UPDATE kcg.detection_models SET is_enabled = %s WHERE model_id = %s"
#: SQLSTATEs of those who came too late.
_OVERTAKEN = {
    "55P03": f"another change of the same rows is under way (its lock was waited for {LOCK_SECONDS} s)",
    "23505": "another change made a version PRIMARY in the meantime",
    "40P01": "another change of the same rows is under way (a deadlock)",
    "40001": "another change of the same rows was committed in the meantime",
}
#: SQLSTATEs that an operator can do something about, and what.
_HINTS = {
    "25006": "(a standby, or a session that only reads: connect to the primary; nothing was changed)",
    "42501": "(this needs SELECT on the three tables, and UPDATE on kcg.detection_models and "
    "kcg.detection_model_versions; nothing was changed)",
    "42P01": "(another database, or one without the tables: `kcg-cache sql schema` has them; nothing was changed)",
}


@dataclass(frozen=True, slots=True)
class Promote:
    """Make a version ACTIVE in a role. The PRIMARY before it is archived, or kept in the role `demote_to`."""

    model: str
    version: str
    role: Role
    demote_to: Role | None = None
    force: bool = False

    def __str__(self) -> str:
        return f"promote {self.model} {self.version} to {self.role}"


@dataclass(frozen=True, slots=True)
class Archive:
    """Make a version ARCHIVED."""

    model: str
    version: str
    force: bool = False

    def __str__(self) -> str:
        return f"archive {self.model} {self.version}"


@dataclass(frozen=True, slots=True)
class Switch:
    """Enable or disable a model with all its versions."""

    model: str
    on: bool
    force: bool = False

    def __str__(self) -> str:
        return f"{'enable' if self.on else 'disable'} {self.model}"


Wish = Promote | Archive | Switch


class Done(NamedTuple):
    """What was changed, in a transaction that is still open."""

    #: Row by row; empty when there was nothing to do.
    steps: tuple[str, ...]
    #: What the operator should know.
    warnings: tuple[str, ...]
    #: What workers read before and after.
    changes: tuple[Change, ...]


class _Version(NamedTuple):
    id: int
    version: str
    role: str
    status: str

    @property
    def is_primary(self) -> bool:
        return self.status == "ACTIVE" and self.role == "PRIMARY"


def carry_out(conn: Any, wish: Wish) -> Done:
    """Change the rows in `conn`'s transaction, which has to be a new one; it is neither committed nor rolled back.

    Raises `ChangeRefused` for what the rows do not allow, with what to do instead, and for a change that came too late
    for another; else what the connection raises. After an error the caller rolls back.
    """
    try:
        postgres.execute(conn, _BEGIN)
        work = _Work(conn, wish.force)
        # Locked first: what is looked at from here on stays as it is until the end of the transaction.
        match wish:
            case Promote():
                change = work.promotion(wish)
            case Archive():
                change = work.archiving(wish)
            case Switch():
                change = work.switching(wish)
        before = _read(conn, wish.model)
        for statement, values in change:
            if postgres.execute(conn, statement, *values) != 1:
                raise ChangeRefused(f"{wish}: the row is gone; look again")
        after = _read(conn, wish.model, work.warnings.append)
        return Done(tuple(work.steps), tuple(work.warnings), difference(before, after))
    except postgres.ERRORS as error:
        code = getattr(error, "pgcode", None) or ""
        overtaken = _OVERTAKEN.get(code)
        if overtaken is None:
            if code in _HINTS:
                error.add_note(_HINTS[code])
            raise
        raise ChangeRefused(f"{wish}: {overtaken}; nothing was changed: look again, and repeat it") from error


def is_so(conn: Any, wish: Wish, done: Done) -> bool:
    """Tell whether workers read now what they were to read after the change."""
    touched = {row["id"] for change in done.changes for row in (change.before, change.after) if row is not None}
    meant = [change.after for change in done.changes if change.after is not None]
    return not difference(meant, [row for row in _read(conn, wish.model) if row["id"] in touched])


def _read(conn: Any, model: str, report: Report = lambda _mended: None) -> list[Any]:
    """Give a model's rows as workers read them. Those of others may be changed by others at the same time."""
    loaded = [row for row in ACTIVE_VERSIONS.loaded(conn) if row["model_id"] == model]
    return list(ACTIVE_VERSIONS.decoded(loaded, report))


_Statements = list[tuple[str, Sequence[Any]]]


class _Work:
    """The checks that come before a change, and the statements that make it."""

    def __init__(self, conn: Any, force: bool) -> None:  # noqa: FBT001 - of this file only
        self._conn = conn
        self._force = force
        self.steps: list[str] = []
        self.warnings: list[str] = []

    def promotion(self, wish: Promote) -> _Statements:
        enabled = self._locked(wish.model)
        versions = self._versions(wish.model)
        chosen = self._chosen(wish.model, wish.version, versions)
        if not enabled:
            self.warnings.append(f"{wish.model} is disabled: workers read none of its versions until it is enabled")
        if chosen.status == "ACTIVE" and chosen.role == wish.role:
            return []
        if chosen.status == "ARCHIVED":
            self._unless_forced(f"{wish.model} {wish.version} is archived", "--force brings it back")
        if chosen.is_primary:
            self._unless_forced(
                f"{wish.model} {wish.version} is the PRIMARY, and without it the model has none",
                "promote another version to PRIMARY, with --demote-to to keep this one",
            )
        change: _Statements = []
        if wish.role == "PRIMARY":
            primaries = [present for present in versions if present.is_primary]
            if wish.demote_to and not primaries:
                self.warnings.append(f"{wish.model} has no PRIMARY: none becomes {wish.demote_to}")
            for present in primaries:
                # Before the other: the index allows one ACTIVE PRIMARY at every moment.
                change.append(self._became(present, wish.demote_to or present.role, wish.demote_to is not None))
        change.append(self._became(chosen, wish.role, True))
        return change

    def archiving(self, wish: Archive) -> _Statements:
        self._locked(wish.model)
        versions = self._versions(wish.model)
        chosen = self._chosen(wish.model, wish.version, versions)
        if chosen.status == "ARCHIVED":
            raise ChangeRefused(f"{wish.model} {wish.version} is archived already: there is nothing to change")
        if chosen.is_primary:
            self._unless_forced(
                f"{wish.model} {wish.version} is the PRIMARY, and without it the model has none",
                "promote another version to PRIMARY, which archives this one",
            )
        return [self._became(chosen, chosen.role, False)]

    def switching(self, wish: Switch) -> _Statements:
        models = {row["model_id"]: row["is_enabled"] for row in postgres.fetch(self._conn, _MODELS)}
        if wish.model not in models:
            raise ChangeRefused(_unknown("model", wish.model, models))
        if models[wish.model] is wish.on:
            return []
        edges = [(row["model_id"], row["depends_on"]) for row in postgres.fetch(self._conn, _EDGES)]
        if wish.on:
            missing = [needs for model, needs in edges if model == wish.model and not models[needs]]
            if missing:
                self.warnings.append(f"{wish.model} takes input of {', '.join(missing)}, disabled")
        else:
            dependents = [model for model, needs in edges if needs == wish.model and models[model]]
            if dependents:
                self._unless_forced(
                    f"enabled models take input of {wish.model} ({', '.join(dependents)})",
                    "disable those that need it first",
                )
        self.steps.append(f"{wish.model}: {'disabled → enabled' if wish.on else 'enabled → disabled'}")
        return [(_SET_MODEL, (wish.on, wish.model))]

    def _became(self, version: _Version, role: str, active: bool) -> tuple[str, Sequence[Any]]:  # noqa: FBT001 - as above
        status = "ACTIVE" if active else "ARCHIVED"
        self.steps.append(f"{version.version}: {version.status} {version.role} → {status} {role}")
        return _SET_VERSION, (role, status, version.id)

    def _versions(self, model: str) -> list[_Version]:
        return [_Version(**row) for row in postgres.fetch(self._conn, _VERSIONS, model)]

    def _locked(self, model: str) -> bool:
        """Lock the model, and tell whether it is enabled."""
        for row in postgres.fetch(self._conn, _MODEL, model):
            return bool(row["is_enabled"])
        names = [row["model_id"] for row in postgres.fetch(self._conn, _MODEL_NAMES)]
        raise ChangeRefused(_unknown("model", model, names))

    def _chosen(self, model: str, version: str, versions: Sequence[_Version]) -> _Version:
        for one in versions:
            if one.version == version:
                return one
        raise ChangeRefused(_unknown("version", version, [one.version for one in versions], f" of {model}"))

    def _unless_forced(self, why: str, instead: str) -> None:
        """Refuse, or warn where it was told to go on."""
        if not self._force:
            hint = instead if "--force" in instead else f"{instead}, or give --force"
            raise ChangeRefused(f"{why}: {hint}")
        self.warnings.append(why)


def _unknown(kind: str, name: str, known: Iterable[str], of: str = "") -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3) or names[-5:]
    return f"there is no {kind} {name!r}{of}; {'there are' if near else 'there is none'}" + (
        f", among others, {', '.join(near)}" if near else ""
    )
