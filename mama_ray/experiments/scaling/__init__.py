"""What captioning and training would do on more machines than there are here: measured rates, stated assumptions, and a
discrete-event simulation of both.
"""
