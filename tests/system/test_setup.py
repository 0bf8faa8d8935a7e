"""packaging/setup on a machine where apt can't do what it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest

from system.machine import Machine
from system.packages import HERE

# A package whose configuration fails, and says why on standard output, as most do.
_BREAK_HAPROXY = """
rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*
for name in haproxy nftables; do
    mkdir -p /tmp/$name/DEBIAN
    printf 'Package: %s\\nVersion: 999\\nArchitecture: all\\nMaintainer: x <x@x.invalid>\\n' $name \
        >/tmp/$name/DEBIAN/control
    echo "Description: a stand-in" >>/tmp/$name/DEBIAN/control
done
printf '#!/bin/sh\\necho the disk is on fire\\nexit 1\\n' >/tmp/haproxy/DEBIAN/postinst
chmod 755 /tmp/haproxy/DEBIAN/postinst
mkdir /srv/local
for name in haproxy nftables; do
    dpkg-deb --build /tmp/$name /srv/local >/dev/null
done
cd /srv/local
for deb in *.deb; do
    dpkg-deb --field $deb
    echo "Filename: ./$deb"
    echo "Size: $(stat --format=%s $deb)"
    echo "SHA256: $(sha256sum $deb | cut -d ' ' -f 1)"
    echo
done >Packages
echo 'deb [trusted=yes] file:/srv/local ./' >/etc/apt/sources.list
"""


@pytest.fixture
def machine(root: Path) -> Iterator[Machine]:
    with Machine(root, "setup", {HERE / "packaging": "/srv/packaging"}) as machine:
        yield machine


def test_what_apt_said_is_shown_when_it_fails(machine: Machine) -> None:
    machine.shell(_BREAK_HAPROXY)

    done = machine.run("/srv/packaging/setup", "bench", check=False)

    assert done.returncode == 1
    assert "the disk is on fire" in done.stderr
    assert "setup: apt could not install" in done.stderr


def test_unknown_package_is_named(machine: Machine) -> None:
    machine.shell("rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*; apt-get -qq update")

    done = machine.run("/srv/packaging/setup", "bench", check=False)

    assert done.returncode == 1
    assert "Unable to locate package haproxy" in done.stderr
