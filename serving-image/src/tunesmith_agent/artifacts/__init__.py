"""What lies in storage is what its digest says."""
