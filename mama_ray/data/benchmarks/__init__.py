"""Official annotation files as rows that jobs/prepare.py reads, one module per benchmark."""
