"""``mmbm-onnx completion``: what a shell needs to complete our commands, options and files.

click does the work; what is ours is that a path is completed to the files that fit, such as models.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import PurePath

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
)

from .output import NAME, emit

_SUFFIX = "suffix"
_VARIABLE = f"_{NAME.upper().replace('-', '_')}_COMPLETE"
_SHELLS = ("bash", "zsh", "fish", "powershell")

# As click's own, and a branch for files by their suffix. Bash hands over the current word as $2.
_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n'
    local response
    response=$(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD \
%(complete_var)s=bash_complete $1)
    for completion in $response; do
        IFS=',' read type value <<< "$completion"
        if [[ $type == 'dir' ]]; then
            COMPREPLY=()
            compopt -o dirnames
        elif [[ $type == 'file' ]]; then
            COMPREPLY=()
            compopt -o default
        elif [[ $type == 'suffix' ]]; then
            compopt -o filenames
            COMPREPLY+=($(compgen -f -X "!*$value" -- "$2"; compgen -d -- "$2"))
        elif [[ $type == 'plain' ]]; then
            COMPREPLY+=($value)
        fi
    done
    return 0
}
%(complete_func)s_setup() {
    complete -o nosort -F %(complete_func)s %(prog_name)s
}
%(complete_func)s_setup;
"""

_ZSH = """\
#compdef %(prog_name)s
%(complete_func)s() {
    local -a completions
    local -a completions_with_descriptions
    local -a response
    (( ! $+commands[%(prog_name)s] )) && return 1
    response=("${(@f)$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) \
%(complete_var)s=zsh_complete %(prog_name)s)}")
    for type key descr in ${response}; do
        if [[ "$type" == "plain" ]]; then
            if [[ "$descr" == "_" ]]; then
                completions+=("$key")
            else
                completions_with_descriptions+=("$key":"$descr")
            fi
        elif [[ "$type" == "dir" ]]; then
            _path_files -/
        elif [[ "$type" == "file" ]]; then
            _path_files -f
        elif [[ "$type" == "suffix" ]]; then
            _path_files -g "*$key"
        fi
    done
    if [ -n "$completions_with_descriptions" ]; then
        _describe -V unsorted completions_with_descriptions -U
    fi
    if [ -n "$completions" ]; then
        compadd -U -V unsorted -a completions
    fi
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""

_FISH = """\
function %(complete_func)s;
    set -l response (env %(complete_var)s=fish_complete COMP_WORDS=(commandline -cp) \
COMP_CWORD=(commandline -t) %(prog_name)s);
    for completion in $response;
        set -l metadata (string split "," $completion);
        if test $metadata[1] = "dir";
            __fish_complete_directories $metadata[2];
        else if test $metadata[1] = "file";
            __fish_complete_path $metadata[2];
        else if test $metadata[1] = "suffix";
            __fish_complete_suffix $metadata[2];
        else if test $metadata[1] = "plain";
            echo $metadata[2];
        end;
    end;
end;
complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)";
"""


class _Bash(BashComplete):
    source_template = _BASH

    def source(self) -> str:
        """The script; unlike click's, without starting a bash to ask for its version."""
        return ShellComplete.source(self)


class _Zsh(ZshComplete):
    source_template = _ZSH


class _Fish(FishComplete):
    source_template = _FISH

    def format_completion(self, item: CompletionItem) -> str:
        """A line of the response; a tab would begin a description."""
        return (
            f"{item.type},{item.value}\t{item.help}" if item.help else f"{item.type},{item.value}"
        )


for _kind in (_Bash, _Zsh, _Fish):
    add_completion_class(_kind)


def suffixes(endings: Sequence[str], incomplete: str) -> list[CompletionItem]:
    """What makes a shell complete a path to directories and to files that end so.

    Args:
        endings: Such as ``".onnx"``; none of them is every file.
        incomplete: What was typed so far.
    """
    if not endings:
        return [CompletionItem(incomplete, type="file")]
    return [CompletionItem(ending, type=_SUFFIX) for ending in endings]


@click.command(short_help="Print a script that completes commands in your shell.")
@click.argument("shell", type=click.Choice(_SHELLS), required=False)
@click.help_option("-h", "--help")
@click.pass_context
def completion(ctx: click.Context, shell: str | None) -> None:
    """Print a script that makes SHELL complete commands, options and files.

    SHELL is bash (4.4 and later), zsh, fish or powershell; without it, that of $SHELL.

    \b
    bash:        mmbm-onnx completion bash >> ~/.bashrc
    zsh:         mmbm-onnx completion zsh >> ~/.zshrc      (behind compinit)
    fish:        mmbm-onnx completion fish > ~/.config/fish/completions/mmbm-onnx.fish
    powershell:  mmbm-onnx completion powershell >> $PROFILE

    It counts in shells that are started from then on.
    """
    from click.shell_completion import get_completion_class

    name = shell or PurePath(os.environ.get("SHELL", "")).stem
    if name not in _SHELLS:
        raise click.UsageError(f"say which shell: {', '.join(_SHELLS)}", ctx)
    kind = get_completion_class(name)
    if kind is None:
        raise click.UsageError(f"{name} needs a newer click: pip install --upgrade click", ctx)
    group = ctx.find_root().command
    emit(kind(group, {}, NAME, _VARIABLE).source().rstrip())
