"""What a row is: a shared, immutable dict that equals a plain one.

One decoded copy of the rows serves every reader of a process, so nobody may change it. `FrozenDict` and `FrozenList`
are real dicts and lists (``json``, ``orjson``, ``==``, ``isinstance`` treat them as such) whose mutators raise
`TypeError` with the remedy. They ``pickle`` into plain dicts and lists, so that rows cross process pools, and
``copy.deepcopy`` gives a private, mutable, plain copy.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Self, TypedDict

_REMEDY = (
    "rows of kcg_cache are shared by every reader of this process and cannot be changed: "
    "work on copy.deepcopy(row), or set copy_rows=True (KCG_CACHE_COPY_ROWS=1) to be given private copies"
)


def _refuse(_self: object, *_args: object, **_kwargs: object) -> NoReturn:
    raise TypeError(_REMEDY)


class FrozenDict(dict[str, Any]):
    """A dict that can be built and read, and never changed."""

    __slots__ = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Take what ``dict`` takes."""
        new = super().__new__(cls)
        dict.update(new, *args, **kwargs)
        return new

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        # All is done in __new__, so that calling __init__ again on a row changes nothing.
        super().__init__()

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce_ex__(self, _protocol: object) -> tuple[Any, ...]:
        return dict, (thawed(self),)

    def __copy__(self) -> dict[str, Any]:
        return dict(self)

    def __deepcopy__(self, _memo: object) -> dict[str, Any]:
        return dict(thawed(self))


class FrozenList(list[Any]):
    """A list that can be built and read, and never changed."""

    __slots__ = ()

    def __new__(cls, *args: Any) -> Self:
        """Take what ``list`` takes."""
        new = super().__new__(cls)
        list.extend(new, *args)
        return new

    def __init__(self, *_args: Any) -> None:
        # list.__init__() without arguments would empty a filled list, and the one of the base class is not called:
        # all is done in __new__, so that calling __init__ again on a row changes nothing.
        pass

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = extend = insert = pop = remove = clear = sort = reverse = _refuse

    def __reduce_ex__(self, _protocol: object) -> tuple[Any, ...]:
        return list, (thawed(self),)

    def __copy__(self) -> list[Any]:
        return list(self)

    def __deepcopy__(self, _memo: object) -> list[Any]:
        return list(thawed(self))


if TYPE_CHECKING:

    class VersionRow(TypedDict):
        """One ACTIVE version of an enabled model, as `kcg_cache.load_active_versions` returns it."""

        id: int
        model_id: str
        version: str
        role: str
        params: dict[str, Any]

else:

    class VersionRow(FrozenDict):
        """One ACTIVE version of an enabled model: ``id``, ``model_id``, ``version``, ``role``, ``params``."""

        __slots__ = ()


class Dependency(NamedTuple):
    """One edge between models: `model_id` needs the output of `depends_on`, and calls it `input_key`."""

    model_id: str
    depends_on: str
    input_key: str


def freeze(rows: list[Any], row_type: type[Mapping[str, Any]]) -> tuple[Any, ...]:
    """Give plain decoded rows as one tuple of immutable ones, each a `row_type` (a `FrozenDict`); `rows` is emptied.

    Each plain row is let go as soon as its copy is made. With all of both at once, Python's garbage collector walked
    two trees of containers again and again, and took longer than all the rest.
    """
    rows.reverse()
    frozen = []
    while rows:
        frozen.append(frozen_row(rows.pop(), row_type))
    return tuple(frozen)


def frozen_row(row: dict[str, Any], row_type: type[Mapping[str, Any]]) -> Any:
    """Give one plain row as an immutable `row_type`.

    Containers are filled from the outside in over a stack of our own: how deeply the caller's own calls are nested
    must not decide whether a row can be read.
    """
    update, set_key = dict.update, dict.__setitem__
    extend, set_index = list.extend, list.__setitem__
    new_dict, new_list = dict.__new__, list.__new__
    new_row: Any = new_dict(row_type)  # type: ignore[type-var]
    update(new_row, row)
    pending: list[tuple[Any, Any]] = [(new_row, row)]
    while pending:
        target, source = pending.pop()
        in_dict = type(source) is dict
        put: Any = set_key if in_dict else set_index
        child: Any
        for key, value in source.items() if in_dict else enumerate(source):
            kind = type(value)
            if kind is dict:
                child = new_dict(FrozenDict)
                update(child, value)
                pending.append((child, value))
            elif kind is list:
                child = new_list(FrozenList)
                extend(child, value)
                if not _HAS_NONE(map(type, value)):  # most lists are of numbers: their items are not looked at twice
                    pending.append((child, value))
            else:
                continue
            put(target, key, child)
    return new_row


#: Whether none of these types is a container's.
_HAS_NONE = frozenset({dict, list}).isdisjoint


def thawed(value: Any) -> Any:
    """Give a private, mutable, plain copy of an immutable dict or list; deep nesting is no matter."""
    plain = dict(value) if isinstance(value, dict) else list(value)
    pending: list[Any] = [plain]
    while pending:
        target = pending.pop()
        for key, inner in target.items() if type(target) is dict else enumerate(target):
            if isinstance(inner, dict):
                child: Any = dict(inner)
            elif isinstance(inner, list):
                child = list(inner)
            else:
                continue
            # Replacing the value of a key that is there changes no dict's size: the loop may go on.
            target[key] = child
            pending.append(child)
    return plain
