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
from operator import attrgetter
from typing import Any

from mpflow._exec.placement import bytecode, surroundings, trusted
from mpflow._exec.placement.bytecode import FREE, GLOBAL, Use
from mpflow._exec.placement.classes import bases_of, is_compiled, is_plainly_made, made_by, members_of, registered_with
from mpflow._exec.placement.clearance import MISSING, Clearance, Held
from mpflow._exec.placement.objects import fields_of, shown_by
from mpflow._exec.placement.uses import check_names, held_by, imported, variable
from mpflow._exec.placement.values import module_of, parts_of, token

MOST_FUNCTIONS = 2000
_WAYS = {
    "dict": "; a types.MappingProxyType of a dict that has no other name could move",
    "list": "; a tuple could move",
    "set": "; a frozenset could move",
    "Logger": "; executor='process' moves it, and what it logs there is handled here",
    "ndarray": "; after setflags(write=False) it could move",
}
"""What to do about values that are likely to be meant as constants."""
_LOCKS = (type(__import__("threading").Lock()), type(__import__("threading").RLock()))


def walk(source: Any) -> Clearance:
    """Follow everything `source`, a node's callable, reaches. Never raises, runs nothing of the user's."""
    clearance = Clearance()
    clearance.goes_by((surroundings.NUMBERS,))  # a format of any string's may ask for it
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
        self.sees_paths = False

    def finish(self) -> None:
        while self.todo:
            self.todo.pop()()
        if self.sees_paths and self.clearance.moves is not None:
            raise Held(self.clearance.moves)

    def hold(self, what: str, reached: str) -> None:
        raise Held(f"{what}{reached}")

    # -- one thing ----------------------------------------------------------------------------------------------------

    def look(self, value: Any, what: str, reached: str, *, in_with: bool = False) -> None:
        """Let `value` through or raise Held. `what` says what it is, `reached` what led to it."""
        kind = type(value)  # not what it says itself that it is: asking it would run its code
        if kind is types.FunctionType:
            self._function(value, what, reached)
        elif issubclass(kind, type):
            self._class(value, what, reached)
        elif kind is types.MethodType:
            self._method(value, what, reached)
        elif kind in (types.BuiltinFunctionType, types.MethodWrapperType):
            self._builtin(value, what, reached)
        elif kind in (types.WrapperDescriptorType, types.MethodDescriptorType, types.ClassMethodDescriptorType):
            self._class(value.__objclass__, what, reached)
        elif kind is functools.partial:
            self._partial(value, what, reached)
        elif kind in (staticmethod, classmethod):
            self.look(value.__func__, what, reached)
        elif issubclass(kind, types.ModuleType):
            self.hold(f"{what} is the module '{value.__name__}', handed about as a value", reached)
        elif kind in _LOCKS:
            if not in_with:
                self.hold(f"{what} is a lock that is not only entered by 'with'", reached)
            self.clearance.note(what, "a lock")
        else:
            self._value(value, what, reached)

    def _value(self, value: Any, what: str, reached: str) -> None:
        text = token(value)
        if text is not None:
            if module_of(type(value)) not in ("builtins", "typing"):
                self._class(type(value), f"the class of {what}", reached, is_outside=True)
            self.clearance.note(what, text)
            for part in parts_of(value):
                self.look(part, f"a part of {what}", reached)
            return
        kind = type(value)
        module = module_of(kind)
        if kind.__name__ == "ufunc" and module == "numpy":
            if not _is_of_numpy(value):
                self.hold(f"{what} is a ufunc made of a function, which cannot be read", reached)
            self.clearance.note(what, f"ufunc {value.__name__}")
            self._goes_by("numpy", kind.__name__)
            return
        if module == "numpy" and kind.__name__ in ("_ArrayFunctionDispatcher",):
            self._known(value, what, reached)
            return
        if kind is types.MappingProxyType:
            self._proxy(value, what, reached)
            return
        if issubclass(kind, tuple) and not hasattr(value, "__dict__"):
            self.clearance.note(what, f"{kind.__qualname__} of {len(value)}")
            if kind is not tuple:
                self._class(kind, f"the class of {what}", reached)
            for index, part in enumerate(value):
                self.look(part, f"part {index} of {what}", reached)
            return
        state = fields_of(value)
        if state is None:
            way = _WAYS.get(kind.__name__, "")
            self.hold(f"{what} is {_a(kind.__qualname__)}, which can change{reached}{way}", "")
        else:
            self._instance(value, state, what, reached)

    def _partial(self, value: functools.partial[Any], what: str, reached: str) -> None:
        self.look(value.func, f"{what}, a partial,", reached)
        for part in (*value.args, *value.keywords.values()):
            self.look(part, f"an argument of {what}, a partial,", reached)
        for name, part in vars(value).items():
            self.look(part, f"the attribute '{name}' of {what}, a partial,", reached)
            self.clearance.bind(vars(value), name, part)
        self.clearance.watch(vars(value))

    def _proxy(self, value: types.MappingProxyType[Any, Any], what: str, reached: str) -> None:
        """As good as a value, if it is the only way to its dict."""
        shown = shown_by(value)
        if shown is None:
            self.hold(f"{what} is a mappingproxy of a dict that others hold too, and so can change", reached)
        self.clearance.note(what, f"mappingproxy of {list(value)!r}")
        for key, part in value.items():
            self.look(key, f"a key of {what}", reached)
            self.look(part, f"{what}[{key!r}]", reached)

    def _instance(self, value: Any, state: Mapping[str, Any], what: str, reached: str) -> None:
        """An object of a class of the user's: as good as a value if nothing in it can change and no method sets anything."""
        if id(value) in self.seen:
            return
        self.seen[id(value)] = value
        self.clearance.watch(state)
        for name, part in state.items():
            if module_of(type(part)) == "builtins" and token(part) is None and not callable(part):
                if not issubclass(type(part), (tuple, types.MappingProxyType)):
                    self.hold(f"{what} holds '{name}', {_a(type(part).__qualname__)}, which can change", reached)
            self.look(part, f"'{name}' of {what}", reached)
            self.clearance.bind(state, name, part)
        self._class(type(value), f"the class of {what}", reached, is_outside=True)

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
            self.clearance.note(what, f"{value.__name__} of {token(owner)}")

    # -- code of others ------------------------------------------------------------------------------------------------

    def _by_name(self, module: str, name: str, what: str, reached: str) -> None:
        if module == "builtins":
            if name not in trusted.BUILTINS and not _is_exception(getattr(builtins, name, None)):
                self.hold(f"{what} is '{name}'", reached)
        elif not trusted.is_known(module):
            self.hold(f"{what} is '{module}.{name}', compiled code that cannot be read", reached)
        elif not trusted.allows(module, name):
            self.hold(f"{what} is '{module}.{name}', which may keep or see state of this process", reached)
        self._goes_by(module, name)
        self.clearance.note(what, f"{module}.{name}")

    def _goes_by(self, module: str, name: str) -> None:
        self.clearance.goes_by(surroundings.of_code(module, name))
        self.sees_paths = self.sees_paths or module.partition(".")[0] == "pathlib"

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
        self.clearance.note(f"the code of {name}", bytecode.digest_of(function.__code__))
        self.todo.append(lambda: self._read(function, f", which {name} uses", self_is_outside))

    def _read(self, function: types.FunctionType, reached: str, self_is_outside: bool) -> None:
        report = bytecode.read(function.__code__)
        name = function.__qualname__
        for store in (*report.stores, *report.opens, *(report.self_stores if self_is_outside else ())):
            raise Held(f"{name} {store.what} (line {store.line})")
        check_names(report, name, self.clearance)
        for module, line in report.imports:
            if module not in sys.modules:
                raise Held(f"{name} imports '{module}' (line {line}), which is not loaded")
            self.clearance.imports[module] = None
        for index, value in enumerate(function.__defaults__ or ()):
            self.look(value, f"default {index} of {name}", "")
        for key, value in (function.__kwdefaults__ or {}).items():
            self.look(value, f"the default of '{key}' of {name}", "")
        for key, value in function.__dict__.items():
            self.look(value, f"the attribute '{key}' of {name}", "")
            self.clearance.bind(function.__dict__, key, value)
        self.clearance.watch(function.__dict__)
        for use in report.uses:
            self._use(function, use, name, reached)

    def _use(self, function: types.FunctionType, use: Use, name: str, reached: str) -> None:
        if use.kind == GLOBAL:
            what = f"the global '{use.name}'"
            namespace = function.__globals__
            if use.name in namespace:
                value = namespace[use.name]
                self.clearance.bind(namespace, use.name, value)
            elif hasattr(builtins, use.name):
                self.clearance.bind(namespace, use.name, MISSING)
                self._by_name("builtins", use.name, what, f", which {name} uses (line {use.line})")
                return
            else:
                raise Held(f"{what}, which {name} uses (line {use.line}), is not there yet")
        elif use.kind == FREE:
            what = f"the variable '{use.name}'"
            value = variable(function, use, name, self.clearance)
            if use.name == "__class__":
                self.look(value, f"the class of {name}", "")
                return
        else:
            what = f"the import '{use.name.replace(':', '.')}'"
            value = imported(use, name, self.clearance)
        if not use.attributes and getattr(value, "__name__", None) in bytecode.OPENERS and value.__name__ != use.name:
            if trusted.is_standard(value.__module__ or ""):
                raise Held(f"{what}, which {name} uses (line {use.line}), is '{value.__name__}' by another name")
        self._chain(value, use, what, f", which {name} uses (line {use.line})")

    def _chain(self, value: Any, use: Use, what: str, reached: str) -> None:
        """Follow attributes through modules; what comes after is covered by looking at the thing they lead to."""
        for attribute in use.attributes:
            if not issubclass(type(value), types.ModuleType):
                break
            module = value
            value = held_by(module, attribute)
            if value is MISSING:
                raise Held(f"'{module.__name__}.{attribute}'{reached}, is not there, or made when it is asked for")
            self.clearance.bind(vars(module), attribute, value)
            what = f"'{module.__name__}.{attribute}'"
            if trusted.is_known(module.__name__) and not isinstance(value, types.ModuleType):
                owner = getattr(value, "__module__", None)
                if not trusted.is_known(owner or module.__name__) or token(value) is not None:
                    break
                if not callable(value):
                    if not trusted.allows(module.__name__, attribute) or not _is_steady(value):
                        self.hold(f"{what} is {_a(type(value).__qualname__)}, which can change", reached)
                    self.clearance.note(what, "steady")
                    return
                if trusted.allows(module.__name__, attribute):
                    self.clearance.note(what, "known")
                    self._goes_by(module.__name__, attribute)
                    if attribute != "open":
                        return
        self.look(value, what, reached, in_with=use.in_with)

    # -- classes ------------------------------------------------------------------------------------------------------

    def _class(self, kind: type, what: str, reached: str, *, is_outside: bool = False) -> None:
        key = id(kind) ^ is_outside
        if key in self.seen:
            return
        self.seen[key] = kind
        module = module_of(kind)
        if module == "builtins":
            if kind.__name__ not in trusted.BUILTINS and not issubclass(kind, BaseException):
                if not hasattr(types, kind.__name__) and kind.__name__ not in ("NoneType", "function", "module"):
                    self.hold(f"{what} is '{kind.__name__}'", reached)
            return
        if trusted.is_known(module):
            if not _is_exception(kind):
                self._by_name(module, kind.__qualname__, what, reached)
            return
        if is_compiled(kind):
            self.hold(f"{what} is compiled code that cannot be read", reached)
        if not is_plainly_made(kind):
            self.hold(f"{what} has the metaclass '{type(kind).__qualname__}'", reached)
        self.clearance.note(f"the class {kind.__qualname__}", f"{module}.{kind.__qualname__}")
        if registered := registered_with(kind):
            self.clearance.note(f"what is registered with {kind.__qualname__}", ", ".join(registered))
        self.todo.append(lambda: self._class_body(kind, is_outside))

    def _class_body(self, kind: type, is_outside: bool) -> None:
        for base in bases_of(kind):
            self._class(base, f"a base of {kind.__qualname__}", "", is_outside=is_outside)
        namespace = kind.__dict__
        self.clearance.watch(namespace)
        for name, value in made_by(kind):
            self.look(value, f"'{name}' of the class {kind.__qualname__}", "")
        if issubclass(kind, enum.Enum):
            is_outside = True  # its members are there already
            for member in kind.__members__.values():
                self._instance(member, member.__dict__, f"{kind.__qualname__}.{member.name}", "")
        for name, value in members_of(kind):
            self.clearance.bind(namespace, name, value)
            what = f"'{name}' of the class {kind.__qualname__}"
            form = type(value)
            if form in (types.MemberDescriptorType, types.GetSetDescriptorType):
                continue
            if form in (staticmethod, classmethod):
                value = value.__func__
            if type(value) is types.FunctionType:
                # It exists already: its constructor will not be called on it again.
                is_constructor = name in ("__init__", "__new__", "__post_init__")
                self._function(value, what, "", self_is_outside=is_outside and not is_constructor)
            elif form is property:
                for part in (value.fget, value.fset, value.fdel):
                    if isinstance(part, types.FunctionType):
                        self._function(part, what, "", self_is_outside=is_outside)
            elif form is functools.cached_property:
                if is_outside:
                    self.hold(f"{what} keeps what it computes (cached_property)", "")
                self.look(value.func, what, "")
            elif form.__name__ == "_tuplegetter" or (name.startswith("__") and value is None):
                continue
            else:
                self.look(value, what, "")


def _is_of_its_module(function: types.FunctionType) -> bool:
    """Whether a function that says it is of a known module is what that module has under its name."""
    module: Any = sys.modules.get(function.__module__ or "")
    # Packages name the one that users import in the place of the one that holds the code.
    written_in = str(function.__globals__.get("__name__"))
    if module is None or written_in.partition(".")[0] != function.__module__.partition(".")[0]:
        return False
    try:
        found = attrgetter(function.__qualname__)(module)
    except AttributeError:  # a closure, or a function under another name
        return function.__globals__ is vars(module) and not function.__closure__
    return found is function


def _is_of_numpy(ufunc: Any) -> bool:
    return any(
        vars(sys.modules[name]).get(ufunc.__name__) is ufunc
        for name in ("numpy", "scipy.special")
        if name in sys.modules
    )


def _is_exception(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def _is_steady(value: Any) -> bool:
    return module_of(type(value)) != "builtins" or type(value) in (frozenset, tuple)


def _a(name: str) -> str:
    return f"an {name}" if name[:1] in "aeiouAEIOU" else f"a {name}"
