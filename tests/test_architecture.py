"""The house rules that a machine can check: who imports whom, which library where, and how long things are."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = sorted((ROOT / "omni_jax").rglob("*.py"))
SOURCES = [*PACKAGE, *sorted((ROOT / "configs").rglob("*.py")), *sorted((ROOT / "data").rglob("*.py"))]

# A package may import the ones of lower levels. Entry points are the modules at the top of omni_jax.
LEVELS = {
    0: (
        *("errors", "types", "dsp", "sound_frames", "operations"),
        *("config", "config_dict", "model_config", "codec_config", "encoder_config", "recipe_config"),
    ),
    1: ("parallel", "input_pipeline"),
    2: ("nn",),
    3: ("models",),
    4: ("checkpoint",),
    5: ("training", "streaming", "export", "pretrained"),
    6: ("evals", "planning"),
    7: ("report",),
}
CONFIG_CLASSES = ("config", "config_dict", "model_config", "codec_config", "recipe_config", "errors")
LEVEL_OF = {name: level for level, names in LEVELS.items() for name in names}
ENTRY_LEVEL = 8
SIDEWAYS = {
    ("config", "errors"),
    ("config", "config_dict"),
    ("config", "model_config"),
    ("config", "codec_config"),
    ("config", "recipe_config"),
    ("config_dict", "errors"),
    ("model_config", "config_dict"),
    ("model_config", "encoder_config"),
    ("model_config", "errors"),
    ("codec_config", "errors"),
    ("recipe_config", "codec_config"),
    ("recipe_config", "errors"),
    ("operations", "errors"),
    ("export", "streaming"),
    ("training", "pretrained"),
    ("dsp", "types"),
    ("sound_frames", "dsp"),
    ("sound_frames", "types"),
}  # within one level, one way only
# Library -> the parts that may import it; "lazily" = inside a function.
ONLY_IN = {
    "flax": ("nn", "models"),
    "orbax": ("checkpoint",),
    "clu": ("training/metrics.py",),
    "tensorflow": (),
    "tensorflow_datasets": (),
    "seqio": ("input_pipeline/readers/live_seqio.py",),
}
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_PARAMETERS = 600, 120, 10
P90_FILE_LINES, P90_FUNCTION_LINES = 400, 45


def part(path):
    """The package below omni_jax that a file belongs to; "" for an entry point, which a __main__ is too."""
    inside = path.relative_to(ROOT / "omni_jax").parts
    if path.name == "__main__.py":
        return ""
    name = inside[0].removesuffix(".py")
    return name if name in LEVEL_OF else ""


def imports(path):
    """(module, whether it is imported inside a function) for every import of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {id(node) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for node in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from ((f"{node.module}.{alias.name}", id(node) in inside) for alias in node.names)


def project_imports(path):
    for module, _ in imports(path):
        if module.startswith("omni_jax.") and module != "omni_jax.__version__":
            yield module.split(".")[1]


def functions(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path):
    mine = part(path)
    level = LEVEL_OF.get(mine, ENTRY_LEVEL)
    for target in project_imports(path):
        if target == mine:
            continue
        below = LEVEL_OF.get(target, ENTRY_LEVEL) < level or (not mine and target not in LEVEL_OF)
        assert below or (mine, target) in SIDEWAYS, f"{mine or path.name} must not import omni_jax.{target}"


def test_the_input_pipeline_needs_no_device_code():
    for path in PACKAGE:
        if part(path) == "input_pipeline":
            shared = {"config", "config_dict", "model_config", "types", "dsp", "sound_frames", "errors"}
            assert set(project_imports(path)) <= shared | {"input_pipeline"}, path


def test_training_and_streaming_never_meet():
    for path in PACKAGE:
        other = {"training": "streaming", "streaming": "training"}.get(part(path))
        assert other not in project_imports(path), path


def test_configs_import_no_device_code():
    for path in (ROOT / "configs").glob("*.py"):
        for module, _ in imports(path):
            homes = ("ml_collections.", "configs.", *(f"omni_jax.{name}." for name in CONFIG_CLASSES))
            allowed = module.startswith(homes) or module == "dataclasses"
            assert allowed, f"{path}: {module}"


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_stays_in_its_home(library):
    for path in PACKAGE:
        inside = str(path.relative_to(ROOT / "omni_jax"))
        for module, lazily in imports(path):
            if module.split(".")[0] == library:
                assert any(inside == home or inside.startswith(f"{home}/") for home in ONLY_IN[library]), inside
                slow = library in ("clu", "seqio")
                assert not slow or lazily, f"{inside}: {library} imports TensorFlow, import it inside the function"


def test_the_package_never_imports_the_offline_work():
    for path in PACKAGE:
        assert not any(module.split(".")[0] in ("data", "launch", "tests") for module, _ in imports(path)), path


def test_no_utils():
    assert not [path for path in SOURCES if path.stem in ("utils", "util", "helpers", "common", "misc")]


def test_files_and_functions_stay_short():
    lines = sorted(len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES)
    lengths = sorted(node.end_lineno - node.lineno + 1 for path in SOURCES for node in functions(path))
    assert lines[-1] <= MAX_FILE_LINES
    assert lines[int(0.9 * len(lines))] <= P90_FILE_LINES
    assert lengths[-1] <= MAX_FUNCTION_LINES
    assert lengths[int(0.9 * len(lengths))] <= P90_FUNCTION_LINES


def test_functions_take_few_parameters():
    for path in SOURCES:
        for node in functions(path):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            names = [argument.arg for argument in arguments if argument.arg not in ("self", "cls")]
            assert len(names) <= MAX_PARAMETERS, f"{path}: {node.name}"
