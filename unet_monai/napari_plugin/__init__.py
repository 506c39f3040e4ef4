"""The loop that needs no server: segment an image in napari, correct it, save it for training, fine-tune.

`planes`, `training_pair` and `fine_tuning` do the work and know nothing of napari; `panel` is what napari shows.
"""
