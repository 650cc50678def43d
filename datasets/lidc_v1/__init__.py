from car_jax.datasets.lidc_v1.lidc_v1_dataset_builder import Builder, Config
