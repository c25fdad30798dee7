"""The texts of the errors that code may raise, and of the reasons that it may store, read from its source.

Each has a mark where a value stands.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import congressy_mailer
from congressy_mailer import exceptions

PACKAGE = Path(congressy_mailer.__file__).parent
#: Stands for a value.
MARK = "¤"

_ERRORS = {name for name, value in vars(exceptions).items() if isinstance(value, type) and issubclass(value, Exception)}
# Which argument has the text; of errors the first.
_TEXT_ARGUMENTS = {"Reply": 1}
# Methods of a text, and functions, that leave its words as they are.
_TRIMMING = {"strip", "rstrip", "lstrip"}
_KEEPING = {"str", "printable_text"}
# Functions that give the words of others.
_OF_OTHERS = {"error_text", "error_summary"}
# Of a module, what is in no function.
_OUTSIDE = "<module>"

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Place(NamedTuple):
    """A function of the package: module, and its name with its class's."""

    module: str
    name: str


class Sources:
    """All functions of the package, and who calls whom, as far as names tell."""

    def __init__(self) -> None:
        self._functions: dict[Place, Function | ast.Module] = {}
        #: By the name alone, without a class's.
        self._by_name: dict[str, list[Function]] = defaultdict(list)
        #: Of a module's classes, by the method's name.
        self._methods: dict[Place, Place] = {}
        self._imports: dict[str, dict[str, Place]] = {}
        #: What a parameter is given where the source says so, and where.
        self._arguments: dict[tuple[Place, str], list[tuple[Place, ast.expr]]] = defaultdict(list)
        #: What each function uses, once it has been asked for.
        self._uses: dict[Place, set[Place]] = {}
        #: What is being spelled: a text may be made of itself.
        self._open: set[object] = set()
        for path in PACKAGE.rglob("*.py"):
            module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
            tree = ast.parse(path.read_text())
            self._imports[module] = dict(_imported(tree, module, is_package=path.name == "__init__.py"))
            outside: list[ast.stmt] = []
            for owner in [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))]:
                prefix = f"{owner.name}." if isinstance(owner, ast.ClassDef) else ""
                for node in owner.body:
                    if isinstance(node, Function):
                        self._functions[Place(module, f"{prefix}{node.name}")] = node
                        self._by_name[node.name].append(node)
                        if prefix:
                            self._methods.setdefault(Place(module, node.name), Place(module, f"{prefix}{node.name}"))
                    elif not isinstance(node, ast.ClassDef):
                        outside.append(node)
            self._functions[Place(module, _OUTSIDE)] = ast.Module(outside, [])

    def reached(self, begin: Sequence[Place], *, but: Sequence[Place] = ()) -> set[Place]:
        """These functions and all that they use, directly or not."""
        found = self._reach(begin, but)
        self._note_all_arguments(found)
        return found

    def everything(self, *, but: Collection[str]) -> set[Place]:
        """All functions, and what is in none.

        Args:
            but: modules, and rooms.
        """
        found = {place for place in self._functions if not {place.module, place.module.partition(".")[0]} & set(but)}
        self._note_all_arguments(found)
        return found

    def texts(self, reached: set[Place], kinds: Collection[str] = frozenset(_ERRORS)) -> Iterator[tuple[Place, str]]:
        """What the errors of these functions may say that are the package's own.

        Args:
            reached: the functions.
            kinds: names of the errors, or of what else is made of a text.
        """
        for place in sorted(reached):
            for made in _made(self._functions[place], kinds):
                for text in self._spelled(made, place, reached):
                    yield place, text

    def called(self, reached: set[Place], names: Collection[str]) -> Iterator[tuple[Place, str]]:
        """What these functions call by one of these names: give for such a parameter of any function, store in such a
        column or attribute, or return where they are called so themselves."""
        for place in sorted(reached):
            node = self._functions[place]
            for value in (*self._given(node, names), *_assigned(node, names), *_returned(node, names)):
                for text in self._spelled(value, place, reached):
                    yield place, text

    def given(self, place: Place, name: str) -> set[str]:
        """What the reached functions give for a parameter, as far as that is text in the source."""
        return {self._literal(value) for _, value in self._arguments[place, name]} - {MARK}

    def _reach(self, begin: Iterable[Place], but: Sequence[Place] = ()) -> set[Place]:
        found: set[Place] = set()
        waiting = list(begin)
        while waiting:
            place = waiting.pop()
            if place in found or place in but:
                continue
            found.add(place)
            if place not in self._uses:
                self._uses[place] = set(self._used(self._functions[place], place))
            waiting += self._uses[place]
        return found

    def _used(self, node: ast.AST, place: Place) -> Iterator[Place]:
        for one in ast.walk(node):
            if isinstance(one, ast.Name | ast.Attribute) and (found := self._meant(one, place)) is not None:
                yield found

    def _meant(self, node: ast.expr, place: Place) -> Place | None:
        """The function that a name or attribute stands for."""
        imports = self._imports[place.module]
        candidates = []
        if isinstance(node, ast.Name):
            candidates = [Place(place.module, node.id), Place(place.module, f"{node.id}.__init__")]
            if (imported := imports.get(node.id)) is not None:
                candidates += [imported, Place(imported.module, f"{imported.name}.__init__")]
        elif isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name) and (imported := imports.get(node.value.id)) is not None:
                candidates = [Place(f"{imported.module}.{imported.name}".strip("."), node.attr)]
            # A method: of a class of the same module.
            if (method := self._methods.get(Place(place.module, node.attr))) is not None:
                candidates.append(method)
        return next((one for one in map(self._origin, candidates) if one in self._functions), None)

    def _origin(self, place: Place) -> Place:
        """Where a name comes from that a room's module has from another one."""
        known: set[Place] = set()
        while place not in self._functions and place not in known:
            known.add(place)
            place = self._imports.get(place.module, {}).get(place.name, place)
        return place

    def _note_all_arguments(self, reached: set[Place]) -> None:
        for place in reached:
            for node in _calls(self._functions[place]):
                called = self._meant(node.func, place)
                if called is None or called not in reached:
                    continue
                for name, value in _arguments(node, self._functions[called]):
                    self._arguments[called, name].append((place, value))

    def _given(self, function: Function | ast.Module, names: Collection[str]) -> Iterator[ast.expr]:
        for node in _calls(function):
            called = ast.unparse(node.func).rpartition(".")[2]
            for candidate in self._by_name.get(called, [None]):
                yield from (value for name, value in _arguments(node, candidate) if name in names)

    # What a text comes to

    def _spelled(self, node: ast.expr, place: Place, reached: set[Place]) -> set[str]:
        """What an expression may come to, with marks for what is not known."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return {node.value}
        if isinstance(node, ast.JoinedStr):
            return _joined(self._spelled(part, place, reached) for part in node.values)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return _joined(self._spelled(part, place, reached) for part in (node.left, node.right))
        if isinstance(node, ast.FormattedValue):
            # With quotation marks or separators it is a value.
            is_value = node.conversion == ord("r") or node.format_spec is not None
            return {MARK} if is_value else self._spelled(node.value, place, reached)
        if isinstance(node, ast.IfExp):
            return self._spelled(node.body, place, reached) | self._spelled(node.orelse, place, reached)
        if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or):
            *others, last = (self._spelled(one, place, reached) for one in node.values)
            return set().union(*others) - {""} | last
        if isinstance(node, ast.Attribute) and node.attr == "text":
            # Of a reply.
            return self._spelled(node.value, place, reached)
        if isinstance(node, ast.Call):
            return self._returned(node, place, reached)
        if isinstance(node, ast.Name):
            return self._once((place, node.id), self._named(node.id, place, reached))
        return {MARK}

    def _once(self, key: object, texts: Iterable[str]) -> set[str]:
        if key in self._open:
            return {MARK}
        self._open.add(key)
        try:
            return set(texts)
        finally:
            self._open.discard(key)

    def _returned(self, node: ast.Call, place: Place, reached: set[Place]) -> set[str]:
        if ast.unparse(node.func) in _TEXT_ARGUMENTS:
            return set().union(*(self._spelled(made, place, reached) for made in _made(node, _TEXT_ARGUMENTS)))
        if isinstance(node.func, ast.Attribute) and node.func.attr in _TRIMMING:
            trimmed = self._spelled(node.func.value, place, reached)
            return {getattr(text, node.func.attr)() for text in trimmed} if not node.args else trimmed
        if isinstance(node.func, ast.Name) and node.func.id in _KEEPING and node.args:
            return self._spelled(node.args[0], place, reached)
        called = self._meant(node.func, place)
        if called is None or called.name in _OF_OTHERS:
            return {MARK}
        returned = [one.value for one in ast.walk(self._functions[called]) if isinstance(one, ast.Return)]

        def texts() -> Iterator[str]:
            for one in returned:
                yield from {MARK} if one is None else self._spelled(one, called, reached)

        return self._once(called, texts()) or {MARK}

    def _named(self, name: str, place: Place, reached: set[Place]) -> Iterator[str]:
        """A variable: what an error says that was caught, what was assigned, or what a caller gives."""
        function = self._functions[place]
        causes: set[str] = set()
        for node in ast.walk(function):
            if isinstance(node, ast.Try):
                for handler in node.handlers:
                    if handler.name == name and handler.type is not None:
                        causes |= self._causes(node.body, _class_names(handler.type), place, reached) or {MARK}
        if causes:
            yield from causes
            return
        texts: set[str] = set()
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
                texts |= self._spelled(node.value, place, reached) if _is_text(node.value) else {MARK}
        for node in ast.walk(function):
            if isinstance(node, ast.AugAssign) and ast.unparse(node.target) == name and _is_text(node.value):
                texts |= {one + more for one in texts for more in self._spelled(node.value, place, reached)}
        for caller, value in self._arguments.get((place, name), ()):
            # A word alone is the name of an argument.
            texts |= {text if " " in text.strip() else MARK for text in self._spelled(value, caller, reached)}
        if not texts and place.name != _OUTSIDE:
            texts = self._of_module(name, place.module, reached)
        yield from texts or {MARK}

    def _of_module(self, name: str, module: str, reached: set[Place]) -> set[str]:
        """A constant of a module, also of one that it is imported from."""
        imported = self._imports[module].get(name, Place(module, name))
        outside = Place(imported.module, _OUTSIDE)
        if outside not in self._functions:
            return set()
        return self._once((outside, imported.name), self._named(imported.name, outside, reached))

    def _causes(self, body: Sequence[ast.stmt], kinds: set[str], place: Place, reached: set[Place]) -> set[str]:
        """What the errors of these types say that come up in these statements."""
        begin = [one for statement in body for one in self._used(statement, place)]
        causes: set[str] = set()
        for one in self._reach(begin) & reached:
            for raised in _made(self._functions[one], kinds):
                causes |= self._spelled(raised, one, reached)
        for raised in (made for statement in body for made in _made(statement, kinds)):
            causes |= self._spelled(raised, place, reached)
        return causes

    @staticmethod
    def _literal(node: ast.expr) -> str:
        if isinstance(node, ast.JoinedStr):
            return "".join(part.value if isinstance(part, ast.Constant) else MARK for part in node.values)
        return str(node.value) if isinstance(node, ast.Constant) else MARK


def _joined(parts: Iterable[set[str]]) -> set[str]:
    return {"".join(one) for one in product(*parts)}


def _is_text(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        return ast.unparse(node.func).rpartition(".")[2] in {*_TRIMMING, *_KEEPING, *_TEXT_ARGUMENTS}
    return isinstance(node, ast.JoinedStr | ast.IfExp) or isinstance(node, ast.Constant) and isinstance(node.value, str)


def _class_names(node: ast.expr) -> set[str]:
    return {ast.unparse(one) for one in (node.elts if isinstance(node, ast.Tuple) else [node])}


def _calls(function: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(function) if isinstance(node, ast.Call))


def _arguments(node: ast.Call, called: ast.AST | None) -> Iterator[tuple[str, ast.expr]]:
    """The arguments of a call by the names that the function has for them."""
    parameters = [one.arg for one in called.args.args if one.arg != "self"] if isinstance(called, Function) else []
    given = [*zip(parameters, node.args, strict=False), *((one.arg, one.value) for one in node.keywords)]
    return ((name, value) for name, value in given if name)


def _made(function: ast.AST, kinds: Collection[str]) -> Iterator[ast.expr]:
    """The text of each error of these types that a function makes; ``type(error)`` is one of ours."""
    for node in _calls(function):
        kind = ast.unparse(node.func)
        place = _TEXT_ARGUMENTS.get(kind, 0)
        if len(node.args) > place and (kind in kinds or kind == "type(error)" and "MailerError" in kinds):
            yield node.args[place]


def _assigned(function: ast.AST, names: Collection[str]) -> Iterator[ast.expr]:
    """What is assigned to attributes of these names."""
    for node in ast.walk(function):
        if not isinstance(node, ast.Assign):
            continue
        target, value = node.targets[0], node.value
        pairs = [(target, value)]
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            pairs = list(zip(target.elts, value.elts, strict=True))
        yield from (value for one, value in pairs if isinstance(one, ast.Attribute) and one.attr in names)


def _returned(function: ast.AST, names: Collection[str]) -> Iterator[ast.expr]:
    if not isinstance(function, Function) or not any(name in function.name for name in names):
        return
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and node.value is not None:
            yield node.value


def _imported(tree: ast.AST, module: str, *, is_package: bool) -> Iterator[tuple[str, Place]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            parents = module.split(".") if module else []
            up = node.level - is_package
            base = parents[: len(parents) - up] if up else parents
            source = ".".join([*base, *(node.module.split(".") if node.module else [])])
            for alias in node.names:
                yield alias.asname or alias.name, Place(source, alias.name)
