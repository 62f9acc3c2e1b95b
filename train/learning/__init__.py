"""What a training step does: the mean teacher, its networks, augmentation, masks, costs; in one process or several."""
