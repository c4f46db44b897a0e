"""Compile the kernels before a test starts: the tests of pure layers run without a disk."""

import pytest

from fedmkt.ring import exponential, kernels, sigmoid


@pytest.fixture(scope="session", autouse=True)
def _compiled_kernels() -> None:
    kernels.compile_all()
    sigmoid.compile_all()
    exponential.compile_all()
