"""What is seen in the clips of a corpus: planned, drawn and filmed as a camera would."""
