"""The captioning job: plan, stream, commits, report card."""
