"""Templates of this package -> HTML that needs no other file and no network."""

from collections.abc import Callable, Mapping
from importlib.resources import files
from importlib.util import find_spec

from ctflow_fed.errors import MissingExtraError

__all__ = ["check_packages", "render", "scripts"]

PACKAGES = {"jinja2": "jinja2", "PIL": "pillow"}
"""What a page with pictures needs: the module of each package."""


def check_packages() -> None:
    """Raise ``MissingExtraError`` where a page could not be made: before the work."""
    for module, package in PACKAGES.items():
        if find_spec(module) is None:
            raise MissingExtraError(package, "report")


def render(
    template: str,
    *,
    filters: Mapping[str, Callable[..., str]],
    charts: Mapping[str, str],
    scripts: Mapping[str, str] | None = None,
    **values: object,
) -> str:
    """Fill a template with values.

    ``charts`` are SVG texts and ``scripts`` programs of this package, which stand as
    they are.

    Raises ``MissingExtraError`` where jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, FunctionLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise MissingExtraError("jinja2", "report") from error
    environment = Environment(
        loader=FunctionLoader(resource),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(template).render(
        style=Markup(resource("page.css")),
        charts={name: Markup(svg) for name, svg in charts.items()},
        scripts={name: Markup(text) for name, text in (scripts or {}).items()},
        **values,
    )


def scripts(*, viewer: bool) -> dict[str, str]:
    """Return the programs of a page: ours, and NiiVue's where volumes are shown."""
    own = resource("page.js")
    return {"viewer": resource("niivue/niivue.umd.js") if viewer else "", "own": own}


def resource(name: str) -> str:
    """Return a file of this package."""
    return files("ctflow_fed.report").joinpath(name).read_text(encoding="utf-8")
