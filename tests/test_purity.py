import importlib.util
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

IMPURE = {
    "file_for_writing": "def act(path):\n    open(path, 'w').close()",
    "file_for_reading": "def act(path):\n    open('/etc/hostname').close()",
    "file_by_pathlib": "from pathlib import Path\ndef act(path):\n    Path('/etc/hostname').read_text()",
    "file_by_os": "import os\ndef act(path):\n    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))",
    "file_by_a_library": "import numpy\ndef act(path):\n    numpy.save(path, numpy.zeros(1))",
    "folder": "import os\ndef act(path):\n    os.mkdir(path)",
    "process": "import subprocess\ndef act(path):\n    subprocess.run(['true'])",
    "socket": "import socket\ndef act(path):\n    socket.socket().close()",
    "connection": "import socket\ndef act(path):\n    socket.create_connection(('127.0.0.1', 9))",
    "name_lookup": "import socket\ndef act(path):\n    socket.getaddrinfo('localhost', 80)",
    "time": "import time\ndef act(path):\n    time.time()",
    "time_by_name": "from time import time\ndef act(path):\n    time()",
    "monotonic": "import time\ndef act(path):\n    time.monotonic()",
    "now": "import datetime\ndef act(path):\n    datetime.datetime.now()",
    "now_by_name": "from datetime import UTC, datetime\ndef act(path):\n    datetime.now(UTC)",
    "today": "from datetime import date\ndef act(path):\n    date.today()",
    "random": "import random\ndef act(path):\n    random.random()",
    "random_by_name": "from random import shuffle\ndef act(path):\n    shuffle([1, 2])",
    "numpy_global": "import numpy as np\ndef act(path):\n    np.random.rand(2)",
    "numpy_global_seed": "import numpy as np\ndef act(path):\n    np.random.seed(1)",
    "numpy_from_the_system": "import numpy as np\ndef act(path):\n    np.random.default_rng()",
}
PURE = {
    "seeded_numpy": "import numpy as np\ndef act(path):\n    np.random.default_rng(1).random()",
    "own_generator": "import random\ndef act(path):\n    random.Random(1).random()",
    "fixed_time": "from datetime import datetime\ndef act(path):\n"
    "    assert isinstance(datetime(2030, 1, 1), datetime)",
    "late_import": "def act(path):\n    import colorsys",
    "vector": "from pathlib import Path\ndef act(path):\n"
    f"    next(Path({str(Path(__file__).parent)!r}, 'vectors').glob('*.json')).read_bytes()",
    "warning": "import warnings\ndef act(path):\n    warnings.warn('odd', stacklevel=1)",
    "compiled": "import numba\n@numba.njit(cache=False)\ndef one():\n    return 1\ndef act(path):\n    one()",
}

Load = Callable[[str, str], ModuleType]


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """Make a module from source under a made-up name."""
    made: list[str] = []

    def load_source(name: str, source: str) -> ModuleType:
        file = tmp_path / f"{name.rpartition('.')[2]}.py"
        file.write_text(source)
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        made.append(name)
        spec.loader.exec_module(module)
        return module

    yield load_source
    for name in made:
        del sys.modules[name]


@pytest.mark.parametrize("kind", IMPURE)
def test_the_guard_fires_when_a_pure_layer_uses(
    kind: str, load: Load, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    module = load(f"fedmkt.ring.made_up_{kind}", IMPURE[kind])
    guard = request.getfixturevalue("pure_world")
    with pytest.raises(AssertionError, match=f"fedmkt.ring.made_up_{kind}"):
        module.act(tmp_path / "written")
    assert guard.seen
    guard.seen.clear()
    assert not (tmp_path / "written").exists()


@pytest.mark.filterwarnings("ignore:odd")
@pytest.mark.parametrize("kind", PURE)
def test_the_guard_lets_a_pure_layer_use(
    kind: str, load: Load, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    module = load(f"fedmkt.ring.made_up_{kind}", PURE[kind])
    guard = request.getfixturevalue("pure_world")
    module.act(tmp_path / "written")
    assert not guard.seen


@pytest.mark.parametrize("kind", IMPURE)
def test_the_guard_lets_other_layers_touch_the_world(
    kind: str, load: Load, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    module = load(f"fedmkt.party.made_up_{kind}", IMPURE[kind])
    guard = request.getfixturevalue("pure_world")
    if kind == "connection":
        with pytest.raises(ConnectionRefusedError):
            module.act(tmp_path / "written")
    else:
        module.act(tmp_path / "written")
    assert not guard.seen


def test_the_guard_remembers_what_a_pure_layer_hides(
    load: Load, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source = "import time\ndef act():\n    try:\n        time.time()\n    except Exception:\n        pass"
    module = load("fedmkt.learn.made_up_hider", source)
    guard = request.getfixturevalue("pure_world")
    module.act()
    assert guard.seen == ["fedmkt.learn.made_up_hider: calls time.time"]
    guard.seen.clear()


def test_the_verifier_may_read_but_not_write(
    load: Load, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    given = tmp_path / "given"
    given.write_text("log")
    source = "def read(path):\n    return path.read_text()\ndef write(path):\n    path.write_text('x')"
    module = load("fedmkt.audit.made_up_verifier", source)
    guard = request.getfixturevalue("pure_world")
    assert module.read(given) == "log"
    with pytest.raises(AssertionError, match="opens"):
        module.write(given)
    guard.seen.clear()


def test_tests_themselves_may_touch_the_world(pure_world: object, tmp_path: Path) -> None:
    (tmp_path / "note").write_text(str(time.time()))
    socket.socket().close()
    np.random.default_rng()


def test_everything_is_back_in_place_without_the_guard(load: Load, tmp_path: Path) -> None:
    for kind, source in IMPURE.items():
        if kind not in ("connection", "folder"):
            load(f"fedmkt.ring.made_up_{kind}", source).act(tmp_path / "written.npy")
