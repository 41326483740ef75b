"""The only room that talks to the API server: read, carry out plans, classify what went wrong."""
