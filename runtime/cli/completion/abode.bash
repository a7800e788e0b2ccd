# Bash completion of the abode command. Options are asked from the command itself
# (abode COMMAND --help), so that they are never behind it.

_abode_options() {
    "$1" "$2" --help 2>/dev/null | sed -nE 's/^ +(-[a-zA-Z], )?(--[a-z][a-z-]*).*/\2/p'
}

# the choices of an option that has them: "--io auto|uring|threads|sync"
_abode_choices() {
    "$1" "$2" --help 2>/dev/null |
        sed -nE "s/^ +(-[a-zA-Z], )?$3 ([a-z]+(\\|[a-z]+)+).*/\\2/p" | tr '|' ' '
}

_abode() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
    local abode=${COMP_WORDS[0]} command=${COMP_WORDS[1]} choices
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W \
            'demo replay probe inspect verify bench help --help --version' -- "$word")
        return
    fi
    if [ "$command" = help ]; then
        mapfile -t COMPREPLY < <(compgen -W 'demo replay probe inspect verify bench' -- "$word")
        return
    fi
    if [[ $before == --* ]]; then
        choices=$(_abode_choices "$abode" "$command" "$before")
        if [ -n "$choices" ]; then
            mapfile -t COMPREPLY < <(compgen -W "$choices" -- "$word")
            return
        fi
    fi
    if [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(_abode_options "$abode" "$command")" -- "$word")
        return
    fi
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$word")
}

complete -F _abode abode
