"""Official files of video question answering as sets of questions, one module per benchmark."""
