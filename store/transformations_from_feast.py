"""The row-level transformation of a feature view, as Feast has it: its mode, its function, and what tells it apart.

Feast's registry keeps the function without the module that it was declared in, so whatever it uses has to come with it.
"""

import ast
import builtins
import dis
import io
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import dill
from feast.batch_feature_view import BatchFeatureView
from feast.feature_view import FeatureView
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.stream_feature_view import StreamFeatureView
from feast.transformation.udf_rehydrate import rehydrate_udf_from_source

from store.errors import DefinitionError

PANDAS, PYTHON = MODES = ("pandas", "python")
"""The modes of Feast's whose functions Larder runs."""

_TEXTS_KEPT = 1_000
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def has_transformation(view: Any) -> bool:
    """Whether the rows of a view's source go through a function of the view's; not so of on-demand views."""
    if isinstance(view, OnDemandFeatureView):
        return False
    return getattr(view, "feature_transformation", None) is not None or getattr(view, "udf", None) is not None


def mode_of(view: Any) -> str:
    """Returns the mode of a view's transformation; `feature_transformation` has precedence, as in Feast."""
    mode = getattr(getattr(view, "feature_transformation", None), "mode", None) or view.mode
    return str(getattr(mode, "value", mode))


def function_of(view: Any) -> Callable[[Any], Any]:
    """Returns the function of a view's transformation.

    Raises:
        DefinitionError: it is none that can be called.
    """
    transformation = getattr(view, "feature_transformation", None)
    function = getattr(transformation, "udf", None) if transformation is not None else view.udf
    if not callable(function):
        raise DefinitionError(
            f"feature view {view.name!r}: its transformation has no function that can be called; declare it by Feast's "
            "decorators, or as `udf`, `udf_string` and `mode`"
        )
    return function  # type: ignore[no-any-return]


def takes_a_frame(view: Any) -> bool:
    """Whether a view's function is handed a DataFrame: by mode pandas, or as one that says so of what it takes.

    In mode python, the default, Feast's class for it hands over a dict of lists, as to an on-demand view, but Feast's
    local engine a DataFrame; so a function of that mode is asked, by the annotation of its first parameter.
    """
    if mode_of(view) == PANDAS:
        return True
    annotations = getattr(function_of(view), "__annotations__", {})
    first = next(iter(function_of(view).__code__.co_varnames), "") if hasattr(function_of(view), "__code__") else ""
    said = annotations.get(first)
    return str(getattr(said, "__name__", said)).rpartition(".")[2] == "DataFrame"


def transformation_text(view: Any) -> str:
    """Returns what tells the transformation of a view's source rows from another one; "" for none.

    It is the mode, the function's text without decorators and comments around it, and the values that it brings along.
    Where Feast kept no text that is the function's, its code stands for it.
    """
    if not has_transformation(view):
        return ""
    function = getattr(getattr(view, "feature_transformation", None), "udf", None) or getattr(view, "udf", None)
    texts = (getattr(getattr(view, "feature_transformation", None), "udf_string", ""), getattr(view, "udf_string", ""))
    code = getattr(function, "__code__", None)
    source = _function_text(next(filter(None, texts), "")) or (repr(_code(code)) if code else repr(function))
    brought = sorted((name, _said(value)) for name, value in _brought(function).items()) if code else []
    return f"{mode_of(view)}:{source}" + (f"\n{brought!r}" if brought else "")


def refuse_transformation(view: Any) -> None:
    """Refuses a transformation that Larder does not run.

    Raises:
        DefinitionError: its mode is neither pandas nor python, or there are no source rows for it to go over.
    """
    what = f"feature view {view.name!r} declares a transformation"
    mode = mode_of(view)
    if mode not in MODES:
        raise DefinitionError(
            f"{what} of mode {mode!r}, which Larder does not run; write it as a function of mode 'pandas' or 'python', "
            "or transform in the batch source"
        )
    if getattr(view, "source_views", None):
        raise DefinitionError(
            f"{what} of the rows of other feature views, which Larder does not run; give it the batch source itself"
        )
    if getattr(view, "batch_source", None) is None:
        raise DefinitionError(f"{what} and has no batch source whose rows could go through it; declare one")
    function_of(view)


def registered(view: Any) -> Any:
    """Returns a view as it comes back from the registry, with the function that will run.

    Raises:
        DefinitionError: its function cannot be kept, or cannot be loaded where the repo's modules are not.
    """
    what = f"feature view {view.name!r}: its function"
    try:
        message = view.to_proto()
        for kept in _kept_functions(message.spec):
            _require_free_of(kept, view)
        back = type(view) if isinstance(view, StreamFeatureView) else FeatureView
        return back.from_proto(message)
    except DefinitionError:
        raise
    except (
        Exception
    ) as error:  # Feast and dill run the user's code here; whatever it raises is the declaration's fault.
        raise DefinitionError(
            f"{what} cannot be kept in the registry: {type(error).__name__}: {str(error)[:200]}; import and define all "
            "that it uses inside the function"
        ) from error


def require_self_contained(view: Any) -> None:
    """Checks that the function of a view that came from the registry has all that it uses.

    Raises:
        DefinitionError: it uses a name of the module that it was declared in.
    """
    function = function_of(view)
    known = {**vars(builtins), **getattr(function, "__globals__", {})}
    for name in sorted(_global_names(getattr(function, "__code__", None))):
        if name not in known:
            raise DefinitionError(
                f"feature view {view.name!r}: its function uses {name!r}, which the registry does not keep with it; "
                "import or define it inside the function"
            )


def keep_transformations() -> None:
    """Has every registry of this process keep the functions of views whole, from now on.

    Feast pickles a function of an importable module by its name, which no other process can import, unless it was
    declared by a decorator; and of a stream view it keeps `udf`, but not the `feature_transformation` that has
    precedence. There is no other way: a registry takes the view's message before any plug-in is told of the view.
    """
    for kind, name in ((StreamFeatureView, "to_proto"), (BatchFeatureView, "to_proto_spec")):
        method = getattr(kind, name)
        if not hasattr(method, "keeps_transformations"):
            setattr(kind, name, _keeping(method))


def _keeping(inherited: Callable[..., Any]) -> Callable[..., Any]:
    def to_proto(self: Any, *arguments: Any) -> Any:
        transformation = self.feature_transformation
        function = getattr(transformation, "udf", None) or self.udf
        if hasattr(function, "__module__"):
            # What Feast's decorators do.
            function.__module__ = "__main__"
        if transformation is not None and isinstance(self, StreamFeatureView):
            self.udf, self.udf_string, self.mode = transformation.udf, transformation.udf_string, transformation.mode
        return inherited(self, *arguments)

    to_proto.keeps_transformations = True  # type: ignore[attr-defined]
    return to_proto


@lru_cache(maxsize=_TEXTS_KEPT)
def _function_text(text: str) -> str:
    """Returns the lines of a function in a text, without its decorators; "" if there is none."""
    plain = textwrap.dedent(text)
    try:
        tree = ast.parse(plain)
    except SyntaxError:
        return ""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            return ast.get_source_segment(plain, node) or ""
    return ""


def _code(code: CodeType) -> Any:
    """Returns what a function's code does, alike in each process of one Python version."""
    constants = [_code(value) if isinstance(value, CodeType) else _said(value) for value in code.co_consts]
    return code.co_code.hex(), constants, code.co_names, code.co_varnames[: code.co_argcount]


def _brought(function: Any) -> dict[str, Any]:
    """Returns the values beside its code by which a function answers: defaults, and what it found around itself."""
    code = function.__code__
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    found = {name: cell.cell_contents for name, cell in cells}
    found |= {f"default {place}": value for place, value in enumerate(function.__defaults__ or ())}
    found |= {f"default {name}": value for name, value in (function.__kwdefaults__ or {}).items()}
    for name in _global_names(code):
        if name in function.__globals__ and name not in vars(builtins):
            found[name] = function.__globals__[name]
    return {name: value for name, value in found.items() if not isinstance(value, ModuleType)}


def _said(value: Any) -> str:
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}({', '.join(map(_said, value))})"
    if isinstance(value, set | frozenset):
        return f"set({', '.join(sorted(map(_said, value)))})"
    if isinstance(value, dict):
        return f"dict({', '.join(f'{_said(key)}: {_said(item)}' for key, item in value.items())})"
    code = getattr(value, "__code__", None)
    return repr(_code(code)) if code is not None else f"{type(value).__module__}.{type(value).__qualname__}"


def _global_names(code: CodeType | None) -> set[str]:
    if code is None:
        return set()
    names = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    # Names that a nested function takes from the function around it are no globals.
    return names.union(*(_global_names(inner) for inner in code.co_consts if isinstance(inner, CodeType)))


def _kept_functions(spec: Any) -> Iterator[bytes]:
    """Yields the pickled functions that Feast would load, those that it makes of their text aside."""
    if hasattr(spec, "user_defined_function"):
        yield spec.user_defined_function.body
        return
    kept = spec.feature_transformation.user_defined_function
    if rehydrate_udf_from_source(kept.body_text, preferred_name=kept.name or None) is None:
        yield kept.body


def _require_free_of(pickled: bytes, view: Any) -> None:
    """Refuses a pickled function that needs a module which only the feature repo has."""
    for name in _modules_in(pickled):
        place = getattr(sys.modules.get(name), "__file__", None)
        if place is not None and name != "__main__" and _is_loose(Path(place), name):
            raise DefinitionError(
                f"feature view {view.name!r}: its function uses something of module {name!r} ({place}), which a server "
                "cannot import; import and define all that it uses inside the function, or install the module"
            )


def _modules_in(pickled: bytes) -> set[str]:
    found: set[str] = set()

    class Looking(dill.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            found.add(module)
            return super().find_class(module, name)

    if pickled:
        Looking(io.BytesIO(pickled)).load()
    return found


def _is_loose(place: Path, name: str) -> bool:
    """Whether a module is found only because a folder of the repo is among those that are searched."""
    folder = place.parent if place.name != "__init__.py" else place.parent.parent
    for _ in range(name.count(".")):
        folder = folder.parent
    return (folder / "feature_store.yaml").exists()
