"""As much of PromQL as our own expressions need: which series they name, by which labels."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Words that are no metric. A function that is not here makes a test fail, which is one line to mend.
WORDS = {
    "sum", "count", "rate", "increase", "histogram_quantile", "vector", "and", "or", "unless",
    "by", "on", "ignoring", "label_values", "max",
}  # fmt: skip
_GROUPING = re.compile(r"\b(by|on|ignoring)\s*\(([^)]*)\)")
_LABEL_VALUES = re.compile(r"^label_values\((.*),\s*(\w+)\)$")
_SELECTOR = re.compile(r"([A-Za-z_]\w*)\s*(\{[^}]*\})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_RANGE = re.compile(r"\[[^\]]*\]|\boffset \w+")


@dataclass(frozen=True)
class Selector:
    metric: str
    matchers: tuple[tuple[str, str, str], ...]  # (label, operator, value)


@dataclass(frozen=True)
class Expression:
    selectors: tuple[Selector, ...]
    grouping: frozenset[str]  # labels in by(), on(), ignoring()
    aggregates: bool  # by() says which labels are left


def parse(text: str) -> Expression:
    grouping: set[str] = set()
    if values := _LABEL_VALUES.match(text):
        text = values[1]
        grouping.add(values[2])
    for _, labels in _GROUPING.findall(text):
        grouping |= {label.strip() for label in labels.split(",")}
    plain = _RANGE.sub("", _GROUPING.sub("", text))
    selectors = [
        Selector(name, tuple(_MATCHER.findall(matchers)))
        for name, matchers in _SELECTOR.findall(re.sub(r"\b[\d.]+\b", "", plain))
        if name not in WORDS
    ]
    return Expression(tuple(selectors), frozenset(grouping), bool(re.search(r"\bby\s*\(", text)))
