"""What a code object does beyond its own variables, read from its bytecode: what it names, and what it stores into.

Knows the bytecode of every supported Python; it never runs nor imports what it reads, and judges nothing.
"""

from __future__ import annotations

import dis
import sys
from hashlib import blake2b
from types import CodeType
from typing import Any, NamedTuple

from mpflow._exec.placement.values import token

_NAMES = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_ATTRIBUTES = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_FREE = frozenset({"LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"})
_WITH = frozenset({"BEFORE_WITH", "SETUP_WITH"})
_COPIES = frozenset({"COPY", "DUP_TOP"})
_SWAPS = frozenset({"SWAP", "ROT_TWO"})
_CALLS = frozenset({"CALL", "CALL_KW", "CALL_METHOD", "CALL_FUNCTION", "CALL_FUNCTION_KW"})
OPENERS = frozenset({"open", "GzipFile", "BZ2File", "LZMAFile", "FileIO"})
_MOVERS = frozenset({"rename", "replace"})
_SKIPPED = frozenset({"CACHE", "EXTENDED_ARG", "NOP", "PRECALL", "RESUME", "NOT_TAKEN"})

GLOBAL, FREE, IMPORTED = "global", "variable", "import"


class Use(NamedTuple):
    """A value from outside that the code loads: what it is called, and what is asked of it right away.

    ``attributes`` is the chain of attributes loaded from it at once: ``os.path.join`` is ``os`` with two.
    """

    kind: str
    name: str
    attributes: tuple[str, ...]
    in_with: bool
    """It is only entered by ``with``."""
    line: int


class Store(NamedTuple):
    """An assignment or deletion that reaches beyond the code's own variables."""

    what: str
    line: int


class Report(NamedTuple):
    """What a code object and those nested in it do."""

    uses: list[Use]
    stores: list[Store]
    attributes: frozenset[str]
    """Every attribute name that is loaded, of whatever."""
    strings: frozenset[str]
    """Every string constant."""
    self_stores: list[Store]
    """Attributes set on the first parameter."""
    opens: list[Store]
    """Calls of ``open``, whoever's, that are not plainly for reading."""
    moves: list[Store]
    """Calls that move a file if they are a path's: of ``rename`` and ``replace``, with one argument."""
    imports: list[Store]
    """Modules that are imported when the code runs."""


def read(code: CodeType) -> Report:
    """Read a function's code, with the functions, comprehensions and classes written within it."""
    report = Report([], [], frozenset(), frozenset(), [], [], [], [])
    names: set[str] = set()
    strings: set[str] = set()
    _read(code, frozenset(code.co_freevars), report, names, strings, is_outermost=True)
    return report._replace(attributes=frozenset(names), strings=frozenset(strings))


def _read(
    code: CodeType, outer: frozenset[str], report: Report, names: set[str], strings: set[str], *, is_outermost: bool
) -> None:
    steps = [step for step in dis.get_instructions(code) if step.opname not in _SKIPPED]
    imported = _imported(steps)
    first = code.co_varnames[0] if is_outermost and code.co_argcount else None
    line = code.co_firstlineno
    for at, step in enumerate(steps):
        name = step.opname
        line = _line(step) or line
        if name in _NAMES:
            report.uses.append(_use(GLOBAL, steps, at, line))
            if step.argval in OPENERS:
                _read_open(code, steps, at, line, report)
        elif name in _FREE and step.argval in outer:
            report.uses.append(_use(FREE, steps, at, line))
        elif name == "IMPORT_NAME":
            report.imports.append(Store(str(step.argval), line))
            _read_import(steps, at, line, report)
        elif imported and "LOAD_FAST" in name:
            *others, last = step.argval if isinstance(step.argval, tuple) else (step.argval,)
            if last in imported:
                report.uses.append(_use(IMPORTED, steps, at, line)._replace(name=imported[last]))
            if not name.startswith("STORE"):
                report.uses.extend(
                    Use(IMPORTED, imported[other], (), False, line) for other in others if other in imported
                )
        elif name in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            report.stores.append(Store(f"assigns the global '{step.argval}'", line))
        elif name in ("STORE_DEREF", "DELETE_DEREF") and step.argval in outer:
            report.stores.append(Store(f"assigns the outer variable '{step.argval}'", line))
        elif name in ("STORE_ATTR", "DELETE_ATTR"):
            _read_attribute_store(steps, at, first, line, report)
        elif name in ("IMPORT_STAR", "LOAD_BUILD_CLASS_CELL"):
            report.stores.append(Store("imports with *", line))
        if name in _ATTRIBUTES or name == "LOAD_SUPER_ATTR":
            attribute = str(step.argval)
            names.add(attribute)
            if attribute in OPENERS and not _is_of(steps[at - 1], ("os", "posix")):
                _read_open(code, steps, at, line, report)
            elif attribute in _MOVERS:
                call = _read_call(code, steps, at)
                if call is None or (len(call[0]) == 1 and not call[1]):
                    report.moves.append(Store(f"calls '{attribute}', which moves a file if it is a path's", line))
    for constant in code.co_consts:
        if isinstance(constant, str):
            strings.add(constant)
        elif isinstance(constant, CodeType):
            # A name that is free in the inner code is ours, or free in ours as well.
            inner = frozenset(free for free in constant.co_freevars if free in outer and free not in code.co_cellvars)
            _read(constant, inner, report, names, strings, is_outermost=False)


def _is_of(step: Any, names: tuple[str, ...]) -> bool:
    return step.opname in _NAMES and step.argval in names


def _line(step: Any) -> int | None:
    if sys.version_info >= (3, 13):
        line: int | None = step.line_number
        return line
    starts: Any = step.starts_line
    return starts if isinstance(starts, int) and not isinstance(starts, bool) else None


def _use(kind: str, steps: list[Any], at: int, line: int) -> Use:
    chain = []
    follower = at + 1
    while follower < len(steps) and steps[follower].opname in _ATTRIBUTES:
        chain.append(str(steps[follower].argval))
        follower += 1
    enters = not chain and _enters(steps, follower)
    return Use(kind, str(steps[at].argval), tuple(chain), enters, line)


def _enters(steps: list[Any], at: int) -> bool:
    """Whether what was just loaded goes into a ``with``."""
    if at >= len(steps):
        return False
    if steps[at].opname in _WITH:
        return True
    # From 3.14 on: COPY; LOAD_SPECIAL __exit__; SWAP ...
    return any(step.opname == "LOAD_SPECIAL" for step in steps[at : at + 2]) and steps[at].opname == "COPY"


def _imported(steps: list[Any]) -> dict[str, str]:
    """The local variables that hold an imported module, or a name out of one, and nothing else: with what they hold."""
    found: dict[str, str] = {}
    stored: dict[str, int] = {}
    for at, step in enumerate(steps):
        if step.opname.startswith("STORE_FAST"):
            for variable in step.argval if isinstance(step.argval, tuple) else (step.argval,):
                stored[variable] = stored.get(variable, 0) + 1
        if step.opname != "IMPORT_NAME":
            continue
        module = str(step.argval)
        follower = at + 1
        if follower < len(steps) and steps[follower].opname == "STORE_FAST":
            found[steps[follower].argval] = module.partition(".")[0]
        while follower + 1 < len(steps) and steps[follower].opname == "IMPORT_FROM":
            if steps[follower + 1].opname == "STORE_FAST":
                found[steps[follower + 1].argval] = f"{module}:{steps[follower].argval}"
            follower += 2
    return {variable: what for variable, what in found.items() if stored.get(variable) == 1}


def _read_import(steps: list[Any], at: int, line: int, report: Report) -> None:
    """An import that goes into anything but a variable of its own is a use of the whole module."""
    follower = steps[at + 1] if at + 1 < len(steps) else None
    known = set(_imported(steps).values())
    module = str(steps[at].argval)
    if follower is not None and (follower.opname == "STORE_FAST" and module.partition(".")[0] in known):
        return
    if follower is not None and follower.opname == "IMPORT_FROM" and f"{module}:{follower.argval}" in known:
        return
    report.uses.append(Use(IMPORTED, module, (), False, line))


def _read_attribute_store(steps: list[Any], at: int, first: str | None, line: int, report: Report) -> None:
    target = _target(steps, at)
    name = str(steps[at].argval)
    if target is None:
        return
    if target.opname in _NAMES:
        report.stores.append(Store(f"sets '{name}' of the global '{target.argval}'", line))
    elif target.opname in _FREE:
        report.stores.append(Store(f"sets '{name}' of the outer variable '{target.argval}'", line))
    else:
        variable = target.argval[-1] if isinstance(target.argval, tuple) else target.argval
        if variable == first:
            report.self_stores.append(Store(f"sets '{name}' of '{variable}'", line))


def _target(steps: list[Any], at: int) -> Any:
    """What loaded the object whose attribute is stored, if that is plain to see."""
    name = steps[at].argval
    before = steps[at - 1]
    if before.opname in _SWAPS:  # x.name += ...: the object was copied before its attribute was loaded
        for index in range(at - 2, 1, -1):
            if steps[index].opname == "LOAD_ATTR" and steps[index].argval == name:
                if steps[index - 1].opname in _COPIES:
                    before = steps[index - 2]
                break
    while before.opname in _ATTRIBUTES:  # a.b.name = ...: what matters is where the chain begins
        before = steps[steps.index(before) - 1]
    loads = before.opname in _NAMES or before.opname in _FREE or "LOAD_FAST" in before.opname
    return before if loads else None


_READING = frozenset({"r", "rb", "rt", "br", "tr"})


def _read_call(code: CodeType, steps: list[Any], at: int) -> tuple[list[Any], dict[str, Any]] | None:
    """What pushed each argument of the call of what is loaded at `at`, by position and by name; None if that is not plain."""
    pushed: list[Any] = []  # for each value on the stack above the function, what pushed it
    names: tuple[str, ...] = ()
    start = at + 2 if at + 1 < len(steps) and steps[at + 1].opname == "PUSH_NULL" else at + 1
    for step in steps[start:]:
        if step.opname == "KW_NAMES":
            names = code.co_consts[step.arg]
            continue
        if step.opname in _CALLS:
            if step.opname in ("CALL_KW", "CALL_FUNCTION_KW"):
                names = pushed.pop().argval
            if len(pushed) == step.arg:
                plain = pushed[: len(pushed) - len(names)]
                return plain, dict(zip(names, pushed[len(plain) :], strict=True))
            names = ()
            below = 1 if step.opname.startswith("CALL_FUNCTION") else 2
            del pushed[max(0, len(pushed) - step.arg - below) :]
            pushed.append(step)
            continue
        try:
            effect = dis.stack_effect(step.opcode, step.arg, jump=False)
        except ValueError:
            return None
        if effect > 0:
            pushed.extend([step] * effect)
        else:
            if len(pushed) < 1 - effect:
                return None
            del pushed[len(pushed) - 1 + effect :]
            pushed.append(step)
    return None


def _read_open(code: CodeType, steps: list[Any], at: int, line: int, report: Report) -> None:
    """Note a call of ``open`` unless its mode is a constant for reading, or left out."""
    call = _read_call(code, steps, at)
    if call is None or not _is_reading(*call, is_method=steps[at].opname in _ATTRIBUTES):
        report.opens.append(Store("opens a file that it may write", line))


def _is_reading(plain: list[Any], named: dict[str, Any], *, is_method: bool) -> bool:
    if "opener" in named or len(plain) > 6:
        return False
    modes = [*plain[1:2], *([named["mode"]] if "mode" in named else ())]
    if is_method and plain and not modes:
        # Of a module the file comes first, of a path the mode does: a constant tells which it is.
        first = plain[0]
        if _is_constant(first) and isinstance(first.argval, str) and set(first.argval) <= set("rwxabt+U"):
            modes.append(first)
    return all(_is_constant(mode) and mode.argval in _READING for mode in modes)


def _is_constant(step: Any) -> bool:
    return bool(step.opname.startswith(("LOAD_CONST", "RETURN_CONST")))


def digest_of(code: CodeType) -> str:
    """Text that is equal for the same code in two processes, wherever it was compiled from."""
    hasher = blake2b(digest_size=16)

    def add(code: CodeType) -> None:
        hasher.update(code.co_code)
        hasher.update(repr((code.co_names, code.co_varnames, code.co_freevars, code.co_flags)).encode())
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                add(constant)
            else:
                hasher.update((token(constant) or "?").encode("utf-8", "surrogatepass"))

    add(code)
    return hasher.hexdigest()
