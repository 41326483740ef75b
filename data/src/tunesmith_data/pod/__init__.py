"""Environment of a pod: workspace, storage, Secrets, progress, redaction."""
