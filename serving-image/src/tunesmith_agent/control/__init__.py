"""From the desired state to loaded, proven and routed versions."""
