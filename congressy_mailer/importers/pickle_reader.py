"""A pickle → plain values, read without unpickling: nothing that it names is imported, called or made."""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, NamedTuple


class PickleRefused(ValueError):
    """It is damaged, or holds something else than what may be in it."""


class Global(NamedTuple):
    """A class or function, which the pickle names and which is only its name here."""

    module: str
    name: str


@dataclass(eq=False, slots=True)
class Instance:
    """What the pickle would have made of a class, or of a call; here it is what it would have been made of."""

    #: The class or function.
    kind: Global
    #: What that would have been given.
    arguments: tuple[Any, ...]
    #: Attributes that would have been set afterwards.
    state: Any = None


def read_pickle(content: bytes, admitted: Collection[Global]) -> Any:
    """Read a pickle of protocol 2 or later.

    Args:
        content: the pickle. What comes behind its end is not read.
        admitted: classes and functions that it may name.

    Returns:
        Texts, bytes, numbers, ``None``, lists, tuples, dicts with texts as keys, :class:`Global` and :class:`Instance`.
        Their memory is in proportion to the pickle; but one may stand in several places, and contain itself.

    Raises:
        PickleRefused: it is damaged, or names something else.
    """
    reader = _Reader(admitted)
    try:
        for opcode, argument, _ in pickletools.genops(content):
            reader.step(opcode.name, argument)
        return reader.result()
    except PickleRefused:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise PickleRefused("it is damaged") from error


class _Reader:
    """The machine that a pickle is a program for, with those of its operations that build values."""

    def __init__(self, admitted: Collection[Global]) -> None:
        self._admitted = admitted
        self._stack: list[Any] = []
        #: What was on the stack before each mark that is open.
        self._outer: list[list[Any]] = []
        # A dict: the number of an entry says nothing of how many there are.
        self._memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Do one operation.

        Raises:
            PickleRefused: it is none of those that may be there.
            ValueError: it does not fit to what is there; likewise ``IndexError``, ``KeyError`` and ``TypeError``.
        """
        if name in _IGNORED:
            return
        if name in _VALUES:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        elif (operation := _OPERATIONS.get(name)) is not None:
            operation(self, argument)
        else:
            raise PickleRefused(f"it holds {name}, which no mail needs")

    def result(self) -> Any:
        """The only value that is left.

        Raises:
            PickleRefused: there is none, or another one.
        """
        if self._outer or len(self._stack) != 1:
            raise PickleRefused("it is damaged")
        return self._stack[0]

    def _mark(self, _: Any) -> None:
        self._outer.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        values, self._stack = self._stack, self._outer.pop()
        return values

    def _tuple_since_mark(self) -> None:
        values = tuple(self._since_mark())
        self._stack.append(values)

    def _tuple_of(self, count: int) -> None:
        values = [self._stack.pop() for _ in range(count)]
        self._stack.append(tuple(reversed(values)))

    def _append(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Instance):
            raise ValueError("not a list")
        # Of an instance of a list's kind, such as the parts of a parsed header, nobody asks for the items.

    def _set_items(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or len(values) % 2:
            raise ValueError("not a dict, or a key without its value")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, str):
                raise ValueError("a key that is no text")
            target[key] = value

    def _global(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name that is no text")
        named = Global(module, name)
        if named not in self._admitted:
            raise PickleRefused(f"it names {module}.{name}, which is not a part of a mail of Django's own classes")
        self._stack.append(named)

    def _make(self, _: Any) -> None:
        arguments, kind = self._stack.pop(), self._stack.pop()
        if not isinstance(arguments, tuple) or not isinstance(kind, Global):
            raise ValueError("no class, or no arguments")
        self._stack.append(Instance(kind, arguments))

    def _set_state(self, _: Any) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if not isinstance(target, Instance) or target.state is not None:
            raise ValueError("nothing that has a state, or one that has it already")
        target.state = state


# Where the pickle begins, how it is cut, where it ends.
_IGNORED = frozenset({"PROTO", "FRAME", "STOP"})
# Their argument is the value.
_VALUES = frozenset({
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "SHORT_BINBYTES", "BINBYTES", "BINBYTES8",
})  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}


def _stack_global(reader: _Reader, _: Any) -> None:
    name, module = reader._stack.pop(), reader._stack.pop()
    reader._global(module, name)


def _remember(reader: _Reader, number: Any) -> None:
    reader._memo[number] = reader._stack[-1]


_OPERATIONS: dict[str, Callable[[_Reader, Any], None]] = {
    "MARK": _Reader._mark,
    "TUPLE": lambda reader, _: reader._tuple_since_mark(),
    "TUPLE1": lambda reader, _: reader._tuple_of(1),
    "TUPLE2": lambda reader, _: reader._tuple_of(2),
    "TUPLE3": lambda reader, _: reader._tuple_of(3),
    "APPEND": lambda reader, _: reader._append([reader._stack.pop()]),
    "APPENDS": lambda reader, _: reader._append(reader._since_mark()),
    "SETITEM": lambda reader, _: reader._set_items([reader._stack.pop(-2), reader._stack.pop()]),
    "SETITEMS": lambda reader, _: reader._set_items(reader._since_mark()),
    "GLOBAL": lambda reader, names: reader._global(*names.split(" ", 1)),
    "STACK_GLOBAL": _stack_global,
    "NEWOBJ": _Reader._make,
    "REDUCE": _Reader._make,
    "BUILD": _Reader._set_state,
    "MEMOIZE": lambda reader, _: _remember(reader, len(reader._memo)),
    "BINPUT": _remember,
    "LONG_BINPUT": _remember,
    "BINGET": lambda reader, number: reader._stack.append(reader._memo[number]),
    "LONG_BINGET": lambda reader, number: reader._stack.append(reader._memo[number]),
}
