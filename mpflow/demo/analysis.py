"""What one Python file is like: size, complexity of its functions, Halstead's measures, a signature for near-duplicates.

Pure functions from bytes to plain data, equal wherever they run: no hash(), no order of sets, no state. A file that
cannot be analysed yields a record that says why; nothing here raises over a file's content.
"""

from __future__ import annotations

import ast
import io
import keyword
import math
import os
import re
import stat
import threading
import token
import tokenize
import warnings
from collections import Counter
from typing import TypedDict

from mpflow.demo.similarity import signature

MAX_SIZE_BYTES = 2_000_000
MOST_COMPLEX_KEPT = 5
"""Functions kept from each file: a report shows few, and what travels back stays small."""

_SOURCE_NAME = "<analysed source>"
# The compiler's warnings about analysed code are that code's affair. A filter by name, put in once in each process, is
# safe beside other threads, which warnings.catch_warnings() is not.
warnings.filterwarnings("ignore", module=re.escape(_SOURCE_NAME))

# Up to 3.11.7 and 3.12.1 two threads that build trees share one count of their depth and may fail over the other's
# (SystemError). The interpreter's own lock lets only one of them run anyway.
_PARSER = threading.Lock()

_OPERATORS = frozenset({token.OP})
_OPERANDS = frozenset({token.NAME, token.NUMBER, token.STRING} | {getattr(token, "FSTRING_MIDDLE", token.STRING)})
_LAYOUT = frozenset(
    {token.ENDMARKER, token.NEWLINE, token.INDENT, token.DEDENT, token.COMMENT, token.NL, token.ENCODING}
)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_LEAVES = frozenset({ast.Name, ast.Constant, ast.Load, ast.Store, ast.Del})
_DECISIONS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp, ast.match_case)


class Function(TypedDict):
    """A function and its cyclomatic complexity."""

    name: str
    line: int
    complexity: int


class Analysis(TypedDict):
    """What is known of one file. With a `problem`, the counts are zero and the signature is None."""

    path: str
    problem: str | None
    lines: int
    tokens: int
    functions: int
    complexity: int
    most_complex: list[Function]
    volume: float
    difficulty: float
    signature: list[int] | None


class Job(TypedDict):
    """What one task gets: a file's path below the root."""

    root: str
    path: str


def analyse(job: Job) -> dict[str, list[Analysis]]:
    """The node: read one file and add its analysis to the state."""
    return {"analyses": [analyse_file(job["root"], job["path"])]}


def analyse_file(root: str, path: str) -> Analysis:
    """Analyse one file below `root`; never raises over its content or over failing to read it."""
    shown = os.fsencode(path).decode("utf-8", "backslashreplace")
    try:
        return analyse_source(shown, _read(os.path.join(root, path)))
    except OSError as error:
        return _unusable(shown, f"cannot be read: {error.strerror or error}")
    except (SyntaxError, tokenize.TokenError, UnicodeError, ValueError) as error:
        return _unusable(shown, f"does not parse: {_first_line(error)}")
    except (RecursionError, MemoryError):
        return _unusable(shown, "does not parse: too deeply nested")


def analyse_source(path: str, source: bytes) -> Analysis:
    """Analyse the bytes of one module, whose encoding is found as Python finds it.

    Raises what ``ast.parse`` and ``tokenize`` raise for what is no Python.
    """
    if len(source) > MAX_SIZE_BYTES:
        raise ValueError(f"larger than {MAX_SIZE_BYTES:,} bytes")
    functions = sorted(complexities(_parse(source)), key=lambda f: (-f["complexity"], f["line"], f["name"]))
    words = [(t.type, t.string) for t in tokenize.tokenize(io.BytesIO(source).readline) if t.type not in _LAYOUT]
    volume, difficulty = halstead(words)
    return Analysis(
        path=path,
        problem=None,
        lines=source.count(b"\n") + (not source.endswith(b"\n") and source != b""),
        tokens=len(words),
        functions=len(functions),
        complexity=sum(f["complexity"] for f in functions),
        most_complex=functions[:MOST_COMPLEX_KEPT],
        volume=round(volume, 1),
        difficulty=round(difficulty, 1),
        signature=signature([word for _, word in words]),
    )


def complexities(tree: ast.AST) -> list[Function]:
    """Each function of a module with its cyclomatic complexity (McCabe 1976): one more than its decisions.

    A decision is a loop, an ``if`` in each of its forms, an ``except``, a ``case``, and each ``and`` or ``or``. Nested
    functions count for themselves, lambdas and comprehensions for the function around them.
    """
    # A stack of our own: generated code nests deeper than the interpreter's.
    todo: list[tuple[ast.AST, str, Function | None]] = [(tree, "", None)]
    found = []
    while todo:
        node, prefix, function = todo.pop()
        if isinstance(node, _FUNCTIONS):
            # Decorators and defaults run in the scope around the function.
            outside = [*node.decorator_list, *node.args.defaults, *node.args.kw_defaults]
            todo.extend((part, prefix, function) for part in outside if part is not None)
            function = Function(name=prefix + node.name, line=node.lineno, complexity=1)
            found.append(function)
            prefix = f"{function['name']}."
            todo.extend((part, prefix, function) for part in node.body)
            continue
        if isinstance(node, ast.ClassDef):
            prefix = f"{prefix}{node.name}."
        elif function is not None:
            function["complexity"] += _decisions(node)
        for part in ast.iter_child_nodes(node):
            if type(part) not in _LEAVES:
                todo.append((part, prefix, function))
    return found


def _decisions(node: ast.AST) -> int:
    if isinstance(node, _DECISIONS):
        return 1
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.comprehension):
        return 1 + len(node.ifs)
    return 0


def halstead(words: list[tuple[int, str]]) -> tuple[float, float]:
    """Volume and difficulty (Halstead 1977) of a module's tokens; keywords count as operators."""
    operators: Counter[str] = Counter()
    operands: Counter[str] = Counter()
    for kind, word in words:
        if kind in _OPERATORS or keyword.iskeyword(word):
            operators[word] += 1
        elif kind in _OPERANDS:
            operands[word] += 1
    vocabulary, length = len(operators) + len(operands), sum(operators.values()) + sum(operands.values())
    volume = length * math.log2(vocabulary) if vocabulary else 0.0
    difficulty = len(operators) / 2 * sum(operands.values()) / len(operands) if operands else 0.0
    return volume, difficulty


def _read(path: str) -> bytes:
    """The file's bytes, one more than allowed at most. A pipe or a device is refused, as opening it may block."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(0, "not a regular file")
    with open(path, "rb") as file:
        return file.read(MAX_SIZE_BYTES + 1)


def _parse(source: bytes) -> ast.Module:
    with _PARSER:
        return ast.parse(source, _SOURCE_NAME)


def _first_line(error: Exception) -> str:
    if isinstance(error, SyntaxError):
        return f"{error.msg} (line {error.lineno})" if error.lineno else error.msg
    return str(error).partition("\n")[0]


def _unusable(path: str, problem: str) -> Analysis:
    return Analysis(
        path=path,
        problem=problem,
        lines=0,
        tokens=0,
        functions=0,
        complexity=0,
        most_complex=[],
        volume=0.0,
        difficulty=0.0,
        signature=None,
    )
