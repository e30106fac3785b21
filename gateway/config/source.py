"""YAML with the line of every value, and with its variables filled in.

`${NAME}` and `${NAME:-default}` read the environment, `${file:PATH}` a mounted secret,
`$${` is a literal `${`. Only values are filled in, never keys, and what a variable
holds is never parsed as YAML structure.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Mapping
from hashlib import sha256
from pathlib import Path as FilePath
from typing import Any

import yaml
from yaml.composer import Composer

from gateway.config.problems import ConfigProblem, Path, format_key, is_below, locate
from gateway.units import Filled

_VARIABLE = re.compile(r"\$\$\{|\$\{(?P<body>[^}]*)\}")
_FILE = re.compile(r"\$\{file:[^}]+\}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


_SCALARS = {"bool", "int", "float"}
"""What YAML 1.1 and 1.2 read differently."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars: `on`, `off`, `yes` and `no` are the words they look like, and `010` and
    `22:22` are no numbers, which YAML 1.1 reads as 8 and 1342."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as PyYAML declares it
        letter: [(tag, text) for tag, text in pairs if tag.rpartition(":")[2] not in _SCALARS]
        for letter, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(?:true|false|True|False)$"), list("tfTF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:0|[1-9][0-9]*)?\.?[0-9]*(?<=[0-9.])(?:[eE][-+]?[0-9]+)?$"),
    list("-+0123456789."),
)


if yaml.__with_libyaml__:

    class _LibYaml(Composer, yaml.CSafeLoader):
        """The same, by LibYAML in a tenth of the time. Nodes are composed in Python, which ends
        with `RecursionError` where C would run out of its stack."""

        yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

        def __init__(self, text: str) -> None:
            yaml.CSafeLoader.__init__(self, text)
            Composer.__init__(self)


def _compose(text: str) -> yaml.Node | None:
    """Raises `yaml.YAMLError`, and what PyYAML lets through: `ValueError`, `OverflowError` and
    `RecursionError`."""
    if yaml.__with_libyaml__:
        with contextlib.suppress(yaml.YAMLError, ValueError, OverflowError, RecursionError):
            return yaml.compose(text, Loader=_LibYaml)
    return yaml.compose(text, Loader=_Loader)  # whose errors say more of what is wrong


class Document:
    """A parsed document."""

    def __init__(self, file: str, lines: dict[Path, int], problems: list[ConfigProblem]) -> None:
        self.file = file
        self.tree: Any = None
        """Plain dicts, lists and scalars."""
        self.problems = problems
        self.filled: set[Path] = set()
        """Values that came from variables: maybe secrets, whatever their key."""
        self.files: dict[FilePath, bytes | None] = {}
        """What `${file:...}` named, and the SHA-256 of what was read there; None of nothing."""
        self.from_files: set[Path] = set()
        """Values that are a `${file:...}` and nothing else."""
        self.included: dict[Path, str] = {}
        """The files that parts of the tree came from, beside `file`."""
        self._lines = lines

    def problem(self, path: Path, message: str) -> ConfigProblem:
        """A problem at a path, or at its nearest parent that stands in the file."""
        return locate(self.file, self._lines, self.included, path, message)

    def include(self, section: str, other: Document) -> None:
        """Take the keys of another document into a section. Those that are there already are
        problems."""
        self.problems += other.problems
        self.files |= other.files
        mapping = self.tree.setdefault(section, {})
        for key, value in (other.tree or {}).items():
            if key in mapping:
                before = self.included.get((section, key), self.file)
                self.problems.append(other.problem((key,), f"is declared in {before}, too"))
                continue
            mapping[key] = value
            self.included[section, key] = other.file
        for path, line in other._lines.items():
            if path and self.included.get((section, path[0])) == other.file:
                self._lines[section, *path] = line
        self.filled |= {(section, *path) for path in other.filled}
        self.from_files |= {(section, *path) for path in other.from_files}

    def lines(self) -> Mapping[Path, int]:
        """The line of each value."""
        return self._lines

    def line_of(self, path: Path) -> int:
        """The line of a value."""
        return self._lines.get(path, 1)


def parse_document(
    text: str,
    *,
    file: str,
    environ: Mapping[str, str],
    directory: FilePath,
    leave_out: Collection[Path] = (),
) -> Document:
    """Parse text that came from `file`; `${file:...}` is relative to `directory`. Keys at
    `leave_out` are skipped, with the variables in their values.

    What is wrong is in `problems` of the result, whose tree holds what could be read.
    """
    document = Document(file, {(): 1}, [])
    try:
        node = _compose(text)
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark.line if error.problem_mark else 0
        message = f"not valid YAML: {error.problem or error.context}"
        # What is missing at the end of a file is missing behind its last line.
        if "${" in "".join(text.splitlines()[at : at + 1]):
            message += " (within { } and [ ], quote a value that holds ${...})"
        line = at + 1
        document.problems.append(ConfigProblem(file, line, "", message))
        return document
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # Not only its own: of an escape for no character, it lets through what `chr` raises.
        document.problems.append(ConfigProblem(file, 1, "", f"not valid YAML: {error}"))
        return document
    except RecursionError:
        document.problems.append(
            ConfigProblem(file, 1, "", "not a configuration: nested too deeply")
        )
        return document
    if node is None:
        document.problems.append(
            ConfigProblem(file, 1, "", "the file is empty, expected a mapping")
        )
        return document
    if not isinstance(node, yaml.MappingNode):
        document.problems.append(ConfigProblem(file, 1, "", "expected a mapping of sections"))
        return document
    builder = _Builder(document, environ, directory, leave_out)
    document.tree = builder.build(node, ())
    builder.close()
    return document


class _Builder:
    """Turns nodes into plain values, keeping lines and problems in the document."""

    def __init__(
        self,
        document: Document,
        environ: Mapping[str, str],
        directory: FilePath,
        leave_out: Collection[Path],
    ) -> None:
        self._document = document
        self._leave_out = leave_out
        self._environ = environ
        self._directory = directory
        self._loader = _Loader("")
        self._open_nodes: set[int] = set()

    def close(self) -> None:
        """Let go of the nodes: a loader refers to itself, and so would keep all of them until the
        garbage collector has stopped everything to find them."""
        self._loader.constructed_objects.clear()

    def build(self, node: yaml.Node, path: Path) -> Any:
        self._document._lines[path] = node.start_mark.line + 1
        if id(node) in self._open_nodes:
            self._complain(path, "an alias must not stand within its own anchor")
            return None
        self._open_nodes.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._build_mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self.build(item, (*path, at)) for at, item in enumerate(node.value)]
            assert isinstance(node, yaml.ScalarNode)
            return self._build_scalar(node, path)
        finally:
            self._open_nodes.discard(id(node))

    def _build_mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        own_keys = set()
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._complain(path, "a key must be plain text", line)
            elif _SURROGATE.search(key_node.value):
                self._complain(path, "a key must be Unicode text", line)
            elif key_node.value in own_keys:
                self._complain((*path, key_node.value), "this key is given twice", line)
            else:
                own_keys.add(key_node.value)
        try:
            self._loader.flatten_mapping(node)  # `<<`: what is merged in comes before our own
        except yaml.YAMLError:
            self._complain((*path, "<<"), "only mappings can be merged in")
            return {}
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = str(key_node.value)
            if is_below((*path, key), self._leave_out):
                continue
            mapping[key] = self.build(value_node, (*path, key))
            # The line of the key is reported, also for a value that is a block.
            self._document._lines[(*path, key)] = line
        return mapping

    def _build_scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        raw = node.value
        if _SURROGATE.search(raw):
            self._complain(path, "expected Unicode text, not half of a surrogate pair (\\uD800)")
            return None
        if "${" not in raw:
            try:
                return self._loader.construct_object(node)
            except Exception:
                # PyYAML raises whatever happens where an explicit tag does not fit its text.
                self._complain(path, "this value can't be read")
                return None
        self._document.filled.add(path)
        if _FILE.fullmatch(raw):
            self._document.from_files.add(path)
        if "${" in _VARIABLE.sub("", raw):
            self._complain(path, "`${` without its `}`; `$${` is a literal `${`")
        return Filled(_VARIABLE.sub(lambda match: self._fill(match, path), raw))

    def _fill(self, match: re.Match[str], path: Path) -> str:
        body = match["body"]
        if body is None:
            return "${"
        if body.startswith("file:"):
            return self._read_file(body.removeprefix("file:"), path)
        if "${" in body:
            self._complain(path, "a default can't hold a variable; `$${` is a literal `${`")
            return ""
        name, separator, default = body.partition(":-")
        if not _NAME.fullmatch(name):
            self._complain(path, "expected ${NAME}, ${NAME:-default} or ${file:PATH}")
            return ""
        value = self._environ.get(name, "")
        if value:
            return value
        if not separator and name not in self._environ:
            self._complain(
                path,
                f"the environment variable {name} is not set; set it, or give a default: "
                f"${{{name}:-default}}",
            )
        return default

    def _read_file(self, name: str, path: Path) -> str:
        file = self._directory / name
        self._document.files[file] = None
        try:
            data = file.read_bytes()
            self._document.files[file] = sha256(data).digest()
            text = data.decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            self._complain(path, f"{name} can't be read: {reason}")
            return ""
        # Editors and `echo` leave a newline that is no part of the secret.
        return text.removesuffix("\n").removesuffix("\r")

    def _complain(self, path: Path, message: str, line: int | None = None) -> None:
        where = line or self._document.line_of(path)
        self._document.problems.append(
            ConfigProblem(self._document.file, where, format_key(path), message)
        )
