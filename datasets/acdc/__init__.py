from car_jax.datasets.acdc.acdc_dataset_builder import Builder, Config
