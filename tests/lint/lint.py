#!/usr/bin/python3
"""Holds the form of the source to what its tools say.

lint.py cxx_format | python_format | python | shell   one check over this tree
lint.py --usable      the checks whose tool is here in the version that the tree is held to, one a line
lint.py --self-test   breaks what each usable check looks for, and sees it found

A formatter of another version formats otherwise, and a newer linter finds what nobody has looked at yet: so each check is
of Debian 12's version alone.
"""
import ast
import functools
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NO_SOURCE = {"build", "dist"}

# check: (how to ask for its version, what the answer contains)
TOOLS = {
    "cxx_format": (["clang-format-14", "--version"], "version 14."),
    "python_format": (["black", "--version"], "black, 23.1"),
    "python": (["/usr/bin/python3", "-m", "pyflakes", "--version"], "2.5"),
    "shell": (["shellcheck", "--version"], "version: 0.9."),
}


def sources(root):
    """Every file of the tree, without what a build leaves there."""
    for path in sorted(root.iterdir()):
        if path.is_symlink() or path.name in NO_SOURCE or path.name == ".git" or path.name == "__pycache__":
            continue
        if path.is_dir():
            yield from sources(path)
        else:
            yield path


def of_kind(root, kind):
    for path in sources(root):
        if kind == "cxx" and path.suffix in (".cc", ".h"):
            yield path
        elif kind == "python" and (path.suffix == ".py" or (not path.suffix and b"python3" in shebang(path))):
            yield path
        elif kind == "shell" and (
            path.suffix == ".sh" or (not path.suffix and shebang(path).endswith((b"/sh", b"/bash")))
        ):
            yield path


def shebang(path):
    with path.open("rb") as file:
        line = file.readline(200)
    return line.strip().split(b" -")[0] if line.startswith(b"#!") else b""


def run(argv):
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = [line for line in done.stdout.splitlines() if line]
    return lines if done.returncode else []


def cxx_format(files):
    return run(["clang-format-14", "--style=file", "--dry-run", "-Werror", *files])


def python_format(files):
    return run(["black", "--check", "--quiet", "--diff", "--config", str(ROOT / "pyproject.toml"), *files])


def shell(files):
    # What a script sources is named from the root of the tree, wherever this runs.
    sourced = f"--source-path={ROOT}"
    return run(["shellcheck", "--severity=warning", "--format=gcc", "--external-sources", sourced, *files])


class Modules:
    """The files by their module's name, as the scripts find each other, and what each takes from another by a star."""

    def __init__(self, files):
        self.files = {path.stem: path for path in files}
        self.trees = {path: ast.parse(path.read_bytes(), str(path)) for path in files}

    def missing(self, path):
        """Names that are imported one by one from a file here that does not have them."""
        for node in ast.walk(self.trees[path]):
            if isinstance(node, ast.ImportFrom) and node.module in self.files:
                has = self.names(self.files[node.module])
                for alias in node.names:
                    if alias.name != "*" and alias.name not in has:
                        yield f"{path}:{node.lineno}: {node.module} has no '{alias.name}'"

    @functools.cache
    def stars(self, path):
        imports = [node for node in self.trees[path].body if isinstance(node, ast.ImportFrom)]
        return {self.files[n.module] for n in imports if n.names[0].name == "*" and n.module in self.files}

    def gives(self, path):
        """The names that a star takes from this file."""
        return {name for name in self.names(path) if not name.startswith("_")}

    @functools.cache
    def names(self, path):
        names = {name for star in self.stars(path) for name in self.gives(star)}
        left = list(self.trees[path].body)
        while left:
            node = left.pop()
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                names.add(node.name)
                continue
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            left += ast.iter_child_nodes(node)
        return names

    @functools.cache
    def taken(self, path):
        """The names of this file that others use who took all of it by a star."""
        used = set()
        for other, tree in self.trees.items():
            if path in self.stars(other):
                used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
                used |= self.taken(other)
        return used


def python(files):
    """What pyflakes finds. It cannot see through `import *`, so that is looked at here: a name that no module behind the star
    has is undefined, and an import is unused only where nobody uses it who took it by a star."""
    from pyflakes import checker, messages

    modules, found = Modules(files), []
    for path, tree in modules.trees.items():
        given = {name for star in modules.stars(path) for name in modules.gives(star)}
        taken = modules.taken(path)
        for message in checker.Checker(tree, filename=str(path)).messages:
            if isinstance(message, messages.ImportStarUsed) and message.message_args[0] in modules.files:
                continue
            if isinstance(message, messages.ImportStarUsage) and message.message_args[0] in given:
                continue
            if isinstance(message, messages.UnusedImport) and message.message_args[0].split(".")[-1] in taken:
                continue
            found.append(str(message))
        found += modules.missing(path)
    return sorted(found)


KINDS = {"cxx_format": "cxx", "python_format": "python", "python": "python", "shell": "shell"}


def check(name, root):
    files = list(of_kind(root, KINDS[name]))
    return len(files), globals()[name](files)


def usable():
    names = []
    for name, (argv, version) in TOOLS.items():
        try:
            said = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
        except FileNotFoundError:
            continue
        if version in said:
            names.append(name)
    return names


# check: a file or two that are right, then one that is not, and a word of what is said of that one.
PYTHON = "#!/usr/bin/python3\n"
UNSAFE = '#!/bin/bash\nfor x in "1"; do echo "$x"; done\n'
CASES = [
    ("cxx_format", {"a.h": "int a;\n"}, "a.cc", "int  a;\n", "a.cc:1:4: error"),
    ("python_format", {"a.py": 'A = "a"\n'}, "b", PYTHON + "A = 'a'\n", '+A = "a"'),
    ("python", {"a.py": "import os\n", "b.py": "from a import *\n\nos.sync()\n"}, "c.py", "import os\n", "c.py:1"),
    ("python", {"a.py": "B = 1\n", "b.py": "from a import *\n\nB\n"}, "c.py", "from a import *\n\nC\n", "'C'"),
    ("python", {"a.py": "A = 1\n"}, "b", PYTHON + "print(A)\n", "undefined name 'A'"),
    ("python", {"a.py": "A = 1\n", "b.py": "from a import A\n\nA\n"}, "c", PYTHON + "from a import B\n\nB\n", "no 'B'"),
    ("shell", {"a.sh": "#!/bin/sh\necho 1\n"}, "b", UNSAFE, "SC2043"),
]


def self_test():
    here, cases, failed = usable(), 0, 0
    for name, good, bad, text, words in CASES:
        if name not in here:
            continue
        cases += 1
        with tempfile.TemporaryDirectory() as temporary:
            root = Path(temporary)
            (root / ".clang-format").write_bytes((ROOT / ".clang-format").read_bytes())
            for path, content in good.items():
                (root / path).write_text(content)
            before = check(name, root)[1]
            (root / bad).write_text(text)
            after = check(name, root)[1]
        if before or not any(words in line for line in after):
            failed += 1
            print(f"{name}: of the good tree: {before}; with {bad}, which is wrong: {after}")
    print(f"lint self-test: {cases} cases, {failed} failed")
    return failed


def main(arguments):
    if arguments == ["--usable"]:
        print(*usable(), sep="\n")
        return 0
    if arguments == ["--self-test"]:
        return 1 if self_test() else 0
    if len(arguments) != 1 or arguments[0] not in TOOLS:
        print(__doc__)
        return 2
    count, found = check(arguments[0], ROOT)
    for line in found:
        print(line)
    print(f"{arguments[0]}: {count} files, {len(found)} lines of findings")
    return 1 if found or not count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
