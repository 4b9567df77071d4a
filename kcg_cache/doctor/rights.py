"""Whether this user of Redis has what each role's work needs (`kcg_cache.rights`). Pure."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from kcg_cache.doctor.findings import ERROR, NOTE, OK, WARNING, Finding, Severity, unchecked
from kcg_cache.keys import Keys
from kcg_cache.rights import Command, commands_of, named, presence_of

#: The finding of each role.
CODES = {"worker": "KCG-A01", "operator": "KCG-A02", "viewer": "KCG-A03", "watcher": "KCG-A05"}


def examine(told: Mapping[Command, bool | None], keys: Keys, wanted: Collection[str]) -> Iterator[Finding]:
    """Look at each role's rights; those of a role that is not `wanted` of this user are only told."""
    for role, code in CODES.items():
        yield _judged(code, role, commands_of(role, keys), told, keys, ERROR if role in wanted else NOTE)
    yield _judged("KCG-A04", "worker", presence_of(keys), told, keys, WARNING if "worker" in wanted else NOTE)


def _judged(
    code: str,
    role: str,
    commands: Sequence[Command],
    told: Mapping[Command, bool | None],
    keys: Keys,
    severity: Severity,
) -> Finding:
    lacking = [command for command in commands if told.get(command) is False]
    unknown = [command for command in commands if told.get(command) is None]
    if lacking:
        names = ", ".join(dict.fromkeys(named(command, keys) for command in lacking))
        more = ", and what else is not told" if unknown else ""
        words = " ".join(dict.fromkeys(f"+{command[0].lower()}" for command in lacking))
        if severity is NOTE:
            return Finding(code, NOTE, f"this user may not (and need not, by --for): {names}{more}")
        mend = (
            f"ACL SETUSER … {words} ~{_pattern(keys)} (`kcg-cache acl {role}` prints all that it needs), then ACL SAVE "
            "or your users file"
        )
        return Finding(code, severity, f"this user may not: {names}{more}", mend)
    if unknown:
        return unchecked(code, f"this server does not tell of {', '.join(named(each, keys) for each in unknown)}")
    return Finding(code, OK, f"this user has all {len(commands)} of them")


def _pattern(keys: Keys) -> str:
    """Give the pattern of all keys of the dataset, as an ACL has it."""
    return keys.entry.rpartition(":")[0] + ":*"
