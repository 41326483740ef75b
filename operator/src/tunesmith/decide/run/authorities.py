"""The field that names the ConfigMap with certificate authorities."""

from tunesmith.api.common import PodTemplate
from tunesmith.manifests.outbound import Outbound, outbound_of
from tunesmith_contract.uris import Scheme

_TEMPLATE_FIELD = "spec.compute.template.caBundle"
_CHART_FIELD = "the chart's value defaults.caBundle"


def authority_fields(template: PodTemplate | None, defaults: Outbound) -> dict[str, str]:
    """URI of the ConfigMap with authorities, by the field that names it; empty if there is none.

    Args:
        defaults: settings of the installation.
    """
    bundle = outbound_of(template, defaults).ca_bundle
    if bundle is None:
        return {}
    field = _TEMPLATE_FIELD if template and template.ca_bundle else _CHART_FIELD
    return {field: f"{Scheme.CONFIGMAP}://{bundle.config_map}/{bundle.key}"}
