"""Every page is true: links lead somewhere, blocks run, commands parse, and what is shown is what is printed.

What a block is says what is done with it: `python` is executed, one namespace a page; `yaml` is a configuration or a
part of one; the commands of `console` and `sh`, and those inside a line, must exist with their options. The commands
of a page that is a walk are run from top to bottom in one folder, so its later ones need its earlier ones; then, in the
same folder, those that are shown to fail, whose message must be the one that is shown. `text` is not looked at.
"""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest

from harness.config import load_config, parse_config
from harness.config.reading import parse_yaml
from harness.plan import LRPlan, Sizes
from harness.schedules import parse_spec
from harness.shipped import shipped_configs

ROOT = Path(__file__).parents[1]
README = "README.md"
CHEAP = "python launch/plan.py"  # commands that are run wherever they are shown
EXAMPLES = "examples/README.md"
WALKS = ("docs/quickstart.md", EXAMPLES, README)
PAGES = [README, "CONTRIBUTING.md", *(str(p.relative_to(ROOT)) for p in sorted(ROOT.glob("docs/*.md"))), EXAMPLES]
LANGUAGES = {"python", "yaml", "console", "sh", "diff", "text", ""}
TEXTS = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
ELASTIC = {"--min-np", "--max-np", "--network-interface", "--host-discovery-script"}
LAUNCHER_OPTIONS = {"-H", "--host", "-x", *ELASTIC}  # each with a word, between the number of ranks and what is started
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
HASH = re.compile(r"\b[0-9a-f]{12,64}\b")
REST = {
    "train": {"epochs": 10},
    "network": {"name": "mlp"},
    "optimizer": {"params": {"momentum": 0.9}},
    "lr": {"schedule": 0.1},
}


def blocks(page: str, *languages: str) -> list[str]:
    return [body for language, body in FENCED.findall(TEXTS[page]) if language in languages]


def shown_commands(page: str) -> list[tuple[str, str]]:
    """The commands of a page's console blocks, each with what it prints."""
    found = []
    for block in blocks(page, "console"):
        for part in re.split(r"^\$ ", block.replace("\\\n", ""), flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


def mentioned_commands(page: str) -> list[str]:
    """The commands to type and those inside a line, as far as they are written out."""
    typed = [line for block in blocks(page, "sh") for line in block.replace("\\\n", "").splitlines() if line]
    programs = r"python|horovodrun|mpirun|srun|sbatch|make|harness-[\w-]+"
    inline = re.findall(rf"(?<!`)`((?:{programs}) [^`]+)`", FENCED.sub("", TEXTS[page]))
    return typed + [re.sub(r"(\\\|\w+)+|(?<!-config)(?<!-set) \.\.\.$", "", command) for command in inline]


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture
def checkout(tmp_path):
    """A folder that looks like the project's, and takes what commands write."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for path in ROOT.iterdir():
        if not path.name.startswith(".") and path.name not in ("runs", "plans", "sheets"):
            (folder / path.name).symlink_to(path)
    return folder


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    assert {language for language, _ in FENCED.findall(TEXTS[page])} <= LANGUAGES
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", FENCED.sub("", TEXTS[page])):
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), f"{page} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors(path.read_text(encoding="utf-8")), f"{page} links to {target}: no such heading"


def test_the_index_has_every_page():
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", TEXTS["docs/README.md"]))
    assert {Path(page).name for page in PAGES if page.startswith("docs/")} - {"README.md"} <= linked


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_python_blocks_run(page, checkout, start, tmp_path):
    program = tmp_path / "blocks.py"
    program.write_text("\n".join(blocks(page, "python")), encoding="utf-8")
    needs_torch = "import torch" in program.read_text(encoding="utf-8")
    if needs_torch:
        pytest.importorskip("torch")
    start(program, cwd=checkout, fresh=needs_torch)  # torch must be imported before Horovod, which a forked job has


def as_configuration(block: str, page: str) -> dict:
    """A block with what it leaves out: a whole configuration, some sections, a part of `lr`, or one schedule."""
    part = parse_yaml(block, page)
    if len(part) == 1 and _is_schedule(part):
        part = {"lr": {"schedule": part}}
    elif part.keys() <= {"base", "reference_batch", "scaling", "warmup", "schedule", "momentum", "momentum_correction"}:
        part = {"lr": part}
    raw = {**REST, **part}
    raw["lr"] = {**REST["lr"], **raw["lr"]}
    if re.search(r"\dx\b", block):
        raw["lr"].setdefault("base", 0.1)
    return raw


def _is_schedule(part: dict) -> bool:
    try:
        parse_spec(part)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    ("page", "block"), [(page, block) for page in PAGES for block in blocks(page, "yaml")], ids=lambda text: text[:20]
)
def test_yaml_blocks_are_configurations_with_plans(page, block, monkeypatch):
    monkeypatch.syspath_prepend((ROOT / page).parent)  # modules that a page brings lie beside it
    config = parse_config(as_configuration(block, page), page)
    LRPlan(config.lr, Sizes.of(config.train, num_samples=60_000, shards=4, batch_size=config.batch.size))


def check(words: list[str]) -> None:
    """Refuse a command whose program or options do not exist; of other people's programs nothing is asked."""
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    program, *arguments = words or ["true"]
    if program == "sbatch":
        check_batch(arguments)
    elif program == "srun":
        options = [word for word in arguments if re.fullmatch(r"--(ntasks|cpus-per-task|mpi|partition)=\w+", word)]
        assert arguments[: len(options)] == options, f"options of srun: {arguments}"
        check(arguments[len(options) :])
    elif program in ("horovodrun", "mpirun"):
        assert re.fullmatch(r"-np? \d+|", " ".join(arguments[:2])), f"options of {program}: {arguments}"
        started = arguments[2:]
        while started and started[0] in LAUNCHER_OPTIONS:
            started = started[2:]
        assert not started or not started[0].startswith("-"), f"options of {program}: {arguments}"
        check(started)
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(arguments) <= set(targets), f"the Makefile has {targets}"
    elif program == "python" and not arguments[0].startswith("-"):
        script = ROOT / arguments[0]
        assert script.is_file(), f"there is no {script}"
        if script.parent.name == "launch":
            check_arguments(script, arguments[1:])
    elif program.startswith("harness-"):
        script = ROOT / "launch" / f"{program.removeprefix('harness-').replace('-', '_')}.py"
        assert script.is_file(), f"there is no {script}"
        check_arguments(script, arguments)


def check_batch(arguments: list[str]) -> None:
    """What precedes a batch script overrides one of its lines or spreads it out; what follows is launch/train.py's."""
    place = next(place for place, word in enumerate(arguments) if not word.startswith("-"))
    lines = re.findall(r"^#SBATCH (--[\w-]+)", (ROOT / arguments[place]).read_text(encoding="utf-8"), re.MULTILINE)
    for option in arguments[:place]:
        assert option.partition("=")[0] in [*lines, "--nodes"], f"{arguments[place]} has no {option}"
    check_arguments(ROOT / "launch/train.py", arguments[place + 1 :])


def check_arguments(script: Path, arguments: list[str]) -> None:
    module = importlib.import_module(f"harness.cli.{script.stem}")
    if arguments in (["--help"], ["--print-schema"]):
        with pytest.raises(SystemExit, match=r"^0?$"):
            module.parse_arguments(arguments)
        return
    options = vars(module.parse_arguments(arguments))
    if script.stem == "supervise":
        check(options["command"])
    elif "config" in options:
        config = shipped_configs().get(options["config"], ROOT / options["config"])
        if config.is_file():
            load_config(config, options["set"])


@pytest.mark.horovod  # horovodrun is one of them
@pytest.mark.parametrize("page", PAGES)
def test_commands_exist_with_their_options(page, monkeypatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    for command in mentioned_commands(page):
        check(shlex.split(command, comments=True))
    for command, output in shown_commands(page):
        if not output.startswith("error:"):
            check(shlex.split(command))


def masked(line: str) -> str:
    """A line without what another processor or a slower machine changes."""
    line = re.sub(r"-?\d+(\.\d+)?(e[-+]\d+)?", "N", HASH.sub("HASH", line))
    return re.sub(r"\s+", " ", re.sub(r"#+", "#", line)).strip()


def paired(shown: str, printed: str) -> list[tuple[str, str]]:
    """Each line that is shown and the one that was printed: in this order, the last one last, progress in between."""
    lines = iter(printed.splitlines())
    pairs = []
    for wanted in shown.splitlines():
        if wanted != "...":
            found = next((line for line in lines if masked(line) == masked(wanted)), None)
            assert found is not None, f"not printed: {wanted}\nprinted:\n{printed}"
            pairs.append((wanted, found))
    assert next(lines, None) is None, f"not shown: the end of\n{printed}"
    return pairs


RUN = ("python", "horovodrun", "mpirun", "make train")  # and not `make test`, which runs this


def commands_to_run(page: str) -> list[tuple[str, str]]:
    """Those of a walk, or the cheap ones of another page; then those that fail."""
    shown = shown_commands(page)
    start = RUN if page in WALKS else CHEAP
    good = [(command, output) for command, output in shown if command.startswith(start) and "error:" not in output[:6]]
    return good + [(command, output) for command, output in shown if output.startswith("error:")]


@pytest.mark.long
@pytest.mark.parametrize("page", [page for page in PAGES if commands_to_run(page)])
def test_what_commands_print_is_what_is_shown(page, checkout, launch):
    recipe = re.search(r"^train: setup\n\t@\$\(RUN\) (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    recipe = re.sub(r"\$\$\(.*echo (\w+) \|\| echo mpirun\)", r"\1", recipe)  # what is shown is Horovod's launcher
    same_hash: dict[str, str] = {}  # the real digest that each one on the page stands for: equal there, equal here
    for command, shown in commands_to_run(page):
        words, launched = shlex.split(recipe if command == "make train" else command), {}
        if words[0] in ("horovodrun", "mpirun"):
            launched, words = {"launcher": words[0], "np": int(words[2])}, words[3:]
        assert words[0] == "python"
        fails = shown.startswith("error:")
        done = launch(*words[1:], **launched, cwd=checkout, exit_code=None if fails else 0)
        if done.stdout.startswith("skipped: "):
            continue
        if fails:
            assert (done.stderr.strip(), done.returncode != 0) == (shown.strip(), True)
            continue
        for told, line in paired(shown, done.stdout + done.stderr) if shown.strip() else []:
            for there, here in zip(HASH.findall(told), HASH.findall(line), strict=True):
                assert same_hash.setdefault(there, here) == here, f"{there} is told twice on {page}"


def test_every_example_is_run_and_says_how():
    commands = " ".join(command for command, _ in shown_commands("examples/README.md"))
    for path in [*ROOT.glob("examples/**/*.py"), *ROOT.glob("examples/**/*.yaml")]:
        folder = path.parent.name
        if folder in (
            "clients",
            "leaving",
        ):  # whose libraries need not be here: tests/clients and tests/bridge run them
            assert f"({folder}/{path.name})" in TEXTS[EXAMPLES], f"examples/README.md does not list {path.name}"
        else:
            assert path.stem in commands, f"examples/README.md runs no {path.name}"
        if path.suffix == ".py":
            said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            assert "Run it" in said, f"{path.name} does not say how to run it"


def test_the_readme_tells_of_equal_digests_and_of_the_plan_it_shows():
    trained, on_eight_ranks, on_one_process = re.findall(r"digest ([0-9a-f]{64})", TEXTS[README])
    assert on_eight_ranks == on_one_process != trained
    block = next(block for block in blocks(README, "yaml") if block.startswith("data:"))
    config = parse_config(parse_yaml(block, README), README)
    sizes = Sizes.of(config.train, num_samples=60_000, shards=4, batch_size=config.batch.size)
    plan = LRPlan(config.lr, sizes)
    assert [plan.lr(t) for t in (0, sizes.iterations_per_epoch, sizes.num_iterations)] == [0.05, 0.2, 0.0]
