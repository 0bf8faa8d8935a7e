"""`make run`: the agent in the foreground, with stand-in apiservers to talk to.

    python3 -m support.demo --nginx PATH [--backends FILE]

Everything lives in one temporary folder, and one Ctrl-C ends and removes all of it.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import signal
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from support.address import Address
from support.apiserver import StandIn
from support.process import StartError, wait_until

LISTEN = Address("127.0.0.1", 8443)
STAND_INS = {f"api{number}": Address("127.0.0.1", 16440 + number) for number in (1, 2, 3)}
SPARE = ("api4", Address("127.0.0.1", 16444))
START_SECONDS = 30.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="support.demo")
    parser.add_argument("--nginx", type=Path, required=True)
    parser.add_argument("--backends", type=Path, help="use this list and no stand-ins")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.ExitStack() as stack, contextlib.suppress(KeyboardInterrupt):
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kube-nginx-demo-")))
        folder.chmod(0o755)  # nginx's workers are another user when this is root
        try:
            backends = options.backends or _start_stand_ins(folder, stack)
        except StartError as error:
            print(f"demo: {error}", file=sys.stderr)
            return 1
        return _run_agent(options.nginx, backends.absolute(), folder, stack)
    return 0


def _start_stand_ins(folder: Path, stack: contextlib.ExitStack) -> Path:
    for name, address in (*STAND_INS.items(), SPARE):
        stack.enter_context(StandIn(name, folder / "certs", listen=address))
    backends = folder / "backends.yaml"
    lines = [f"  - {address}  # {name}\n" for name, address in STAND_INS.items()]
    backends.write_text("backends:\n" + "".join(lines), encoding="utf-8")
    return backends


def _run_agent(nginx: Path, backends: Path, folder: Path, stack: contextlib.ExitStack) -> int:
    run_dir = folder / "run"
    command = [sys.executable, "-m", "kube_nginx_agent", "run", "--standalone"]
    command += ["--config", str(backends), "--nginx", str(nginx)]
    command += ["--state-dir", str(folder / "state"), "--run-dir", str(run_dir)]
    # A group of its own: Ctrl-C reaches us alone, and we end it before what it talks to.
    agent = stack.enter_context(subprocess.Popen(command, start_new_session=True))
    stack.callback(_end, agent)
    wait_until(
        lambda: agent.poll() is not None or _is_served(run_dir), START_SECONDS, "nginx serves"
    )
    if agent.poll() is None:
        print(_advice(nginx, backends, run_dir), flush=True)
    return agent.wait()


def _is_served(run_dir: Path) -> bool:
    command = [sys.executable, "-m", "kube_nginx_agent", "status", "--run-dir", str(run_dir)]
    code = subprocess.run(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    ).returncode
    return code in (0, 1)


def _end(agent: subprocess.Popen[bytes]) -> None:
    if agent.poll() is None:
        agent.terminate()
        agent.wait()


def _advice(nginx: Path, backends: Path, run_dir: Path) -> str:
    answer = _first_answer()
    python = f"PYTHONPATH={Path('agent').absolute()} {sys.executable} -m kube_nginx_agent"
    removed, added = STAND_INS["api1"], SPARE[1]
    return f"""
https://{LISTEN}/hello answers: {answer}

In another terminal, try:
  curl -k https://{LISTEN}/hello
  sed -i s/{removed.port}/{added.port}/ {backends}      (api1 goes, api4 comes)
  echo oops >> {backends}      (an error; the last good list goes on)
  {python} status --run-dir {run_dir}
  {python} check {backends} --nginx {nginx} --run-dir {run_dir}
Ctrl-C here ends all of it.
"""


def _first_answer() -> str:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection(LISTEN.host, LISTEN.port, timeout=10, context=context)
    try:
        connection.request("GET", "/hello")
        return connection.getresponse().read(500).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return f"nothing ({error})"
    finally:
        connection.close()


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parents[2])
    sys.exit(main())
