"""Call every route of the application three times and report what the interpreter saw the last time.

Run as a program by `test_watched.py`: an audit hook cannot be taken out of a process again.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import httpx

from holdtrue.core.clock import SystemClock
from holdtrue.server.build import open_app
from holdtrue.server.home import read_token
from holdtrue.server.settings import load_settings
from holdtrue.server.transport import in_process

# Loading code, spawning, and leaving the machine: nothing of it belongs to answering a request.
FORBIDDEN = frozenset(
    {
        "pickle.find_class", "marshal.loads", "exec", "compile", "import", "subprocess.Popen", "os.system",
        "os.exec", "os.posix_spawn", "os.fork", "pty.spawn", "socket.connect", "socket.getaddrinfo",
        "ctypes.dlopen", "code.__new__", "function.__new__",
    }
)  # fmt: skip
WORDS = (
    "rel_0123456789abcdef", "etc", "a" * 64, "ledger.db", "keys", "local-token", "x@production", "1",
    "-", "file:", "s3:", "mlflow-artifacts:", "rel_..", "0" * 64, "__class__", "__proto__", "CON", "~root",
)  # fmt: skip


def main() -> None:
    """Print the violations as JSON."""
    home = Path(sys.argv[1])
    built = open_app(load_settings(home, environ={}), timer=SystemClock())
    found: list[list[str]] = []
    watching = False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not watching:
            if event == "pickle.find_class":
                found.append([event, "while starting"])
            return
        # An optional module that is not installed is looked for again each time, by anyio.
        if event == "import" and arguments[0] == "sniffio":
            return
        if event in FORBIDDEN:
            found.append([event, str(arguments[:1])[:200]])
        elif event == "open" and not inside(home, arguments[0]):
            found.append([event, str(arguments[0])[:200]])

    sys.addaudithook(hook)
    with in_process(built.gate) as transport:
        headers = {"authorization": f"Bearer {read_token(home)}"}
        client = httpx.Client(transport=transport, base_url="http://127.0.0.1:7700", headers=headers)
        # The first round may begin projects, whose due work the second one then loads.
        for _ in range(2):
            crawl(client, built.gate.table.routes)
        watching = True
        requests = crawl(client, built.gate.table.routes)
        watching = False
    built.close()
    print(json.dumps({"requests": requests, "found": found}))


def crawl(client: httpx.Client, routes: Any) -> int:
    """Call every route with hostile words for each of its parameters; return the number of requests."""
    requests = 0
    for route in routes:
        for word in WORDS:
            path = re.sub(r"\{[a-z_]+\}", lambda _, word=word: word, route.path.replace("{project}", "flights"))
            body = {word: word} if route.body is not None else None
            client.request(route.method, path, json=body, params={"cursor": word, "name": word})
            requests += 1
            if "{" not in route.path:
                break
    return requests


def inside(home: Path, path: object) -> bool:
    """Tell whether an opened file is in the data folder (or is no file: a descriptor)."""
    if isinstance(path, int):
        return True
    text = path.decode() if isinstance(path, bytes) else str(path)
    # The web room's own templates and static files, and the kernel's statement of mounts.
    own = str(Path(__file__).parents[2] / "src" / "holdtrue")
    return text.startswith((str(home), own))


if __name__ == "__main__":
    main()
