"""Generator of the documentation pages that follow from code: field reference, chart values, troubleshooting."""
