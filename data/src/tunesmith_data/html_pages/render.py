"""Rendering of self-contained HTML pages."""

import base64
import hashlib
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from .text_filters import FILTERS

_PACKAGE = "tunesmith_data.html_pages"
_TEMPLATES = "templates"


class PageTemplates:
    """Templates of a package, which extend ``base.html.jinja``; everything that they show is escaped.

    The page loads no other file. Its content security policy allows no other script or style than its own: those of
    the base, followed by those of the package.

    Args:
        package: package with a folder ``templates``.
        style: name of the package's style sheet in that folder.
        script: name of its script; None if that of the base suffices.
        filters: filters beside those that all pages have.
    """

    def __init__(
        self,
        package: str,
        style: str,
        script: str | None = None,
        filters: Mapping[str, Callable[..., str]] | None = None,
    ) -> None:
        self._style = _asset(_PACKAGE, "base.css") + _asset(package, style)
        self._script = _asset(_PACKAGE, "base.js") + (_asset(package, script) if script else "")
        self._environment = Environment(
            loader=ChoiceLoader([PackageLoader(package, _TEMPLATES), PackageLoader(_PACKAGE, _TEMPLATES)]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(FILTERS)
        self._environment.filters.update(filters or {})

    def render(self, template: str, **values: Any) -> str:
        """A page from a template and the values that it names."""
        return self._environment.get_template(template).render(
            style=Markup(self._style),
            script=Markup(self._script),
            style_hash=_source_hash(self._style),
            script_hash=_source_hash(self._script),
            **values,
        )


def _asset(package: str, name: str) -> str:
    return files(package).joinpath(_TEMPLATES, name).read_text(encoding="utf-8")


def _source_hash(source: str) -> str:
    """Hash of an inline script or style for the content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
