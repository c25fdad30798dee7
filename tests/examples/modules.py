"""Modules out of the pages' code blocks, in which each name is known that a reader knows by then."""

from __future__ import annotations

import ast
import builtins
import re
import symtable
from collections.abc import Iterator
from pathlib import Path

from tests.support.pages import PAGES, ROOT, Block, blocks

#: The stubs know generics, such as ``ModelAdmin``, that Django itself knows nothing of.
_COMMENT = "# mypy: allow-any-generics"
#: The project that a page leads from its beginning to its end.
_IN_PROJECT = re.compile(r"^(from|import) shop\b", re.MULTILINE)
#: Pages whose examples are classes of a package without types, of which strict checks know nothing.
_UNTYPED = {"docs/how-to/django-tenants.md"}
_STAND_INS = Path(__file__).with_name("stand_ins.py")


def write_modules(folder: Path) -> dict[Path, Block]:
    """Write a module for each block of Python, with its code in the lines that it has on its page.

    A block's names that it does not bind itself are imported: from the block of its page that binds them, the last
    one before it, else from the stand-ins. What a reader has before he follows a page is no example.

    Args:
        folder: an empty one, from which the modules can be imported.

    Returns:
        The block of each module.
    """
    written: dict[Path, Block] = {}
    for page in PAGES:
        if str(page.relative_to(ROOT)) in _UNTYPED:
            continue
        package = re.sub(r"\W", "_", str(page.relative_to(ROOT).with_suffix("")))
        there = [block for block in blocks(page) if block.language == "python" and not block.is_before]
        #: By name: the import by which a later block of the page has it.
        known = {name: f"from tests.examples.stand_ins import {name}" for name in _bound(_parsed(_STAND_INS))}
        for block in there:
            path = _path(block, there)
            module = ".".join([package, *path.with_suffix("").parts]).removesuffix(".__init__")
            tree = ast.parse(block.text, block.place)
            taken = [known[name] for name in sorted(_unbound(block.text, tree)) if name in known]
            # In the lines of the fence and of what stands before it.
            code = _IN_PROJECT.sub(rf"\1 {package}.shop", block.text)
            text = "\n" * (block.line - 2) + f"{_COMMENT}\n{'; '.join(taken)}\n{code}"
            file = folder / package / path
            file.parent.mkdir(parents=True, exist_ok=True)
            for above in (file.parent, folder / package):
                (above / "__init__.py").touch()
            file.write_text(text)
            written[file] = block
            known |= {name: f"from {module} import {name}" for name in _bound(tree)} | dict(_imports(tree))
    return written


def _path(block: Block, page: list[Block]) -> Path:
    """Where it lies below the package of its page: in the file that it names, unless several name that one."""
    file = Path(block.file or "shell.py")
    if block.file and sum(other.file == block.file for other in page) == 1:
        return file
    return file.with_name(f"{file.stem}_{block.line}.py")


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def _bound(tree: ast.Module) -> set[str]:
    """The names that a module binds, without those that it imports."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
            continue
        if isinstance(node, ast.AugAssign):
            # It was there before.
            continue
        names |= {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
    return {name for name in names if not name.startswith("_")}


def _imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Each name that a module imports, with an import of it alone."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.asname or alias.name.partition(".")[0], ast.unparse(ast.Import([alias]))
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, ast.unparse(ast.ImportFrom(node.module, [alias], 0))


def _unbound(text: str, tree: ast.Module) -> set[str]:
    """The global names that a block reads and neither binds nor imports."""
    changed = {
        node.target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name)
    }
    top = symtable.symtable(text, "block", "exec")
    bound = {one.get_name() for one in top.get_symbols() if one.is_assigned() or one.is_imported()} - changed
    return {
        symbol.get_name()
        for table in _tables(top)
        for symbol in table.get_symbols()
        if (symbol.is_global() or table is top) and (symbol.is_referenced() or symbol.get_name() in changed)
    } - bound - set(dir(builtins))  # fmt: skip


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _tables(child)
