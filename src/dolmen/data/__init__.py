"""Files in the field's formats -> examples; checks, splits, augmentation, batching."""
