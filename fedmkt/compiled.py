"""Loops that numba compiles: at their first call, once per machine, with other threads running meanwhile.

Compiled code is kept on disk by numba (a place to write it is looked for by `fedmkt doctor`). `compiled` takes a
loop on numpy arrays and imports numba when it is first called; `kernel` is for the modules that are imported only
where they are needed and whose loops call one another.
"""

from collections.abc import Callable
from functools import cache, wraps
from typing import ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

Params = ParamSpec("Params")
Result = TypeVar("Result")
Array = TypeVar("Array", bound=NDArray[np.generic])


def kernel(function: Callable[Params, Result], keep: bool = True) -> Callable[Params, Result]:
    """Compile a loop for each kind of argument it is called with.

    keep : store the code on disk; False where it depends on more than its text and the processor.
    """
    # Imported here: numba takes longer to import than the rest of the package.
    import numba

    made: Callable[Params, Result]
    try:
        made = numba.njit(nogil=True, cache=keep)(function)
    except RuntimeError:
        # numba finds no directory that it may write; it compiles anew in each process.
        made = numba.njit(nogil=True)(function)
    return made


def compiled(function: Callable[Params, None]) -> Callable[Params, None]:
    """Compile at the first call, keep the code on disk, and let other threads run meanwhile."""

    @cache
    def fast() -> Callable[Params, None]:
        return kernel(function)

    @wraps(function)
    def call(*args: Params.args, **kwargs: Params.kwargs) -> None:
        fast()(*args, **kwargs)

    return call


def readable(array: Array) -> Array:
    """View an array as one kind of input: read-only, in C order and aligned (copied only where it is not).

    numba compiles anew for every kind, and arrays that come out of messages are often read-only.
    """
    view: Array = np.require(array, requirements=["C", "A"]).view()
    view.flags.writeable = False
    return view
