from car_jax.datasets.gta5.gta5_dataset_builder import Builder, Config
