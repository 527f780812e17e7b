"""Names of metrics, their writers, plots and the report page."""
