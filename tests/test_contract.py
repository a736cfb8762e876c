"""What a stage's author calls or writes says what it raises, in which units, when, and whether it blocks.

A word that holds for all of a class or module may stand there: "Nothing here waits", "Raises nothing".
"""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = ("stage", "runtime", "messages", "detections", "happenings", "clock", "credentials",
           "redaction", "testing")  # fmt: skip
IMPLEMENTED = {"_Part", "Source", "_Shared", "Stage", "JoinStage", "BatchStage", "Sink"}
BLOCKS = re.compile(
    r"\b(blocks?|waits?|pure|at once|within a second|takes? at most|as long as)\b", re.IGNORECASE
)
RAISES = re.compile(r"\braise[sd]?\b", re.IGNORECASE)
CALLED = re.compile(r"\b(called|calls|read after|sent to)\b", re.IGNORECASE)
UNITS = re.compile(r"_(s|ms|ns|hz|px|bytes|xy|wh)$")
NUMBERS = re.compile(r"\b(int|float)\b")


@dataclass(frozen=True)
class Word:
    """A public function, method or property, and where else words for it may stand."""

    name: str
    node: ast.FunctionDef
    around: str  # docstrings of its class and module
    of: str  # its class

    @property
    def own(self):
        return ast.get_docstring(self.node) or ""

    @property
    def all(self):
        return f"{self.own}\n{self.around}"

    def numbers(self):
        """Its parameters that are numbers."""
        parameters = self.node.args.args + self.node.args.kwonlyargs
        return [a.arg for a in parameters if a.annotation and _is_number(a.annotation)]

    def raised(self):
        """Names of the errors that its own body raises."""
        calls = [node.exc for node in ast.walk(self.node) if isinstance(node, ast.Raise)]
        found = {
            ast.unparse(exc.func if isinstance(exc, ast.Call) else exc) for exc in calls if exc
        }
        return found - {"NotImplementedError"}


def _is_number(annotation):
    return NUMBERS.search(re.sub(r"Callable\[.*", "", ast.unparse(annotation))) is not None


def words():
    for module in MODULES:
        tree = ast.parse((ROOT / "pipeline" / f"{module}.py").read_text())
        about = ast.get_docstring(tree) or ""
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield Word(f"{module}.{node.name}", node, about, "")
            if isinstance(node, ast.ClassDef) and (
                node.name in IMPLEMENTED or not node.name.startswith("_")
            ):
                around = f"{ast.get_docstring(node) or ''}\n{about}"
                yield from (
                    Word(f"{module}.{node.name}.{one.name}", one, around, node.name)
                    for one in node.body
                    if isinstance(one, ast.FunctionDef) and not one.name.startswith("_")
                )


WORDS = {word.name: word for word in words()}


def test_there_is_something_to_look_at():
    assert {"stage.Stage.process", "runtime.Runtime.empty", "testing.run_inline"} <= WORDS.keys()


@pytest.mark.parametrize("name", WORDS)
def test_a_public_word_of_the_contract_is_a_contract(name):
    word, missing = WORDS[name], []
    if not BLOCKS.search(word.all):
        missing.append("whether it may block or wait")
    if not RAISES.search(word.all):
        missing.append("what it raises, if anything")
    missing += [f"that it raises {error}" for error in word.raised() if error not in word.all]
    if word.of in IMPLEMENTED and not CALLED.search(word.own):
        missing.append("when it is called")
    missing += [
        f"in which unit {number!r} is, or what it counts"
        for number in word.numbers()
        if not UNITS.search(number) and not re.search(rf"\b{number}\b", word.all)
    ]
    assert not missing, f"{name} does not say {'; '.join(missing)}"


def fields():
    """(name, whether something is said of it) of every public field that is a number."""
    for module in MODULES:
        text = (ROOT / "pipeline" / f"{module}.py").read_text()
        lines = text.splitlines()
        for owner in (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)):
            about = ast.get_docstring(owner) or ""
            for node, behind in zip(owner.body, [*owner.body[1:], None], strict=True):
                if not (isinstance(node, ast.AnnAssign) and _is_number(node.annotation)):
                    continue
                name = ast.unparse(node.target)
                here = lines[node.end_lineno - 1], lines[node.lineno - 2].lstrip()[:1]
                said = isinstance(behind, ast.Expr) or any("#" in line for line in here)
                said = said or re.search(rf"\b{name}\b", about) or UNITS.search(name)
                yield f"{module}.{owner.name}.{name}", bool(said)


def test_a_number_in_a_public_record_says_what_it_counts_and_in_which_unit():
    known = dict(fields())
    assert "runtime.CameraState.last_frame_ns" in known
    assert not [name for name, said in known.items() if not said]
