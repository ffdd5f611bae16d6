#!/usr/bin/env bash
# Resolve requirements/*.in into lock files with hashes and no index address. What is locked stays as long as it fits;
# with UPGRADE=1 everything is the newest.
set -euo pipefail
cd "$(dirname "$0")/.."
for name in test demo; do
  [ -n "${UPGRADE:-}" ] || cp "requirements/$name.txt" ".venv/$name.txt"
  constraint=(); [ "$name" = demo ] && constraint=(-c requirements/test.txt)
  .venv/bin/uv pip compile -q --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
    --no-annotate --python-version 3.11 "${constraint[@]}" "requirements/$name.in" -o ".venv/$name.txt"
  grep -v '^-e ' ".venv/$name.txt" > "requirements/$name.txt"
done
