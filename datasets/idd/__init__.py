from car_jax.datasets.idd.idd_dataset_builder import Builder, Config
