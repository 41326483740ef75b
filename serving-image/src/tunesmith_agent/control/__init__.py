"""Control loop: from the desired state to loaded, proven and routed versions."""
