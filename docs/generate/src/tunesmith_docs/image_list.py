"""The images of a release, one a line, for mirrors."""

from collections.abc import Iterable, Mapping
from typing import Any


def image_list(values: Mapping[str, Any], release: str, names: Iterable[str]) -> str:
    """References of all images of a release, in the order of their names, each on a line of its own.

    Args:
        values: the chart's default values.
        release: the chart's ``appVersion``.
        names: names of all images that are built, those for CUDA 12 among them, which no default value names.

    Raises:
        ValueError: a value names an image that is not built.
    """
    repository: str = values["image"]["repository"]
    registry = repository.rpartition("/")[0]
    built = {f"{registry}/{name}:{release}" for name in names}
    defaults = (values[name] for name in ("trainerImage", "servingImage", "servingGpuImage"))
    named = {f"{repository}:{values['image']['tag'] or release}", *filter(None, defaults)}
    if unknown := named - built:
        raise ValueError(f"values.yaml names images that are not built: {', '.join(sorted(unknown))}")
    return "".join(f"{image}\n" for image in sorted(built))
