"""Tensors -> tensors: layers, networks, losses, optimisers. No paths, no config objects."""
