"""Valid input, damaged: bits and bytes of files, words of texts, leaves of nested values."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

NUMBERS = [b"0", b"-1", b"1.5", b"nan", b"-inf", b"1e999", b"1_0", b"0x10", b"017", b"\xd9\xa3", b"9" * 20, b"9" * 400, b"9" * 5000]
WORDS = [b"", b"true", b"null", b"~", b'""', b'"8"', b"[]", b"{}", b"[" * 3000, b"{" * 200, b'"\\ud800"', b"1979-05-27", b"a" * 300]
SIGNS = [b",", b":", b"=", b'"', b"'", b"#", b"\n", b"\n\n", b"\r", b"\t", b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"-", b"%s"]
INTEGERS = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]  # little-endian, over the bytes of a binary file
ODD = st.sampled_from(
    [None, True, False, 0, -1, 2, 1.5, 1e308, float("nan"), float("inf"), 2**31, 2**53 + 1, 10**400, "", "x", "8", "nan", "\ud800", "a\nb"]
    + [[], [[]], [1, 2], [[1], 2], {}, {"a": 1}, [None], ["x"] * 5, [10**400]]
) | st.integers() | st.floats() | st.text(max_size=6)  # fmt: skip
_WORD = re.compile(rb"[A-Za-z0-9_.+]+")
_KINDS = ("flip", "byte", "number", "drop", "double", "cut", "insert", "word", "word", "word", "swap", "line")


def fuzz(count: int) -> settings:
    """The same `count` inputs every time, none of them kept."""
    phases = (Phase.generate, Phase.shrink)
    return settings(
        max_examples=count, derandomize=True, database=None, deadline=None, phases=phases, suppress_health_check=list(HealthCheck)
    )


def damaged(valid: Sequence[bytes], tokens: Sequence[bytes] = ()) -> st.SearchStrategy[bytes]:
    """One of the `valid` contents after one to four edits; now and then something else altogether.

    `tokens`: words that mean something in this format, put in where others stood.
    """
    spans = [[match.span() for match in _WORD.finditer(content)] or [(0, 1)] for content in valid]
    insertions = [*NUMBERS, *WORDS, *SIGNS, *tokens, *tokens]
    edit = st.tuples(st.sampled_from(_KINDS), st.integers(0, 2**20 - 1), st.integers(0, 2**20 - 1), st.sampled_from(insertions))

    def apply(given: tuple[int, list[tuple[str, int, int, bytes]]]) -> bytes:
        which, edits = given
        content = valid[which]
        for kind, at, other, token in edits:
            content = _edited(content, spans[which], kind, at, other, token)
        return content

    some = st.tuples(st.integers(0, len(valid) - 1), st.lists(edit, min_size=1, max_size=4)).map(apply)
    return st.one_of(*[some] * 8, st.binary(max_size=60), st.lists(st.sampled_from(insertions), max_size=8).map(b" ".join))


def _edited(content: bytes, spans: Sequence[tuple[int, int]], kind: str, at: int, other: int, token: bytes) -> bytes:
    place = at % (len(content) + 1)
    length = 1 + other % 64
    if kind == "flip" and content:
        place %= len(content)
        return content[:place] + bytes([content[place] ^ (1 << other % 8)]) + content[place + 1 :]
    if kind == "byte":
        return content[:place] + bytes([other % 256]) + content[place + 1 :]
    if kind == "number":
        size = 4 if other % 2 else 8
        return content[:place] + (INTEGERS[other % len(INTEGERS)] % 256**size).to_bytes(size, "little") + content[place + size :]
    if kind == "drop":
        return content[:place] + content[place + length :]
    if kind == "double":
        return content[: place + length] + content[place:]
    if kind == "cut":
        return content[:place]
    if kind == "word":
        start, end = spans[at % len(spans)]  # after an earlier edit perhaps the middle of another word
        return content[:start] + token + content[end:]
    if kind == "swap":
        (a, b), (c, d) = sorted((spans[at % len(spans)], spans[other % len(spans)]))
        return content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:] if b <= c else content
    if kind == "line":
        lines = content.splitlines(keepends=True) or [b""]
        lines[at % len(lines)] = lines[other % len(lines)]
        return b"".join(lines)
    return content[:place] + token + content[place:]


def damaged_tree(valid: Any, odd: st.SearchStrategy[Any] = ODD) -> st.SearchStrategy[Any]:
    """A nested value of dicts and lists with one to three entries replaced, removed, renamed or added."""
    step = st.tuples(st.sampled_from(("replace", "replace", "remove", "rename", "add")), st.lists(st.integers(0, 99), max_size=6), odd)

    def apply(steps: list[tuple[str, list[int], Any]]) -> Any:
        root = {"": copy.deepcopy(valid)}
        for kind, path, value in steps:
            _replace(root, kind, path, value)
        return root.get("")

    return st.lists(step, min_size=1, max_size=3).map(apply)


def _replace(root: Any, kind: str, path: Sequence[int], value: Any) -> None:
    holder: Any = root
    key: Any = next(iter(root), None)
    for turn in path:
        inner = holder[key] if key is not None else None
        if not isinstance(inner, (dict, list)) or not inner:
            break
        holder, key = inner, (list(inner) if isinstance(inner, dict) else range(len(inner)))[turn % len(inner)]
    if key is None:
        return
    if kind == "remove" and holder is not root:
        del holder[key]
    elif kind == "rename" and isinstance(holder, dict) and holder is not root:
        holder[str(value)] = holder.pop(key)
    elif kind == "add" and isinstance(holder, list):
        holder.insert(key, value)
    elif kind == "add" and isinstance(holder, dict) and holder is not root:
        holder[str(value)] = value
    else:
        holder[key] = value
