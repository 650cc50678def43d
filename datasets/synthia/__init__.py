from car_jax.datasets.synthia.synthia_dataset_builder import Builder, Config
