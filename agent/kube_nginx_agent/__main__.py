"""``python3 -m kube_nginx_agent`` is the same as the ``kube-nginx-agent`` command."""

import sys

from kube_nginx_agent.cli import main

sys.exit(main())
