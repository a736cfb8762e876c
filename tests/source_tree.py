"""The modules of the project and what they import, for the tests that hold its walls."""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Module:
    name: str
    path: Path
    tree: ast.Module

    def imports(self, *, top_only=False):
        """(dotted name, line) of everything imported; `from a import b` gives a.b."""
        nodes = self.tree.body if top_only else ast.walk(self.tree)
        for node in nodes:
            if isinstance(node, ast.Import):
                yield from ((alias.name, node.lineno) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.name}:{node.lineno}: relative import"
                yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)

    def names(self):
        """(dotted name, node) of every attribute access on a plain name, and of every plain name."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Attribute | ast.Name):
                try:
                    yield ast.unparse(node), node
                except ValueError:
                    continue


@cache
def modules(*packages):
    found = []
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found.append(Module(name, path, ast.parse(path.read_text(encoding="utf-8"))))
    assert len(found) > 20
    return found


def code():
    return modules("pipeline", "stages")


def inside(name, prefixes):
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def none(findings):
    assert not (lines := list(findings)), "\n" + "\n".join(lines)
