"""The controlled study: methods compared on clips whose faults are known."""
