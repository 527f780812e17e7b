"""Both sides of benchmarks/peer_captioning.py, our captioning and Ray Data's, each as a job of its own."""
