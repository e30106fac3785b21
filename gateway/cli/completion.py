"""`gateway completion`: completion of commands and options for shells, made from the parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from gateway.cli.parser import children, summaries

BASH = """\
# Completion of `gateway`, for bash: source <(gateway completion bash)
_gateway() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} path="" word
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "$path $word" in
            {known}) path="$path $word" ;;
        esac
    done
    local words=""
    case "$path" in
{cases}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _gateway gateway
"""
ZSH = """\
# Completion of `gateway`, for zsh: source <(gateway completion zsh)
autoload -U +X compinit && compinit
autoload -U +X bashcompinit && bashcompinit
"""
FISH = "# Completion of `gateway`, for fish: gateway completion fish | source\n"


def add_command(commands: Any, parser: argparse.ArgumentParser) -> None:
    """Add the command to the parser, which is the parser of all commands."""
    completion = commands.add_parser(
        "completion",
        help="print the completion of commands and options for a shell",
        description="Print a script with which a shell completes commands and options; load it "
        "from the shell's startup file.",
    )
    completion.add_argument("shell", choices=("bash", "zsh", "fish"), help="for which shell")
    completion.set_defaults(command=lambda options: _print(parser, options.shell))


def _print(parser: argparse.ArgumentParser, shell: str) -> int:
    scripts = {"bash": _bash, "zsh": lambda one: ZSH + _bash(one), "fish": _fish}
    print(scripts[shell](parser), end="")
    return 0


def _walk(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    yield path, parser
    for name, child in children(parser):
        yield from _walk(child, (*path, name))


def _options(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if action.option_strings and action.help != argparse.SUPPRESS:
            yield action


def _bash(parser: argparse.ArgumentParser) -> str:
    cases, known = [], []
    for path, one in _walk(parser):
        words = [name for name, _ in children(one)]
        words += [text for action in _options(one) for text in action.option_strings]
        for action in one._actions:
            is_group = isinstance(action, argparse._SubParsersAction)
            if not action.option_strings and action.choices and not is_group:
                words += map(str, action.choices)
        place = "".join(f" {name}" for name in path)
        cases.append(f"        '{place}') words='{' '.join(words)}' ;;")
        if path:
            known.append(f"'{place}'")
    return BASH.format(known="|".join(known), cases="\n".join(cases))


def _fish(parser: argparse.ArgumentParser) -> str:
    lines = [FISH, "complete -c gateway -n __fish_use_subcommand -f\n"]
    top = dict(children(parser))
    for path, one in _walk(parser):
        conditions = [f"__fish_seen_subcommand_from {name}" for name in path]
        # `token` is a command, and one below `admin`.
        if others := [name for name in top if path[:1] and path[0] in dict(children(top[name]))]:
            conditions.append(f"not __fish_seen_subcommand_from {' '.join(others)}")
        if below := summaries(one):
            conditions.append(f"not __fish_seen_subcommand_from {' '.join(below)}")
        prefix = f"complete -c gateway -n '{'; and '.join(conditions)}'"
        for name, text in below.items():
            lines.append(f"{prefix} -f -a {name} -d {_quote(text)}\n")
        if path and not below:
            lines += [f"{prefix}{_flags(action)}\n" for action in _options(one)]
    return "".join(lines)


def _flags(action: argparse.Action) -> str:
    flags = "".join(
        f" -l {text[2:]}" if text.startswith("--") else f" -s {text[1:]}"
        for text in action.option_strings
    )
    value = "" if action.nargs == 0 else " -r"
    return f"{flags}{value} -d {_quote(action.help or '')}"


def _quote(text: str) -> str:
    """A text for fish, on one line."""
    text = " ".join(text.replace("%%", "%").split())
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
