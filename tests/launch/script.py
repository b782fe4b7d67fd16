"""The launchers are scripts, not a package: they are loaded from their files."""

import importlib.util
from pathlib import Path
from types import ModuleType

LAUNCH = Path(__file__).parents[2] / "launch"


def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, LAUNCH / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
