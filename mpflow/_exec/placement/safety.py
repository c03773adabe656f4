"""The safety walk: whether a node gives the same result, and leaves the same behind, in another process.

It follows everything a node's function reaches from its own names: cells, defaults, globals, attributes of modules, the
bound instance, classes with their methods. Modules, functions, classes and values that can never change are let through;
the first thing that is none of these holds the node, and is named. Functions are read (`bytecode`), never run.
What it found is kept: as `entries`, to be compared with what a worker finds, and as bindings, to see that none was rebound.
"""

from __future__ import annotations

import builtins
import enum
import functools
import sys
import types
from collections.abc import Callable, Mapping
from hashlib import blake2b
from operator import attrgetter
from typing import Any

from mpflow._exec.placement import bytecode, trusted
from mpflow._exec.placement.bytecode import FREE, GLOBAL, Report, Use
from mpflow._exec.placement.values import token

MOST_FUNCTIONS = 2000
_MISSING: Any = object()
_LOCKS = (type(__import__("threading").Lock()), type(__import__("threading").RLock()))
_METACLASSES = frozenset(
    {"type", "ABCMeta", "EnumMeta", "EnumType", "_TypedDictMeta", "NamedTupleMeta", "ModelMetaclass"}
)
_CLASS_EXTRAS = frozenset(
    [
        "__module__",
        "__doc__",
        "__dict__",
        "__weakref__",
        "__annotations__",
        "__annotate__",
        "__annotate_func__",
        "__annotations_cache__",
        "__qualname__",
        "__slots__",
        "__dataclass_fields__",
        "__dataclass_params__",
        "__match_args__",
        "__firstlineno__",
        "__static_attributes__",
        "__type_params__",
        "__orig_bases__",
        "__parameters__",
        "__abstractmethods__",
        "_abc_impl",
        "__required_keys__",
        "__optional_keys__",
        "__readonly_keys__",
        "__mutable_keys__",
        "__total__",
        "__hash__",
        "__signature__",
        "_fields",
        "_field_defaults",
        "_field_types",
        "__extra_items__",
        "__closed__",
        "__replace__",
        "__classcell__",
    ]
)
_MODEL_EXTRAS = ("__pydantic_", "model_", "__private_attributes__", "__class_vars__", "_abc_")
_ENUM_EXTRAS = (
    "_member",
    "_value",
    "_unhashable",
    "_hashable",
    "_use_args",
    "_new_member",
    "_generate",
    "_flag",
    "_singles",
    "_all_bits",
    "_boundary",
    "_inverted",
    "__new__",
)


class Held(Exception):
    """Something was found that keeps a node where it is. The message names it and what reached it."""


class Clearance:
    """What a walk found. ``held`` is the reason to stay, or None."""

    __slots__ = ("_bindings", "_cells", "_sizes", "entries", "held", "reads_files")

    def __init__(self) -> None:
        self.held: str | None = None
        self.entries: dict[str, str] = {}
        """With each thing that was let through, text that a walk in another process must come to as well."""
        self.reads_files = False
        self._bindings: list[tuple[Mapping[str, Any], str, Any]] = []
        self._cells: list[tuple[Any, Any]] = []
        self._sizes: list[tuple[Any, int]] = []

    def changed(self) -> str | None:
        """The name of a global, attribute or variable that is another object than when the walk met it; else None."""
        for namespace, name, value in self._bindings:
            if namespace.get(name, _MISSING) is not value:
                return name
        for namespace, size in self._sizes:
            if len(namespace) != size:
                return str(next(reversed(namespace), "an attribute"))
        for cell, value in self._cells:
            try:
                if cell.cell_contents is not value:
                    return "a variable of an outer function"
            except ValueError:
                return "a variable of an outer function"
        return None

    def digest(self) -> str:
        """Of the entries: equal for the same code and constants."""
        return blake2b(repr(sorted(self.entries.items())).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def difference(self, other: Mapping[str, str]) -> str | None:
        """The name of the first thing that another walk, of the same node, saw otherwise; None if they agree."""
        for name, text in self.entries.items():
            if other.get(name) != text:
                return name
        return next((name for name in other if name not in self.entries), None)


def walk(source: Any) -> Clearance:
    """Follow everything `source`, a node's callable, reaches. Never raises, runs nothing of the user's."""
    clearance = Clearance()
    walker = _Walker(clearance)
    try:
        walker.look(source, "it", "")
        walker.finish()
    except Held as held:
        clearance.held = str(held)
    except Exception as error:  # an attribute that raises when it is looked at, say
        clearance.held = f"it cannot be looked through ({type(error).__name__}: {error})"
    return clearance


class _Walker:
    """One walk. Functions and classes wait in a queue, so that depth is no limit."""

    def __init__(self, clearance: Clearance) -> None:
        self.clearance = clearance
        self.todo: list[Callable[[], None]] = []
        self.seen: dict[int, Any] = {}
        self.names: dict[str, int] = {}

    def finish(self) -> None:
        while self.todo:
            self.todo.pop()()

    def hold(self, what: str, reached: str) -> None:
        raise Held(f"{what}{reached}")

    # -- one thing ----------------------------------------------------------------------------------------------------

    def look(self, value: Any, what: str, reached: str, *, in_with: bool = False) -> None:
        """Let `value` through or raise Held. `what` says what it is, `reached` what led to it."""
        if isinstance(value, types.FunctionType):
            self._function(value, what, reached)
        elif isinstance(value, type):
            self._class(value, what, reached)
        elif isinstance(value, types.MethodType):
            self._method(value, what, reached)
        elif isinstance(value, (types.BuiltinFunctionType, types.MethodWrapperType)):
            self._builtin(value, what, reached)
        elif isinstance(
            value, (types.WrapperDescriptorType, types.MethodDescriptorType, types.ClassMethodDescriptorType)
        ):
            self._class(value.__objclass__, what, reached)
        elif isinstance(value, functools.partial):
            self.look(value.func, f"{what}, a partial,", reached)
            for part in (*value.args, *value.keywords.values()):
                self.look(part, f"an argument of {what}, a partial,", reached)
        elif isinstance(value, (staticmethod, classmethod)):
            self.look(value.__func__, what, reached)
        elif isinstance(value, types.ModuleType):
            self.hold(f"{what} is the module '{value.__name__}', handed about as a value", reached)
        elif isinstance(value, _LOCKS):
            if not in_with:
                self.hold(f"{what} is a lock that is not only entered by 'with'", reached)
            self._note(what, "a lock")
        else:
            self._value(value, what, reached)

    def _value(self, value: Any, what: str, reached: str) -> None:
        text = token(value)
        if text is not None:
            if type(value).__module__ not in ("builtins", "typing"):
                self._once(type(value), lambda: self._class(type(value), f"the class of {what}", reached))
            self._note(what, text)
            if isinstance(value, (tuple, frozenset)):
                # A set's order is another in each process.
                parts = value if isinstance(value, tuple) else sorted(value, key=_name_of)
                for part in parts:
                    if isinstance(part, (type, types.FunctionType, types.BuiltinFunctionType)):
                        self.look(part, f"a part of {what}", reached)
            return
        kind = type(value)
        module = kind.__module__ or ""
        if type(value).__name__ == "ufunc" and module == "numpy":
            self._note(what, f"ufunc {value.__name__}")
            return
        if module == "numpy" and kind.__name__ in ("_ArrayFunctionDispatcher",):
            self._known(value, what, reached)
            return
        if trusted.is_known(module) or not _has_plain_state(value):
            self.hold(f"{what} is {_a(kind.__qualname__)}, which can change", reached)
        self._instance(value, kind, what, reached)

    def _instance(self, value: Any, kind: type, what: str, reached: str) -> None:
        """An object of a class of the user's: as good as a value if nothing in it can change and no method sets anything."""
        if id(value) in self.seen:
            return
        self.seen[id(value)] = value
        if "__setitem__" in kind.__dict__ or "__slots__" in kind.__dict__ or kind.__mro__[1:-1]:
            if any(base.__module__ == "builtins" for base in kind.__mro__[:-1]):
                self.hold(f"{what} is {_a(kind.__qualname__)}, which can change", reached)
        state = value.__dict__
        self._watch(state)
        for name, part in state.items():
            if token(part) is None and not isinstance(part, (type, types.FunctionType, types.BuiltinFunctionType)):
                self.hold(f"{what} holds '{name}', {_a(type(part).__qualname__)}, which can change", reached)
            self.look(part, f"'{name}' of {what}", reached)
            self._bind(state, name, part)
        self._class(kind, f"the class of {what}", reached, is_outside=True)

    def _method(self, value: types.MethodType, what: str, reached: str) -> None:
        owner = value.__self__
        if isinstance(owner, type):
            self.look(owner, f"the class of {what}", reached)
        else:
            self.look(owner, f"the object that {what} is bound to", reached)
        self.look(value.__func__, what, reached)

    def _builtin(self, value: Any, what: str, reached: str) -> None:
        owner = getattr(value, "__self__", None)
        if owner is None or isinstance(owner, types.ModuleType):
            module = value.__module__ or getattr(owner, "__name__", "") or ""
            self._by_name(module, value.__name__, what, reached)
        elif isinstance(owner, type):
            self._class(owner, what, reached)
        elif token(owner) is None:
            self.hold(f"{what} is a method of {_a(type(owner).__qualname__)}, which can change", reached)
        else:
            self._note(what, f"{value.__name__} of {token(owner)}")

    # -- code of others ------------------------------------------------------------------------------------------------

    def _by_name(self, module: str, name: str, what: str, reached: str) -> None:
        if module == "builtins":
            if name not in trusted.BUILTINS and not _is_exception(getattr(builtins, name, None)):
                self.hold(f"{what} is '{name}'", reached)
        elif not trusted.is_known(module):
            self.hold(f"{what} is '{module}.{name}', compiled code that cannot be read", reached)
        elif not trusted.allows(module, name):
            self.hold(f"{what} is '{module}.{name}', which may keep or see state of this process", reached)
        if module in ("os", "posix", "glob", "tokenize") or name == "open":
            self.clearance.reads_files = True
        self._note(what, f"{module}.{name}")

    def _known(self, value: Any, what: str, reached: str) -> None:
        self._by_name(value.__module__ or "", getattr(value, "__qualname__", None) or value.__name__, what, reached)

    # -- functions ----------------------------------------------------------------------------------------------------

    def _function(
        self, function: types.FunctionType, what: str, reached: str, *, self_is_outside: bool = False
    ) -> None:
        module = function.__module__ or ""
        if trusted.is_known(module) and _is_of_its_module(function):
            self._known(function, what, reached)
            return
        key = id(function) ^ self_is_outside
        if key in self.seen:
            return
        self.seen[key] = function
        if len(self.seen) > MOST_FUNCTIONS:
            self.hold("it reaches more code than can be looked through", "")
        name = function.__qualname__
        self._note(f"the code of {name}", digest_of(function.__code__))
        self.todo.append(lambda: self._read(function, f", which {name} uses", self_is_outside))

    def _read(self, function: types.FunctionType, reached: str, self_is_outside: bool) -> None:
        report = bytecode.read(function.__code__)
        name = function.__qualname__
        for store in (*report.stores, *report.opens, *(report.self_stores if self_is_outside else ())):
            raise Held(f"{name} {store.what} (line {store.line})")
        self._check_names(report, name)
        for module, line in report.imports:
            if module not in sys.modules:
                raise Held(f"{name} imports '{module}' (line {line}), which is not loaded")
        for index, value in enumerate(function.__defaults__ or ()):
            self.look(value, f"default {index} of {name}", "")
        for key, value in (function.__kwdefaults__ or {}).items():
            self.look(value, f"the default of '{key}' of {name}", "")
        for key, value in function.__dict__.items():
            self.look(value, f"the attribute '{key}' of {name}", "")
        self._watch(function.__dict__)
        for use in report.uses:
            self._use(function, use, name, reached)

    def _check_names(self, report: Report, name: str) -> None:
        for attribute in report.attributes:
            if attribute in trusted.REACHING:
                raise Held(f"{name} looks at '{attribute}'")
            if attribute in trusted.WRITING:
                raise Held(f"{name} calls '{attribute}', which writes outside")
        if any(
            use.name in ("getattr", "attrgetter", "methodcaller") or "attrgetter" in use.attributes
            for use in report.uses
        ):
            for text in report.strings & (trusted.REACHING | trusted.WRITING):
                raise Held(f"{name} names '{text}'")

    def _use(self, function: types.FunctionType, use: Use, name: str, reached: str) -> None:
        if use.kind == GLOBAL:
            what = f"the global '{use.name}'"
            namespace = function.__globals__
            if use.name in namespace:
                value = namespace[use.name]
                self._bind(namespace, use.name, value)
            elif hasattr(builtins, use.name):
                self._bind(namespace, use.name, _MISSING)
                self._by_name("builtins", use.name, what, f", which {name} uses (line {use.line})")
                return
            else:
                raise Held(f"{what}, which {name} uses (line {use.line}), is not there yet")
        elif use.kind == FREE:
            what = f"the variable '{use.name}'"
            found = self._free(function, use, name)
            if found is _MISSING:
                return
            value = found
        else:
            what = f"the import '{use.name.replace(':', '.')}'"
            value = self._imported(use, name)
        self._chain(value, use, what, f", which {name} uses (line {use.line})")

    def _free(self, function: types.FunctionType, use: Use, name: str) -> Any:
        names = function.__code__.co_freevars
        cells = function.__closure__ or ()
        try:
            cell = cells[names.index(use.name)]
            value = cell.cell_contents
        except ValueError:
            raise Held(f"the variable '{use.name}', which {name} uses (line {use.line}), is not assigned yet") from None
        if use.name == "__class__":  # for super()
            self.look(value, f"the class of {name}", "")
            return _MISSING
        self.clearance._cells.append((cell, value))
        return value

    def _imported(self, use: Use, name: str) -> Any:
        module_name, _, attribute = use.name.partition(":")
        module = sys.modules.get(module_name)
        if module is None:
            raise Held(f"{name} imports '{module_name}' (line {use.line}), which is not loaded")
        if not attribute:
            return module
        value = getattr(module, attribute, _MISSING)
        if value is _MISSING:
            raise Held(f"{name} imports '{attribute}' of '{module_name}' (line {use.line}), which is not there")
        self._bind(vars(module), attribute, value)
        return value

    def _chain(self, value: Any, use: Use, what: str, reached: str) -> None:
        """Follow attributes through modules; what comes after is covered by looking at the thing they lead to."""
        for attribute in use.attributes:
            if not isinstance(value, types.ModuleType):
                break
            module = value
            try:
                value = getattr(module, attribute)
            except AttributeError:
                raise Held(f"'{module.__name__}.{attribute}'{reached}, is not there") from None
            self._bind(vars(module), attribute, value)
            what = f"'{module.__name__}.{attribute}'"
            if trusted.is_known(module.__name__) and not isinstance(value, types.ModuleType):
                owner = getattr(value, "__module__", None)
                if not trusted.is_known(owner or module.__name__) or token(value) is not None:
                    break
                if not callable(value):
                    if not trusted.allows(module.__name__, attribute) or not _is_steady(value):
                        self.hold(f"{what} is {_a(type(value).__qualname__)}, which can change", reached)
                    self._note(what, "steady")
                    return
                if trusted.allows(module.__name__, attribute):
                    self._note(what, "known")
                    if module.__name__ in ("os", "posix", "glob", "os.path", "posixpath"):
                        self.clearance.reads_files = True
                    if attribute != "open":
                        return
        self.look(value, what, reached, in_with=use.in_with)

    # -- classes ------------------------------------------------------------------------------------------------------

    def _class(self, kind: type, what: str, reached: str, *, is_outside: bool = False) -> None:
        key = id(kind) ^ is_outside
        if key in self.seen:
            return
        self.seen[key] = kind
        module = kind.__module__ or ""
        if module == "builtins":
            if kind.__name__ not in trusted.BUILTINS and not issubclass(kind, BaseException):
                if not hasattr(types, kind.__name__) and kind.__name__ not in ("NoneType", "function", "module"):
                    self.hold(f"{what} is '{kind.__name__}'", reached)
            return
        if trusted.is_known(module):
            if not _is_exception(kind):
                self._by_name(module, kind.__qualname__, what, reached)
            return
        if type(kind).__name__ not in _METACLASSES:
            self.hold(f"{what} has the metaclass '{type(kind).__qualname__}'", reached)
        self._note(f"the class {kind.__qualname__}", f"{module}.{kind.__qualname__}")
        self.todo.append(lambda: self._class_body(kind, is_outside))

    def _class_body(self, kind: type, is_outside: bool) -> None:
        skipped = _ENUM_EXTRAS if issubclass(kind, enum.Enum) else _MODEL_EXTRAS
        for base in kind.__bases__:
            if base.__module__ == "pydantic.main" or base is object or base.__module__ in ("typing", "enum", "abc"):
                continue
            self._class(base, f"a base of {kind.__qualname__}", "", is_outside=is_outside)
        namespace = kind.__dict__
        is_dataclass = "__dataclass_params__" in namespace
        self._watch(namespace)
        for name, value in list(namespace.items()):
            if name in _CLASS_EXTRAS or name.startswith(skipped) or isinstance(value, kind):
                continue
            if is_dataclass and _is_generated(value):
                continue
            self._bind(namespace, name, value)
            what = f"'{name}' of the class {kind.__qualname__}"
            if isinstance(value, (types.MemberDescriptorType, types.GetSetDescriptorType)):
                continue
            if isinstance(value, (staticmethod, classmethod)):
                value = value.__func__
            if isinstance(value, types.FunctionType):
                # It exists already: its constructor will not be called on it again.
                is_constructor = name in ("__init__", "__new__", "__post_init__")
                self._function(value, what, "", self_is_outside=is_outside and not is_constructor)
            elif isinstance(value, property):
                for part in (value.fget, value.fset, value.fdel):
                    if isinstance(part, types.FunctionType):
                        self._function(part, what, "", self_is_outside=is_outside)
            elif isinstance(value, functools.cached_property):
                if is_outside:
                    self.hold(f"{what} keeps what it computes (cached_property)", "")
                self.look(value.func, what, "")
            elif type(value).__name__ == "_tuplegetter" or (name.startswith("__") and value is None):
                continue
            else:
                self.look(value, what, "")

    # -- books --------------------------------------------------------------------------------------------------------

    def _once(self, key: Any, do: Callable[[], None]) -> None:
        if id(key) not in self.seen:
            do()

    def _note(self, name: str, text: str) -> None:
        count = self.names[name] = self.names.get(name, 0) + 1
        if len(text) > 200:
            text = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        self.clearance.entries[f"{name} #{count}" if count > 1 else name] = text

    def _watch(self, namespace: Any) -> None:
        self.clearance._sizes.append((namespace, len(namespace)))

    def _bind(self, namespace: Any, name: str, value: Any) -> None:
        self.clearance._bindings.append((namespace, name, value))


def digest_of(code: types.CodeType) -> str:
    """Text that is equal for the same code in two processes, wherever it was compiled from."""
    hasher = blake2b(digest_size=16)

    def add(code: types.CodeType) -> None:
        hasher.update(code.co_code)
        hasher.update(repr((code.co_names, code.co_varnames, code.co_freevars, code.co_flags)).encode())
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                add(constant)
            else:
                hasher.update((token(constant) or "?").encode("utf-8", "surrogatepass"))

    add(code)
    return hasher.hexdigest()


def _is_of_its_module(function: types.FunctionType) -> bool:
    """Whether a function that says it is of a known module is what that module has under its name."""
    module: Any = sys.modules.get(function.__module__ or "")
    if module is None or function.__globals__ is not vars(module):
        return False
    try:
        found = attrgetter(function.__qualname__)(module)
    except AttributeError:  # a closure, or a function under another name
        return True
    return found is function


def _has_plain_state(value: Any) -> bool:
    return type(value).__module__ != "builtins" and type(getattr(value, "__dict__", None)) is dict


def _name_of(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"


def _is_generated(value: Any) -> bool:
    """Whether the dataclass decorator wrote this method."""
    value = getattr(value, "__wrapped__", value)
    return isinstance(value, types.FunctionType) and value.__code__.co_filename == "<string>"


def _is_exception(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def _is_steady(value: Any) -> bool:
    return type(value).__module__ not in ("builtins",) or type(value) in (frozenset, tuple)


def _a(name: str) -> str:
    return f"an {name}" if name[:1] in "aeiouAEIOU" else f"a {name}"
