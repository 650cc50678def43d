from car_jax.datasets.lidc_masks.lidc_masks_dataset_builder import Builder, Config
