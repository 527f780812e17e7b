"""The report of the study: claims, figures and tables drawn from its records."""
