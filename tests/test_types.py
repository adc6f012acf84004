"""Type hints: none is missing on what is public."""

import inspect

import atent_keras as ak

NAMED = [getattr(ak, name) for name in ak.__all__]
MODULES = [ak, ak.evaluation, *filter(inspect.ismodule, NAMED)]


def public(module):
    """The functions and classes that a public module is there for."""
    names = getattr(module, "__all__", None) or [
        name
        for name, one in vars(module).items()
        if not name.startswith("_")
        and getattr(one, "__module__", None) == module.__name__
    ]
    return filter(callable, (getattr(module, name) for name in names))


def own_functions(kind):
    """The public methods and properties of a class, its bases' among them.

    What Keras declares, such as `train_step`, has Keras's signature.
    """
    bases = inspect.getmro(kind)
    ours = [one for one in bases if one.__module__.startswith("atent_keras.")]
    others = [one for one in bases if one not in ours]
    for one in ours:
        for name, member in vars(one).items():
            called = name in ("__init__", "__call__")
            private = name.startswith("_") and not called
            declared = any(name in vars(other) for other in others)
            if private or (declared and not called):
                continue
            if isinstance(member, property):
                member = member.fget
            member = inspect.unwrap(getattr(member, "__func__", member))
            if inspect.isfunction(member):
                yield member


def missing(function):
    """The arguments of a function that have no type, and `return`."""
    signature = inspect.signature(function)
    names = [
        name
        for place, (name, one) in enumerate(signature.parameters.items())
        if one.annotation is one.empty
        and not (place == 0 and name in ("self", "cls"))
    ]
    if signature.return_annotation is signature.empty:
        names.append("return")
    return names


def test_everything_public_has_types():
    functions = set()
    for module in MODULES:
        for one in public(module):
            if inspect.isclass(one):
                functions.update(own_functions(one))
            else:
                functions.add(inspect.unwrap(one))
    bare = {
        f"{one.__module__}.{one.__qualname__}": missing(one)
        for one in functions
        if one.__module__.startswith("atent_keras.") and missing(one)
    }
    assert len(functions) > 100
    assert bare == {}
