"""Other pods of the AdapterDeployment: their addresses, their health, and the key that agents share."""
