"""Status of an AdapterDeployment, rebuilt from its records and the observed pods."""
