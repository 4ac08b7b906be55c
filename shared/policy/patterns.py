r"""Patterns for text from outside, matched in linear time whatever pattern and text are.

The syntax is the common core of regular expressions: literals, ``.``, classes, ``\d \w \s``
(ASCII) and their complements, groups, ``|``, ``? * + {m} {m,n} {m,}``. A pattern must match the
whole text. There are no look-arounds and no references, so that the automaton of Glushkov, made
deterministic as it is used, needs one step per character; its size is bounded at compilation.
"""

import string
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from typing import Annotated

from pydantic import AfterValidator, Field

_PATTERN_CHARS_MAX = 256
_REPEAT_MAX = 256
_POSITIONS_MAX = 256
_EMISSIONS_MAX = 4_096  # groups without any character repeat too
_DEPTH_MAX = 16
_STATES_MAX = 512
_MOVES_MAX = 512

_DIGITS = ((ord("0"), ord("9")),)
_WORD = (*_DIGITS, (ord("A"), ord("Z")), (ord("_"), ord("_")), (ord("a"), ord("z")))
_SPACE = ((9, 13), (32, 32))
_CLASSES = {"d": _DIGITS, "w": _WORD, "s": _SPACE}
_SPECIAL = frozenset("\\^$.|?*+()[]{}")


@dataclass(frozen=True, slots=True)
class _Characters:
    """A set of characters: code point ranges, or all but those."""

    ranges: tuple[tuple[int, int], ...]
    negated: bool = False

    def __contains__(self, character: str) -> bool:
        point = ord(character)
        return any(first <= point <= last for first, last in self.ranges) is not self.negated


_ANY = _Characters((), negated=True)


@dataclass(slots=True)
class _Part:
    """What a part of the pattern can begin and end with; ``nullable``: it may be empty."""

    nullable: bool = True
    first: frozenset[int] = frozenset()
    last: frozenset[int] = frozenset()


@dataclass(eq=False, slots=True)
class _State:
    """A set of positions that were just read, and where the next character leads."""

    positions: frozenset[int]
    accepting: bool
    moves: dict[str, "_State"] = field(default_factory=dict[str, "_State"])


#: Makes a fresh copy of a part of the pattern, so that repetition is copying.
_Node = Callable[["_Automaton"], _Part]


class _Automaton:
    """Positions of the pattern's characters, and which may follow which."""

    def __init__(self, node: _Node) -> None:
        self._characters: list[_Characters] = []
        self._follow: list[set[int]] = []
        self._emissions = 0
        whole = self.emit(node)
        self._first, self._last = whole.first, whole.last
        self._start = _State(frozenset(), whole.nullable)
        self._states: dict[frozenset[int], _State] = {}

    def emit(self, node: _Node) -> _Part:
        self._emissions += 1
        if self._emissions > _EMISSIONS_MAX:
            raise ValueError("repeats too much")
        return node(self)

    def place(self, characters: _Characters) -> _Part:
        position = len(self._characters)
        if position >= _POSITIONS_MAX:
            raise ValueError(f"describes more than {_POSITIONS_MAX} characters")
        self._characters.append(characters)
        self._follow.append(set())
        return _Part(nullable=False, first=frozenset((position,)), last=frozenset((position,)))

    def link(self, before: _Part, after: _Part) -> _Part:
        for position in before.last:
            self._follow[position] |= after.first
        return _Part(
            before.nullable and after.nullable,
            before.first | after.first if before.nullable else before.first,
            before.last | after.last if after.nullable else after.last,
        )

    def matches(self, text: str) -> bool:
        state = self._start
        for character in text:
            state = state.moves.get(character) or self._move(state, character)
            if not state.positions:
                return False
        return state.accepting

    def _move(self, state: _State, character: str) -> _State:
        reachable: Iterable[int] = (
            self._first
            if state is self._start
            else set[int]().union(*(self._follow[position] for position in state.positions))
        )
        positions = frozenset(p for p in reachable if character in self._characters[p])
        if len(self._states) > _STATES_MAX:
            self._states.clear()
        known = self._states.get(positions)
        if known is None:
            known = _State(positions, not positions.isdisjoint(self._last))
            self._states[positions] = known
        if len(state.moves) < _MOVES_MAX:
            state.moves[character] = known
        return known


class _Parser:
    """Recursive descent over the pattern's text; raises ValueError."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def whole(self) -> _Node:
        node = self._alternatives()
        if self._at < len(self._text):
            raise ValueError(f"has an unexpected “{self._text[self._at]}”")
        return node

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self, wanted: str) -> bool:
        if self._text.startswith(wanted, self._at):
            self._at += len(wanted)
            return True
        return False

    def _alternatives(self) -> _Node:
        branches = [self._sequence()]
        while self._take("|"):
            branches.append(self._sequence())
        return branches[0] if len(branches) == 1 else _either(branches)

    def _sequence(self) -> _Node:
        nodes: list[_Node] = []
        while self._peek() not in {"", "|", ")"}:
            nodes.append(self._quantified())
        return _in_order(nodes)

    def _quantified(self) -> _Node:
        node = self._atom()
        if self._take("?"):
            low, high = 0, 1
        elif self._take("*"):
            low, high = 0, None
        elif self._take("+"):
            low, high = 1, None
        elif self._take("{"):
            low, high = self._bounds()
        else:
            return node
        if self._peek() and self._peek() in "?*+{":
            raise ValueError("repeats a repetition")
        return _repeated(node, low, high)

    def _bounds(self) -> tuple[int, int | None]:
        inner, closed, _ = self._text[self._at :].partition("}")
        low, comma, high = inner.partition(",")
        if not closed or not _is_number(low) or (high and not _is_number(high)):
            raise ValueError("has a repetition that is not {m}, {m,} or {m,n}")
        self._at += len(inner) + 1
        least = int(low)
        most = int(high) if high else None if comma else least
        if least > _REPEAT_MAX or (most is not None and not least <= most <= _REPEAT_MAX):
            raise ValueError(f"may repeat at most {_REPEAT_MAX} times, and in order")
        return least, most

    def _atom(self) -> _Node:
        character = self._peek()
        self._at += 1
        match character:
            case "(":
                return self._group()
            case "[":
                return _one_of(self._class())
            case ".":
                return _one_of(_ANY)
            case "\\":
                return _one_of(self._escape())
            case _ if character in _SPECIAL:
                raise ValueError(f"has an unexpected “{character}”")
            case _:
                return _one_of(_just(character))

    def _group(self) -> _Node:
        if self._peek() == "?" and not self._take("?:"):
            raise ValueError("holds a group that is not (…) or (?:…)")
        self._depth += 1
        if self._depth > _DEPTH_MAX:
            raise ValueError(f"nests groups deeper than {_DEPTH_MAX}")
        node = self._alternatives()
        self._depth -= 1
        if not self._take(")"):
            raise ValueError("has a group that does not end")
        return node

    def _escape(self) -> _Characters:
        character = self._peek()
        self._at += 1
        if character and character.lower() in _CLASSES:
            return _Characters(_CLASSES[character.lower()], negated=character.isupper())
        if character and character in string.punctuation:
            return _just(character)
        raise ValueError(f"has the unknown escape “\\{character}”")

    def _class(self) -> _Characters:
        negated = self._take("^")
        ranges: list[tuple[int, int]] = []
        while not self._take("]"):
            first = self._member()
            if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in {"", "]"}:
                self._at += 1
                last = self._member()
                if len(first) != 1 or len(last) != 1 or first[0][0] > last[0][0]:
                    raise ValueError("has a class with a range that is not in order")
                ranges.append((first[0][0], last[0][0]))
            else:
                ranges.extend(first)
        if not ranges:
            raise ValueError("has an empty class")
        return _Characters(tuple(ranges), negated)

    def _member(self) -> tuple[tuple[int, int], ...]:
        character = self._peek()
        self._at += 1
        if character in {"", "["}:
            raise ValueError("has a class that does not end or holds a bare “[”")
        if character != "\\":
            return _just(character).ranges
        escaped = self._escape()
        if escaped.negated:
            raise ValueError("has a complement inside a class")
        return escaped.ranges


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(_REPEAT_MAX))


def _just(character: str) -> _Characters:
    return _Characters(((ord(character), ord(character)),))


def _one_of(characters: _Characters) -> _Node:
    return lambda automaton: automaton.place(characters)


def _in_order(nodes: Sequence[_Node]) -> _Node:
    def emit(automaton: _Automaton) -> _Part:
        return reduce(automaton.link, map(automaton.emit, nodes), _Part())

    return emit


def _either(nodes: Sequence[_Node]) -> _Node:
    def emit(automaton: _Automaton) -> _Part:
        parts = [automaton.emit(node) for node in nodes]
        nothing = frozenset[int]()
        return _Part(
            any(part.nullable for part in parts),
            nothing.union(*(part.first for part in parts)),
            nothing.union(*(part.last for part in parts)),
        )

    return emit


def _repeated(node: _Node, low: int, high: int | None) -> _Node:
    def optional(automaton: _Automaton) -> _Part:
        part = automaton.emit(node)
        part.nullable = True
        return part

    def any_number(automaton: _Automaton) -> _Part:
        part = optional(automaton)
        automaton.link(part, part)
        return part

    rest = [any_number] if high is None else [optional] * (high - low)
    return _in_order([node] * low + rest)


@lru_cache(maxsize=1_024)
def _compiled(pattern: str) -> _Automaton:
    text = pattern.removeprefix("^")
    if text.endswith("$") and not text.endswith("\\$"):
        text = text[:-1]
    return _Automaton(_Parser(text).whole())


def matches(pattern: str, text: str) -> bool:
    """Tell if the pattern matches the whole text; raises ValueError for a pattern that is none."""
    return _compiled(pattern).matches(text)


def _checked(pattern: str) -> str:
    try:
        _compiled(pattern)
    except ValueError as error:
        raise ValueError(f"the pattern “{pattern}” {error}") from error
    return pattern


#: A pattern in a document; what cannot be compiled is refused there.
Pattern = Annotated[
    str, Field(min_length=1, max_length=_PATTERN_CHARS_MAX), AfterValidator(_checked)
]
