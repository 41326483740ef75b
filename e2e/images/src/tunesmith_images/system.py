"""Debian packages for builds without Docker, and the browser for tests of the data report."""

import os
import shutil
from collections.abc import Mapping

from .cache import cache_dir, locked
from .run import BuildError, run

# Program to the package that brings it.
PROGRAMS = {
    "buildah": "buildah",
    "crun": "crun",
    "debootstrap": "debootstrap",
    "runc": "runc",
    "skopeo": "skopeo",
}
BROWSER = {"chromium": "chromium", "chromedriver": "chromium-driver"}


def ensure_browser() -> None:
    """Install Chromium if it is missing; without root print the command instead, and tests that need it are skipped.

    Raises:
        BuildError: root could not install it.
    """
    try:
        ensure_programs(BROWSER)
    except BuildError as error:
        if os.geteuid() == 0:
            raise
        print(f"{error} (without them the tests of the data report's page are skipped)")


def ensure_programs(programs: Mapping[str, str] = PROGRAMS) -> None:
    """Install what is missing of `programs` (program to package), as root on Debian.

    Raises:
        BuildError: it cannot be installed from here; the message names the packages.
    """
    # Not every user's PATH has the folder of debootstrap.
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
    missing = [package for program, package in programs.items() if shutil.which(program, path=path) is None]
    if not missing:
        return
    install = ["apt-get", "install", "--quiet", "--yes", "--no-install-recommends", *missing]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise BuildError(f"programs are missing; as root on Debian: {' '.join(install)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # apt fails where another process of ours uses it, such as the one that installs the cluster's packages.
    with locked(cache_dir() / "apt.lock"):
        run(["apt-get", "update", "--quiet"], env=environment)
        run(install, env=environment)
