"""A teacher: mn04 fine-tuned whole on a corpus, with scores in time, from which smaller models learn."""
