"""Row formats: detection, checks, canonical form."""
