"""Models behind endpoints that speak the OpenAI API."""

from pydantic import Field

from .common import SecretName, StrictModel
from .uris import HttpUrl

ENDPOINT_KEY = "Secret whose key `token` is sent as a bearer token. Read by the pods only."


class ChatEndpoint(StrictModel):
    """A model behind an endpoint that speaks the OpenAI API."""

    url: HttpUrl = Field(description="Its address up to /v1, such as http://big-model.team.svc:8000/v1.")
    model: str = Field(min_length=1, max_length=256, description="The name it serves the model by.")
    secret_ref: SecretName | None = Field(None, description=ENDPOINT_KEY)
