"""The texts of the errors that code may raise, read from its source: each with a mark where a value stands."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import congressy_mailer
from congressy_mailer import exceptions

PACKAGE = Path(congressy_mailer.__file__).parent
#: Stands for a value.
MARK = "¤"

_ERRORS = {name for name, value in vars(exceptions).items() if isinstance(value, type) and issubclass(value, Exception)}

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Place(NamedTuple):
    """A function of the package: module, and its name with its class's."""

    module: str
    name: str


class Sources:
    """All functions of the package, and who calls whom, as far as names tell."""

    def __init__(self) -> None:
        self._functions: dict[Place, Function] = {}
        self._imports: dict[str, dict[str, Place]] = {}
        #: What a parameter is given where the source says so.
        self._arguments: dict[tuple[Place, str], list[ast.expr]] = defaultdict(list)
        for path in PACKAGE.rglob("*.py"):
            module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
            tree = ast.parse(path.read_text())
            self._imports[module] = dict(_imported(tree, module, is_package=path.name == "__init__.py"))
            for owner in [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))]:
                prefix = f"{owner.name}." if isinstance(owner, ast.ClassDef) else ""
                for node in owner.body:
                    if isinstance(node, Function):
                        self._functions[Place(module, f"{prefix}{node.name}")] = node

    def reached(self, begin: Sequence[Place], *, but: Sequence[Place] = ()) -> set[Place]:
        """These functions and all that they use, directly or not."""
        found: set[Place] = set()
        waiting = list(begin)
        while waiting:
            place = waiting.pop()
            if place in found or place in but:
                continue
            found.add(place)
            waiting += self._used(self._functions[place], place)
        for place in found:
            self._note_arguments(place, found)
        return found

    def texts(self, reached: set[Place]) -> Iterator[tuple[Place, str]]:
        """What the errors of these functions may say that are the package's own."""
        for place in sorted(reached):
            for raised in _raised(self._functions[place], _ERRORS):
                for text in self._spelled(raised, place, reached):
                    yield place, text

    def given(self, place: Place, name: str) -> set[str]:
        """What the reached functions give for a parameter, as far as that is text in the source."""
        return {self._literal(value) for value in self._arguments[place, name]} - {MARK}

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
            candidates += [
                one for one in self._functions if one.module == place.module and one.name.endswith(f".{node.attr}")
            ]
        return next((one for one in candidates if one in self._functions), None)

    def _note_arguments(self, place: Place, reached: set[Place]) -> None:
        for node in ast.walk(self._functions[place]):
            if not isinstance(node, ast.Call) or (called := self._meant(node.func, place)) not in reached:
                continue
            assert called is not None
            parameters = [one.arg for one in self._functions[called].args.args if one.arg != "self"]
            given = [*zip(parameters, node.args, strict=False), *((one.arg, one.value) for one in node.keywords)]
            for name, value in given:
                if name:
                    self._arguments[called, name].append(value)

    def _spelled(self, node: ast.expr, place: Place, reached: set[Place]) -> set[str]:
        """What an expression may come to, with marks for what is not known."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return {node.value}
        if isinstance(node, ast.JoinedStr):
            parts = [self._spelled(part, place, reached) for part in node.values]
            return {"".join(one) for one in product(*parts)}
        if isinstance(node, ast.FormattedValue):
            # With quotation marks or separators it is a value.
            is_value = node.conversion == ord("r") or node.format_spec is not None
            return {MARK} if is_value else self._spelled(node.value, place, reached)
        if isinstance(node, ast.IfExp):
            return self._spelled(node.body, place, reached) | self._spelled(node.orelse, place, reached)
        if isinstance(node, ast.Call):
            return self._returned(node, place, reached)
        if isinstance(node, ast.Name):
            return self._named(node.id, place, reached)
        return {MARK}

    def _returned(self, node: ast.Call, place: Place, reached: set[Place]) -> set[str]:
        called = self._meant(node.func, place)
        if called is None:
            return {MARK}
        returned = [one.value for one in ast.walk(self._functions[called]) if isinstance(one, ast.Return)]
        if not all(isinstance(one, ast.Constant | ast.JoinedStr) for one in returned):
            return {MARK}
        return set().union(*(self._spelled(one, called, reached) for one in returned if one is not None))

    def _named(self, name: str, place: Place, reached: set[Place]) -> set[str]:
        """A variable: what an error says that was caught, what was assigned, or what a caller gives."""
        function = self._functions[place]
        for node in ast.walk(function):
            if isinstance(node, ast.Try):
                for handler in node.handlers:
                    if handler.name == name and handler.type is not None and ast.unparse(handler.type) == "ValueError":
                        return self._causes(node.body, place, reached)
        texts: set[str] = set()
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
                texts |= self._spelled(node.value, place, reached) if _is_text(node.value) else {MARK}
        for node in ast.walk(function):
            if isinstance(node, ast.AugAssign) and ast.unparse(node.target) == name and _is_text(node.value):
                texts |= {one + more for one in texts for more in self._spelled(node.value, place, reached)}
        for value in self._arguments.get((place, name), ()):
            words = self._literal(value)
            # A word alone is the name of an argument.
            texts.add(words if " " in words.strip() else MARK)
        return texts or {MARK}

    def _causes(self, body: Sequence[ast.stmt], place: Place, reached: set[Place]) -> set[str]:
        begin = [one for statement in body for one in self._used(statement, place)]
        causes: set[str] = set()
        for one in self.reached(begin) & reached:
            for raised in _raised(self._functions[one], {"ValueError"}):
                causes |= self._spelled(raised, one, reached)
        return causes

    @staticmethod
    def _literal(node: ast.expr) -> str:
        if isinstance(node, ast.JoinedStr):
            return "".join(part.value if isinstance(part, ast.Constant) else MARK for part in node.values)
        return str(node.value) if isinstance(node, ast.Constant) else MARK


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr | ast.IfExp) or isinstance(node, ast.Constant) and isinstance(node.value, str)


def _raised(function: Function, names: set[str]) -> Iterator[ast.expr]:
    """The first argument of each error of these types that a function makes; ``type(error)`` is one of ours."""
    for node in ast.walk(function):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        kind = ast.unparse(node.func)
        if kind in names or kind == "type(error)" and "MailerError" in names:
            yield node.args[0]


def _imported(tree: ast.AST, module: str, *, is_package: bool) -> Iterator[tuple[str, Place]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            parents = module.split(".") if module else []
            up = node.level - is_package
            base = parents[: len(parents) - up] if up else parents
            source = ".".join([*base, *(node.module.split(".") if node.module else [])])
            for alias in node.names:
                yield alias.asname or alias.name, Place(source, alias.name)
