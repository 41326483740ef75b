"""Command line: ``python -m tunesmith_images build|load|archive|venv|agent|browser|azurite|model``."""

import argparse
import json
import sys
from pathlib import Path

from .azurite import azurite_command
from .build import build_images
from .buildah import layout_path
from .catalog import CPU_IMAGES, IMAGES, RELEASED_IMAGES, Image
from .compiled_agent import make_compiled_agent
from .layout import write_archive
from .load import load_image
from .model import install_model
from .run import BuildError
from .system import ensure_browser
from .venvs import REQUIREMENTS, make_environment

_GROUPS = {"all": RELEASED_IMAGES, "cpu": CPU_IMAGES}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tunesmith_images", description=__doc__)
    commands = parser.add_subparsers(required=True)

    build = commands.add_parser("build", help="build images that are not there yet; print their names")
    build.add_argument("image", nargs="?", choices=[*IMAGES, *_GROUPS], default="all")
    build.add_argument("--json", action="store_true", help="print names and times of the stages as JSON")
    build.set_defaults(run=_build)

    load = commands.add_parser("load", help="build, then import into a cluster's containerd what it lacks")
    load.add_argument("image", nargs="?", choices=[*IMAGES, *_GROUPS], default="all")
    load.add_argument("--address", default="/run/containerd/containerd.sock", help="containerd's socket")
    load.set_defaults(run=_load)

    archive = commands.add_parser("archive", help="write one built image as an OCI archive")
    archive.add_argument("image", choices=IMAGES)
    archive.add_argument("file", type=Path)
    archive.set_defaults(run=_archive)

    venv = commands.add_parser("venv", help="make an environment of third-party pins; print its path")
    venv.add_argument("name", choices=REQUIREMENTS)
    venv.set_defaults(run=lambda options: print(make_environment(options.name)))

    agent = commands.add_parser(
        "agent", help="compile the agent as its image does; print the folder to import from"
    )
    agent.set_defaults(run=lambda options: print(make_compiled_agent()))

    browser = commands.add_parser("browser", help="install Chromium for the tests of pages (root)")
    browser.set_defaults(run=lambda options: ensure_browser())

    azurite = commands.add_parser(
        "azurite", help="install the emulator of Azure's storage; print its command"
    )
    azurite.set_defaults(run=lambda options: print(*azurite_command()))

    model = commands.add_parser("model", help="put SmolLM2-135M-Instruct as safetensors into a folder")
    model.add_argument("folder", type=Path)
    model.set_defaults(run=lambda options: install_model(options.folder))
    return parser


def _chosen(options: argparse.Namespace) -> list[Image]:
    return list(_GROUPS.get(options.image, ())) or [IMAGES[options.image]]


def _build(options: argparse.Namespace) -> None:
    built = build_images(_chosen(options))
    if options.json:
        print(json.dumps({"images": built.refs, "seconds": built.seconds}))
    else:
        print("\n".join(built.refs.values()))


def _load(options: argparse.Namespace) -> None:
    ctr = ["ctr", "--address", options.address, "--namespace", "k8s.io"]
    for ref in build_images(_chosen(options)).refs.values():
        load_image(ref, ctr)
        print(ref)


def _archive(options: argparse.Namespace) -> None:
    ref = build_images([IMAGES[options.image]]).refs[options.image]
    with options.file.open("wb") as file:
        write_archive(layout_path(), ref, file)
    print(ref)


if __name__ == "__main__":
    sys.exit(main())
