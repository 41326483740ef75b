"""Models behind endpoints that serve the OpenAI API."""

from pydantic import Field

from .common import SecretName, StrictModel
from .uris import HttpUrl

ENDPOINT_KEY = "The Secret whose key `token` is sent as a bearer token. Only the pods read it."


class ChatEndpoint(StrictModel):
    """A model behind an endpoint that serves the OpenAI API."""

    url: HttpUrl = Field(
        description="The base URL of the API, including /v1, such as http://big-model.team.svc:8000/v1."
    )
    model: str = Field(
        min_length=1, max_length=256, description="The name under which the endpoint serves the model."
    )
    secret_ref: SecretName | None = Field(None, description=ENDPOINT_KEY)
