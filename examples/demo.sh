#!/usr/bin/env bash
# make demo: compresses every module of Python's standard library, one job each, on this machine.
#
# A job list of 1,500 lines and more is made by `lanai gensub` from two templates: compress.gensub for most files, and
# shaky.gensub for a few whose first try fails on purpose. Everything lies in a directory of its own, which is removed
# at the end; nothing is left running. Where the distribution ships the library without its tests, and so fewer than
# 1,500 files, the modules of the packages installed here are taken too.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
wanted=1500
shaky_every=300

work=$(mktemp -d "${TMPDIR:-/tmp}/lanai-demo.XXXXXX")
export LANAI_HOME=$work/home
unset LANAI_HUB LANAI_TOKEN_FILE
finish() {
    lanai hub stop --now >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap finish EXIT

bold='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\033[1m' plain=$'\033[0m'; fi
show() {
    # Quoted where it has to be, so that what is shown can be typed.
    printf '\n%s$ %s%s\n' "$bold" "$(python3 -c 'import shlex, sys; print(shlex.join(sys.argv[1:]))' "$@")" "$plain"
    "$@"
}

modules() {
    python3 - "$wanted" <<'PYTHON'
import pathlib, sys, sysconfig
library = pathlib.Path(sysconfig.get_path("stdlib"))
elsewhere = {"site-packages", "dist-packages"}
found = [path for path in library.rglob("*.py") if not elsewhere & set(path.parts)]
if len(found) < int(sys.argv[1]):
    found += pathlib.Path(sysconfig.get_path("purelib")).rglob("*.py")
print(*sorted(str(path) for path in found if not set(" {}$'\"\\") & set(str(path))), sep="\n")
PYTHON
}

cp "$here"/compress.gensub "$here"/shaky.gensub "$work"
cd "$work"
mkdir out
modules >all
awk -v every=$shaky_every 'NR % every == 0 { print > "shaky"; next } { print > "steady" }' all
printf '%s files in a list, %s of them in a list of their own: their first try fails on purpose.\n' \
    "$(wc -l <all)" "$(wc -l <shaky)"

show cat compress.gensub
show lanai gensub steady single compress.gensub jobs.txt
show lanai gensub shaky single shaky.gensub more.txt
cat more.txt >>jobs.txt
show tail -n 1 jobs.txt

show lanai run jobs.txt --name demo --retries 2

show lanai status
show lanai job list last --filter 'attempts>1' --columns id,state,attempts,wall_s
show lanai hub stop

made=$(find out -name '*.gz' -size +0 | wc -l)
printf '\n%s of %s files compressed: %s before, %s after.\n' "$made" "$(wc -l <all)" \
    "$(xargs -d '\n' cat <all | wc -c | numfmt --to=iec)" "$(cat out/*.gz | wc -c | numfmt --to=iec)"
[ "$made" -eq "$(wc -l <all)" ]
