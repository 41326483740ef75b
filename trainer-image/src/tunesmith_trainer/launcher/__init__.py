"""Process supervisor (PID 1) of a training pod."""
