from car_jax.datasets.lidc_crops.lidc_crops_dataset_builder import Builder, Config
