#!/usr/bin/env bash
# Makes ready what a make target needs: tools/setup.sh [test] [lint] [bench]
#
# Without a word it installs Lanai itself into .venv; each word adds that extra of pyproject.toml, and the distribution
# packages that go with it. What is ready already is left alone (stamps in .venv, keyed on pyproject.toml), so every
# target can call this first. Talk goes to stderr. Missing distribution packages are installed where root or
# passwordless sudo is there; elsewhere they are listed with the command to type. Only a missing Python or venv module
# ends the set-up, for all else the target itself says what it leaves out.
#
# LANAI_PYTHON names the interpreter to use; without it, the first Python from 3.11 on that can make an environment.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=.venv
log=.setup.log

say() { printf 'setup: %s\n' "$*" >&2; }

is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

can_make_venv() { "$1" -c 'import venv, ensurepip; ensurepip.version()' 2>/dev/null; }

# Prints the words that run a command as root; fails where neither root nor passwordless sudo is there.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        echo env
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        echo "sudo -n"
    else
        return 1
    fi
}

apt_install() {
    local root
    command -v apt-get >/dev/null && root=$(as_root) || return 1
    say "installing the distribution's $*"
    local install=($root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 install -qy
                   --no-install-recommends "$@")
    # A fresh machine has no package lists yet: they are fetched only when the first try fails.
    "${install[@]}" >"$log" 2>&1 || { $root apt-get -qq update >>"$log" 2>&1 && "${install[@]}" >>"$log" 2>&1; }
}

pythons() {
    if [ -n "${LANAI_PYTHON:-}" ]; then
        echo "$LANAI_PYTHON"
    else
        printf '%s\n' python3 /usr/bin/python3 python3.11 python3.12 python3.13 python3.14
    fi
}

# Prints the first interpreter that is recent enough and for which the given test holds.
first_python() {
    local python
    for python in $(pythons); do
        if is_recent "$python" && "$1" "$python"; then
            echo "$python"
            return
        fi
    done
    return 1
}

find_python() {
    first_python can_make_venv && return
    if first_python true >/dev/null; then
        apt_install python3-venv && first_python can_make_venv && return
        say "missing: Python's venv and ensurepip modules. Type, and try again:"
        say "    sudo apt-get install python3-venv"
    else
        say "missing: Python 3.11 or later. Type, and try again:"
        say "    sudo apt-get install python3 python3-venv"
        say "or name one that is installed elsewhere: LANAI_PYTHON=/path/to/python3 make ..."
    fi
    return 1
}

make_venv() {
    local here python
    here=$(pwd -P)
    # An environment does not survive a move of its checkout: its scripts and the editable install name the old path.
    if [ -f $venv/.checkout ] && [ "$(cat $venv/.checkout)" != "$here" ]; then
        say "the checkout has moved, making .venv anew"
        rm -rf $venv
    fi
    if ! { is_recent $venv/bin/python && $venv/bin/python -c 'import pip' 2>/dev/null; }; then
        python=$(find_python)
        say "making .venv with $("$python" --version)"
        rm -rf $venv
        "$python" -m venv $venv
    fi
    echo "$here" >$venv/.checkout
}

install_packages() {
    local key stale=() extra
    key=$(sha256sum <pyproject.toml)
    for extra in base "$@"; do
        [ "$(cat "$venv/.ready-$extra" 2>/dev/null)" = "$key" ] || stale+=("$extra")
    done
    [ ${#stale[@]} -gt 0 ] || return 0
    say "installing Lanai and what it needs (${stale[*]})"
    # "base" is no extra of pyproject.toml, and pip takes no empty list of extras.
    local extras
    extras=$(IFS=,; echo "${stale[*]}" | sed -E 's/^base,?//')
    local install=($venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".${extras:+[$extras]}")
    if ! "${install[@]}" >"$log" 2>&1; then
        cat "$log" >&2
        say "could not install the packages; the command was: ${install[*]}"
        return 1
    fi
    for extra in "${stale[@]}"; do echo "$key" >"$venv/.ready-$extra"; done
}

# The first commands after a clone or a pull start as quickly as the later ones, also where PYTHONDONTWRITEBYTECODE is set.
compile_sources() { $venv/bin/python -m compileall -q src || true; }

compiles() { printf 'int main(void) { return 0; }\n' | gcc -x c -o /dev/null - 2>/dev/null; }

is_gnu_parallel() { parallel --version 2>/dev/null | grep -q '^GNU parallel'; }

# Prints the distribution packages that the given extra needs and this machine lacks.
missing_packages() {
    case $1 in
        test)
            command -v ip >/dev/null || [ -x /sbin/ip ] || echo iproute2
            command -v systemd-analyze >/dev/null || echo systemd
            ;;
        bench)
            compiles || echo gcc libc6-dev
            is_gnu_parallel || echo parallel
            ;;
    esac
}

install_distribution_packages() {
    local extra missing=()
    for extra in "$@"; do missing+=($(missing_packages "$extra")); done
    [ ${#missing[@]} -gt 0 ] || return 0
    apt_install "${missing[@]}" && return
    say "missing, and not installed: ${missing[*]}; what needs them is left out, and says so. To have them:"
    say "    sudo apt-get install ${missing[*]}"
}

# Two targets started at the same time must not fill one environment.
exec 9<tools/setup.sh
flock 9
make_venv
install_packages "$@"
compile_sources
install_distribution_packages "$@"
rm -f "$log"
