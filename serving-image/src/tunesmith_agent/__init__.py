"""The agent in front of the engine in a serving pod: routes requests to versions, loads and proves adapters.

Rooms: ``http`` (wire), ``routing`` (pure: which version answers), ``engine`` (vLLM's control API),
``artifacts`` (what lies in storage is what its digest says), ``control`` (desired state to loaded versions).
"""
