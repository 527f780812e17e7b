"""How a job meets Ray: connection, entry, placement, metrics, sources of models and configs."""
