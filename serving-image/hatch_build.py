"""Build hook of the agent's wheel: compiles the modules that each request goes through, by mypyc."""

import os
import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_SOURCES = Path("src")


class CompileHook(BuildHookInterface[Any]):
    """Puts the compiled modules beside their sources into the wheel.

    Off by default: the agent also runs without them, only slower. ``HATCH_BUILD_HOOKS_ENABLE=1`` switches it on. It
    needs mypy, setuptools, a C compiler, and the packages that the agent imports.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile what the option ``modules`` names."""
        # They are there only where something is compiled.
        from mypyc.build import mypycify
        from setuptools import Distribution  # type: ignore[import-untyped]

        self._folder = folder = mkdtemp(prefix="tunesmith-agent-")
        os.chdir(self.root)
        os.environ["MYPYPATH"] = os.pathsep.join(filter(None, (str(_SOURCES), os.environ.get("MYPYPATH"))))
        paths = [str(_SOURCES / path) for path in self.config["modules"]]
        options = [
            "--config-file=pyproject.toml",
            f"--cache-dir={folder}/types",
            "--explicit-package-bases",
            "--follow-imports=silent",
        ]
        extensions = mypycify(
            [*options, *paths],
            opt_level="3",
            debug_level="0",
            group_name="tunesmith_agent",
            target_dir=f"{folder}/c",
        )
        command = Distribution({"ext_modules": extensions}).get_command_obj("build_ext")
        command.build_lib, command.build_temp = f"{folder}/lib", f"{folder}/objects"
        command.ensure_finalized()
        command.run()
        built = {path: os.path.relpath(path, f"{folder}/lib") for path in command.get_outputs()}
        build_data["force_include"].update(built)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was made on the way."""
        shutil.rmtree(self._folder)
