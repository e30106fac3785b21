"""Hold all text that a person reads to the terms of the field, as CONTRIBUTING lists them.

python .ci/words.py             # exits with 1 and names each place that uses a private word
python .ci/words.py --count     # prints the number of places per area and word, for a report
python .ci/words.py --count -C DIR   # the same for another tree

Checked are documents, comments and docstrings, strings (messages, help, descriptions), templates
and identifiers. An exception is a line in `words-allowed.txt`, with its reason.
"""

from __future__ import annotations

import argparse
import ast
import fnmatch
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ALLOWED = Path(__file__).with_name("words-allowed.txt")

# A pattern and what to say instead.
TERMS = {
    r"answer(s|ed|ing|able)?": "response; respond, return",
    r"told|tells?|telling": "report, show, name, say",
    r"hears?|heard": "receive",
    r"judge[sd]?|judging": "evaluate, authorize, check",
    r"whoever|nobody|somebody|anybody|everybody|strangers?": "client, caller, operator, user",
    r"people": "users",
    r"anew": "again; renewed",
    r"chores?": "task",
    r"(is|was|are) away": "is unavailable",
    r"can(not|'t) be had|can't go on": "failed to fetch, cannot load; fatal",
    r"comes? to nothing|came to nothing|in earnest|by chance": "fails; in production; randomly",
    r"put to use|taken over": "activated, applied",
    r"(two|several|more than one|one|no|single) readings?": "ambiguous, unambiguous",
    r"the configuration before it": "the previous configuration",
    r"(segment|trust) borders?": "boundary",
    r"decision mode": "external authorization",
    r"(it|which|that) goes on|go on to|began? anew": "continues",
    r"in hand": "in flight",
}
# Parts of identifiers.
PARTS = {
    "answer", "answers", "answered", "answering", "told", "tell", "tells", "hear", "hears",
    "heard", "judge", "judges", "judged", "nobody", "somebody", "anybody", "whoever", "anew",
    "chore", "chores", "greet", "greeter", "greeting", "deaf", "umpire", "rival", "deserted",
}  # fmt: skip
# A docstring says what the thing does, verb first, or what it is.
OPENINGS = re.compile(r"(What|Who|Whom|Whose|Whoever|Where|Nobody|Somebody) ")

PATTERNS = {word: re.compile(rf"\b(?:{word})\b", re.IGNORECASE) for word in TERMS}
# Most texts use none: one pass over each says so.
ANY_TERM = re.compile(rf"\b(?:{'|'.join(TERMS)})\b", re.IGNORECASE)
ANY_PART = re.compile("|".join(sorted(PARTS)), re.IGNORECASE)
HUMPS = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")
CODE = re.compile(r"```.*?```|`[^`\n]*`|\]\([^)]*\)|<!--.*?-->|https?://\S+", re.DOTALL)
TAGS = re.compile(r"\{[{%].*?[%}]\}|<[^>]*>|&\w+;", re.DOTALL)


@dataclass(frozen=True)
class Finding:
    """One place that uses a private word."""

    path: str
    line: int
    area: str
    word: str
    text: str
    instead: str


def blank(pattern: re.Pattern[str], text: str) -> str:
    """Blank what is not prose, so that lines keep their numbers."""
    return pattern.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


def in_prose(path: str, area: str, text: str, first_line: int = 1) -> Iterator[Finding]:
    """Yield each use of a private word in a text."""
    if not ANY_TERM.search(text):
        return
    for number, line in enumerate(text.splitlines(), first_line):
        for word, pattern in PATTERNS.items():
            for match in pattern.finditer(line):
                yield Finding(path, number, area, match[0].lower(), line.strip(), TERMS[word])


def openings(path: str, text: str) -> Iterator[Finding]:
    """Yield the docstrings that begin with a pronoun."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node) or ""
            if OPENINGS.match(docstring):
                line = node.body[0].lineno
                first = docstring.splitlines()[0]
                yield Finding(path, line, "docstring openings", first.split()[0], first, "a verb")


def in_python(path: str, text: str, *, is_own: bool) -> Iterator[Finding]:
    """Yield findings in identifiers, and with `is_own` in comments, docstrings and strings."""
    if not ANY_PART.search(text) and not (is_own and ANY_TERM.search(text)):
        return
    documented = {
        node.lineno
        for node in (ast.walk(ast.parse(text)) if is_own else ())
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        row = token.start[0]
        if token.type == tokenize.NAME:
            if ANY_PART.search(token.string):
                for part in HUMPS.findall(token.string):
                    if part.lower() in PARTS:
                        yield Finding(path, row, "identifiers", part.lower(), token.string, "")
            continue
        if not is_own:
            continue
        is_docstring = token.type == tokenize.STRING and row in documented
        if token.type == tokenize.COMMENT or is_docstring:
            yield from in_prose(path, "comments and docstrings", blank(CODE, token.string), row)
        elif token.type == tokenize.STRING and " " in token.string:
            yield from in_prose(path, "messages, help, descriptions", token.string, row)


def findings(root: Path) -> Iterator[Finding]:
    """Yield what is found in all files that git knows."""
    listed = ["git", "-C", str(root), "ls-files", "-z"]
    names = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0")  # noqa: S603
    for name in names:
        file = root / name
        if not file.is_file() or name.startswith((".ci/words", "bench/results/")):
            continue
        own = name.startswith(("gateway/", "examples/"))
        if name.endswith(".md"):
            yield from in_prose(name, "README and docs", blank(CODE, file.read_text()))
        elif name.endswith(".html") and own:
            yield from in_prose(name, "templates", blank(TAGS, file.read_text()))
        elif name.endswith((".yaml", ".yml")) and name.startswith(("config/", "deploy/")):
            yield from in_prose(name, "configuration, deploy/", file.read_text())
        elif name.endswith(".py"):
            text = file.read_text()
            yield from in_python(name, text, is_own=own)
            if own:
                yield from openings(name, text)


def allowances() -> list[tuple[str, str]]:
    """Read the exceptions: a pattern of paths and a text of the line; a reason stands above."""
    lines = [line for line in ALLOWED.read_text().splitlines() if line.strip()]
    if not lines or not lines[0].startswith("#"):
        sys.exit(f"{ALLOWED.name} must begin with a comment")
    return [(path, text.strip()) for path, _, text in
            (line.partition(" ") for line in lines if not line.startswith("#"))]  # fmt: skip


def main() -> int:
    """Print what is found, or how much."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", action="store_true", help="print figures only")
    parser.add_argument("-C", dest="root", type=Path, default=Path(__file__).parents[1])
    options = parser.parse_args()
    found = list(findings(options.root))
    if options.count:
        for area, count in sorted(Counter(one.area for one in found).items()):
            words = Counter(one.word for one in found if one.area == area).most_common(8)
            print(f"{area:32}{count:6}  " + ", ".join(f"{word} {n}" for word, n in words))
        print(f"{'all':32}{len(found):6}")
        return 0
    used = set()
    left = []
    for one in found:
        for entry in allowances():
            if fnmatch.fnmatch(one.path, entry[0]) and entry[1] in one.text:
                used.add(entry)
                break
        else:
            left.append(one)
    for one in left:
        instead = f" (say: {one.instead})" if one.instead else ""
        print(f"{one.path}:{one.line}: {one.word!r}{instead}: {one.text[:100]}")
    for path, text in set(allowances()) - used:
        print(f"{ALLOWED.name}: not needed any more: {path} {text}")
    return 1 if left or set(allowances()) - used else 0


if __name__ == "__main__":
    sys.exit(main())
