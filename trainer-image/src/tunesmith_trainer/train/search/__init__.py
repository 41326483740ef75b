"""Search for hyperparameters in one pod: trials one after the other, on one loaded base model."""
