"""Fields that name what pods need to reach addresses outside the cluster."""

from tunesmith.api.pod_template import PodTemplate
from tunesmith.manifests.outbound import Outbound, outbound_of
from tunesmith_contract.uris import Scheme

from .claims import TEMPLATE_FIELD


def authority_fields(
    template: PodTemplate | None, defaults: Outbound, path: str = TEMPLATE_FIELD
) -> dict[str, str]:
    """URI of the ConfigMap with authorities, by the field that names it; empty if there is none.

    Args:
        defaults: settings of the installation.
        path: path of the template.
    """
    bundle = outbound_of(template, defaults).ca_bundle
    if bundle is None:
        return {}
    is_written = template is not None and template.ca_bundle is not None
    field = f"{path}.caBundle" if is_written else "the chart's value defaults.caBundle"
    return {field: f"{Scheme.CONFIGMAP}://{bundle.config_map}/{bundle.key}"}


def proxy_secret_fields(
    template: PodTemplate | None, defaults: Outbound, path: str = TEMPLATE_FIELD
) -> dict[str, str | None]:
    """Names of the Secrets that hold variables such as a proxy's URL, by the field that names each.

    Args:
        defaults: settings of the installation.
        path: path of the template.
    """
    proxy = template.proxy if template else None
    written = {f"{path}.proxy.secretRef.name": proxy.secret_ref.name} if proxy and proxy.secret_ref else {}
    references = (
        (name, (variable.get("valueFrom") or {}).get("secretKeyRef"))
        for name, variable in defaults.variables.items()
    )
    of_chart = {
        f"the chart's value defaults.env[{name}]": found["name"] for name, found in references if found
    }
    return {**written, **of_chart}
