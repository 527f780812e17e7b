"""VIOLETv2: Video Swin and BERT's embeddings, fused by BERT's encoder, with heads for questions and for retrieval."""
