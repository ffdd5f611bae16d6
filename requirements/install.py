"""Install a lock file and this project into the running Python's environment.

uv takes a tenth of pip's time. It reads none of pip's settings, so it is told what pip was told. Where uv can't be had
or fails, pip does the whole work.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

PIP = [sys.executable, "-m", "pip"]
UV = Path(sys.executable).with_name("uv")
TOLD = {  # pip's setting: uv's variable
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "timeout": "UV_HTTP_TIMEOUT",
}


def settings() -> dict[str, str]:
    """What pip is set to, as uv's environment variables; a variable already set stays."""
    listed = subprocess.run([*PIP, "config", "list"], capture_output=True, text=True, check=True).stdout
    told = {}
    for line in sorted(listed.splitlines(), key=lambda line: line.startswith(":env:")):  # a variable beats a file
        name, _, value = line.partition("=")
        variable = TOLD.get(name.rpartition(".")[2])
        if variable:
            separator = "," if variable == "UV_FIND_LINKS" else " "
            told[variable] = separator.join(str(ast.literal_eval(value)).split())
    # Every file is pinned by its hash, so no index can slip another one in: all of them may be asked.
    return {"UV_INDEX_STRATEGY": "unsafe-best-match", **told, **os.environ}


def pinned(lock: Path, name: str) -> str:
    """One package's lines of a lock file."""
    lines = lock.read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(f"{name}=="))
    last = next(number for number in range(first, len(lines)) if not lines[number].endswith("\\"))
    return "\n".join(lines[first : last + 1]) + "\n"


def with_uv(lock: Path, room: Path) -> bool:
    alone = room / "uv.txt"
    alone.write_text(pinned(lock, "uv"))
    if subprocess.call([*PIP, "install", "-q", "--require-hashes", "-r", str(alone)]) != 0:
        return False
    install = [str(UV), "pip", "install", "-q", "--python", sys.executable, "--no-deps"]
    steps = [[*install, "--require-hashes", "-r", str(lock)], [*install, "--no-build-isolation", "-e", "."]]
    environment = settings()
    return all(subprocess.call(step, env=environment) == 0 for step in steps)


def main() -> None:
    lock = Path(sys.argv[1])
    if with_uv(lock, Path(sys.prefix)):
        return
    print("uv could not install; pip takes over.", file=sys.stderr, flush=True)
    subprocess.check_call([*PIP, "install", "-q", "--require-hashes", "-r", str(lock)])
    subprocess.check_call([*PIP, "install", "-q", "--no-deps", "--no-build-isolation", "-e", "."])


if __name__ == "__main__":
    main()
