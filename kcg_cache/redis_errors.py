"""The errors of redis-py, mapped at this one edge: what each means here, and what the server says in its text."""

import re

import redis
from redis.sentinel import MasterNotFoundError

from kcg_cache.errors import StoreError, StoreNotReady, StoreRefused, StoreReplyError, StoreUnreachable

_Mapped = tuple[type[StoreError], str]
_R = redis.exceptions

#: Every exception of redis-py, and what it is here. A test fails when redis-py grows one that is not listed.
MAPPED: dict[type[Exception], _Mapped] = {
    _R.TimeoutError: (StoreUnreachable, "timeout"),
    _R.ConnectionError: (StoreUnreachable, "connection"),
    _R.MaxConnectionsError: (StoreUnreachable, "pool"),
    _R.ChildDeadlockedError: (StoreUnreachable, "pool"),
    _R.BusyLoadingError: (StoreNotReady, "loading"),
    _R.ReadOnlyError: (StoreNotReady, "readonly"),
    _R.MasterDownError: (StoreNotReady, "readonly"),
    _R.ClusterError: (StoreNotReady, "cluster"),
    _R.ClusterDownError: (StoreNotReady, "cluster"),
    _R.RedisClusterException: (StoreNotReady, "cluster"),
    _R.SlotNotCoveredError: (StoreNotReady, "cluster"),
    _R.AskError: (StoreNotReady, "cluster"),
    _R.MovedError: (StoreNotReady, "cluster"),
    _R.TryAgainError: (StoreNotReady, "cluster"),
    _R.AuthenticationError: (StoreRefused, "denied"),
    _R.AuthorizationError: (StoreRefused, "denied"),
    _R.AuthenticationWrongNumberOfArgsError: (StoreRefused, "denied"),
    _R.NoPermissionError: (StoreRefused, "denied"),
    _R.OutOfMemoryError: (StoreRefused, "memory"),
    _R.RedisError: (StoreReplyError, "reply"),
    _R.ResponseError: (StoreReplyError, "reply"),
    _R.InvalidResponse: (StoreReplyError, "reply"),
    _R.DataError: (StoreReplyError, "reply"),
    _R.NoScriptError: (StoreReplyError, "reply"),
    _R.ExecAbortError: (StoreReplyError, "reply"),
    _R.ModuleError: (StoreReplyError, "reply"),
    _R.ClusterCrossSlotError: (StoreReplyError, "reply"),
    _R.CrossSlotTransactionError: (StoreReplyError, "reply"),
    _R.InvalidPipelineStack: (StoreReplyError, "reply"),
    _R.PubSubError: (StoreReplyError, "reply"),
    _R.WatchError: (StoreReplyError, "reply"),
    _R.LockError: (StoreReplyError, "reply"),
    _R.LockNotOwnedError: (StoreReplyError, "reply"),
}

#: By redis-py's release: names that older supported ones do not have.
for _name, _mapped in {
    "ExternalAuthProviderError": (StoreRefused, "denied"),
    "NoSuchFieldsetError": (StoreReplyError, "reply"),
    "IncorrectPolicyType": (StoreReplyError, "reply"),
}.items():
    if hasattr(_R, _name):
        MAPPED[getattr(_R, _name)] = _mapped

#: What the server says within an error's text, most telling first. Inside a script's error redis-py sees only "ERR" or
#: "ResponseError", and older servers put the code in the middle of the sentence.
_CODES: tuple[tuple[str, _Mapped], ...] = (
    ("KCGINCARNATION", (StoreRefused, "incarnation")),
    ("NOREPLICAS", (StoreNotReady, "replicas")),
    ("READONLY", (StoreNotReady, "readonly")),
    ("MISCONF", (StoreNotReady, "readonly")),
    ("MASTERDOWN", (StoreNotReady, "readonly")),
    ("LOADING", (StoreNotReady, "loading")),
    ("BUSY", (StoreNotReady, "loading")),
    ("CLUSTERDOWN", (StoreNotReady, "cluster")),
    ("TRYAGAIN", (StoreNotReady, "cluster")),
    ("NOPERM", (StoreRefused, "denied")),
    # What NOPERM is called within a script, from Redis 7.2 on and before.
    ("ACL failure", (StoreRefused, "denied")),
    ("The user executing the script", (StoreRefused, "denied")),
    ("No connection available", (StoreUnreachable, "pool")),  # a blocking pool's words
    ("NOAUTH", (StoreRefused, "denied")),
    ("WRONGPASS", (StoreRefused, "denied")),
    ("OOM", (StoreRefused, "memory")),
    # OpenSSL's words, of either side; a connection that ends without a word is none of them.
    ("CERTIFICATE_VERIFY_FAILED", (StoreRefused, "certificate")),
    ("CERTIFICATE_REQUIRED", (StoreRefused, "certificate")),
    ("CERTIFICATE_UNKNOWN", (StoreRefused, "certificate")),
    ("CERTIFICATE_EXPIRED", (StoreRefused, "certificate")),
    ("BAD_CERTIFICATE", (StoreRefused, "certificate")),
    ("UNKNOWN_CA", (StoreRefused, "certificate")),
    ("WRONG_VERSION_NUMBER", (StoreRefused, "certificate")),
)
# A text that is compiled when an error is seen first: compiling takes longer than importing all else here.
_CODE = r"(?<![A-Za-z])(" + "|".join(code for code, _ in _CODES) + r")(?![A-Za-z])"
_BY_CODE = dict(_CODES)

#: What a call of the driver raises.
DRIVER_ERRORS: tuple[type[Exception], ...] = (
    *(error for error in MAPPED if error.__mro__[1] in (Exception, ValueError)),
    OSError,
    UnicodeError,  # a host name that is none
)

_ADVICE = {
    "timeout": "no answer in time",
    "connection": "not reachable",
    "pool": "no free connection in the client's pool",
    "denied": "the user's password or rights do not suffice",
    "certificate": "TLS is not agreed on: see redis_ca for the server's certificate, redis_cert for this client's, and "
    "whether the port speaks TLS",
    "memory": "over maxmemory, and nothing may be evicted: raise maxmemory or set an eviction policy",
    "incarnation": "it does not tell which server it is: the user may not run INFO, or it is older than Redis 7.0",
    "replicas": "too few replicas are connected (min-replicas-to-write)",
    "readonly": "it does not accept writes: a replica, a failover under way, or a failed disk",
    "loading": "it is busy loading or running a script",
    "cluster": "the cluster does not serve the key now",
    "reply": "an answer that was not expected",
    # Not symptoms, but what is behind one of them.
    "sentinel": "a Sentinel refuses the password: it is the URL's sentinel_username and sentinel_password",
    "sentinels": "no Sentinel that answers names the master",
    "service": "no Sentinel has a master of that name that is up: SENTINEL MASTERS lists those there are",
}


def _no_master(error: Exception) -> StoreError:
    """Say why the Sentinels name no master. redis-py's own text holds all that their clients were made with."""
    what, _, of_each = str(error).partition(" : ")
    errors = ", ".join(dict.fromkeys(re.findall(r"- (?:\w+:)?(\w+Error)\b", of_each)))
    error.args = (f"{what}{errors and f' ({errors})'}",)
    if "AuthenticationError" in errors:
        return StoreRefused(f"Redis: {_ADVICE['sentinel']} ({error})", symptom="denied")
    why = _ADVICE["sentinels" if errors else "service"]
    return StoreUnreachable(f"Redis: {why} ({error})", symptom="connection")


#: A cluster client that could not ask who holds what tells of that, and keeps the reason behind it.
_TOPOLOGY = (_R.RedisClusterException,)


#: What is said where the server says that this user may not run a command, or not on a key.
RIGHTS_HINT = "; `kcg-cache acl` prints what each role's user needs"
#: What is said where the server does not know a command.
_AGE_HINT = "; a Redis older than 7.0 lacks commands that are needed: `kcg-cache doctor` says whether it is one"
_OF_RIGHTS = "permissions|The user executing the script"


def mapped(error: BaseException) -> StoreError:
    """Give the driver's error as ours; where its cluster client could ask no node, the reason for that."""
    while type(error) in _TOPOLOGY and isinstance(error.__cause__ or error.__context__, DRIVER_ERRORS):
        error = error.__cause__ or error.__context__ or error
    if isinstance(error, MasterNotFoundError):
        return _no_master(error)
    kind, symptom = next(
        (MAPPED[cls] for cls in type(error).__mro__ if cls in MAPPED), (StoreUnreachable, "connection")
    )
    if symptom in ("reply", "connection"):
        code = re.search(_CODE, str(error))
        if code is not None:
            kind, symptom = _BY_CODE[code[1]]
    hint = RIGHTS_HINT if symptom == "denied" and re.search(_OF_RIGHTS, str(error)) else ""
    if symptom == "reply" and "unknown command" in str(error):
        hint = _AGE_HINT
    return kind(f"Redis: {_ADVICE[symptom]} ({type(error).__name__}: {error}){hint}", symptom=symptom)
