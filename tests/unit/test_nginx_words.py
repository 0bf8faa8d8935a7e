"""What nginx prints, reduced to its complaints."""

from __future__ import annotations

import pytest

from kube_nginx_agent.nginx.binary import _words
from kube_nginx_agent.node.command import Outcome


@pytest.mark.parametrize(
    ("stderr", "words"),
    [
        (
            'nginx: [emerg] unknown directive "x" in /c:1\n'
            "nginx: configuration file /c test failed\n",
            '[emerg] unknown directive "x" in /c:1',
        ),
        (
            "2026/11/24 21:43:39 [emerg] 19357#0: bind() to 0.0.0.0:1 failed\n" * 5,
            "[emerg] bind() to 0.0.0.0:1 failed",
        ),
        (
            "nginx: [warn] low on files\nnginx: [emerg] one\nnginx: [crit] two\n",
            "[emerg] one; [crit] two",
        ),
        ("Segmentation fault\n", "Segmentation fault"),
        ("", "it ended with exit code 1 and said nothing"),
    ],
)
def test_complaints_of_nginx_are_kept_without_times_and_pids(stderr: str, words: str) -> None:
    assert _words(Outcome(1, stderr)) == words
