"""Agent in front of the engine in a serving pod: routes requests to versions, loads and proves adapters.

Rooms: ``http`` (server and connection pool), ``routing`` (pure: choice of the version), ``proxying`` (requests to the
engine), ``engine`` (client of vLLM's control API), ``control`` (desired state to loaded versions).
"""
