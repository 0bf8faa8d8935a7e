"""``python -m fuzz TARGET``: fuzz one reader, or replay its seeds where there is no atheris."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

SEEDS = Path(__file__).parent / "seeds"
_LONGEST_INPUT = 8192  # bytes
_INSTRUMENTED = ["kube_nginx_agent", "urllib3", "http"]
"""All that is Python between a stranger's bytes and the agent."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--corpus", type=Path, help="where to keep what reached new code")
    parser.add_argument("--crashes", type=Path, default=Path(), help="where to put findings")
    parser.add_argument("--replay", type=Path, nargs="+", help="run these inputs only")
    chosen = parser.parse_args()
    atheris = _atheris()
    if atheris:
        # Only what is imported under it is looked into: nothing of the agent before this.
        with atheris.instrument_imports(include=_INSTRUMENTED, enable_loader_override=False):
            from fuzz.targets import TARGETS, in_time
    else:
        from fuzz.targets import TARGETS, in_time
    run = in_time(TARGETS[chosen.target]())
    files = chosen.replay or sorted((SEEDS / chosen.target).iterdir())
    if atheris and not chosen.replay:
        corpus = chosen.corpus or Path(tempfile.mkdtemp(prefix="kna-fuzz-"))
        corpus.mkdir(parents=True, exist_ok=True)
        chosen.crashes.mkdir(parents=True, exist_ok=True)
        options = {
            "max_total_time": chosen.seconds,
            "max_len": _LONGEST_INPUT,
            "timeout": 10,  # seconds for one input
            "rss_limit_mb": 1024,
            "print_final_stats": 1,
            "artifact_prefix": f"{chosen.crashes}/{chosen.target}-",
        }
        flags = [f"-{name}={value}" for name, value in options.items()]
        atheris.Setup(["fuzz", *flags, str(corpus), str(SEEDS / chosen.target)], run)
        atheris.Fuzz()  # exits
    for file in files:
        run(file.read_bytes())
    print(f"replayed: {len(files)}{'' if atheris else ' (no atheris here)'}", file=sys.stderr)


def _atheris() -> Any:
    try:
        import atheris
    except ImportError:
        return None
    return atheris


if __name__ == "__main__":
    main()
